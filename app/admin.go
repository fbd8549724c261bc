package app

import (
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/alecthomas/kong"

	"gatehouse/auth"
)

type adminListCommand struct{ besideFlags }

func (c *adminListCommand) Run(p *program, app *kong.Application) error {
	var m mistakes
	checkNames(&m, app, os.Environ())
	return c.with(p, &m, func(service *auth.Service) error {
		found, err := service.Administrators(p.ctx)
		if err != nil {
			return err
		}
		table := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "EMAIL\tSTATUS\tCREATED\tLAST SIGN-IN")
		for _, one := range found {
			status, last := "active", "never"
			if one.Disabled {
				status = "disabled"
			}
			if one.LastSignIn != nil {
				last = one.LastSignIn.UTC().Format(time.DateTime)
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", one.Email, status, one.CreateTime.UTC().Format(time.DateTime), last)
		}
		return table.Flush()
	})
}

// roleFlags name an account and where auth's tables are.
type roleFlags struct {
	Email string `arg:"" help:"The account's email."`
	besideFlags
}

// change gives or takes the role admin by act, and says what came of it.
func (f *roleFlags) change(p *program, app *kong.Application, done, already string, act func(*auth.Service) (bool, error)) error {
	var m mistakes
	checkNames(&m, app, os.Environ())
	checkEmail(&m, "EMAIL", f.Email)
	return f.with(p, &m, func(service *auth.Service) error {
		changed, err := act(service)
		if connect.CodeOf(err) == connect.CodeNotFound {
			return fmt.Errorf("no account has the email %s: create an administrator with gatehouse admin create", f.Email)
		}
		if err != nil {
			return err
		}
		if !changed {
			done = already
		}
		_, err = fmt.Fprintf(p.stdout, "%s %s.\n", f.Email, done)
		return err
	})
}

type adminGrantCommand struct{ roleFlags }

func (c *adminGrantCommand) Run(p *program, app *kong.Application) error {
	return c.change(p, app, "is an administrator now", "is an administrator already", func(service *auth.Service) (bool, error) {
		return service.GrantRole(p.ctx, c.Email, auth.AdminRole)
	})
}

type adminRevokeCommand struct{ roleFlags }

func (c *adminRevokeCommand) Run(p *program, app *kong.Application) error {
	return c.change(p, app, "is no administrator any more", "is no administrator", func(service *auth.Service) (bool, error) {
		return service.RevokeRole(p.ctx, c.Email, auth.AdminRole)
	})
}
