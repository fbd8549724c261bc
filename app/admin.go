package app

import (
	"crypto/rand"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/alecthomas/kong"

	"gatehouse/auth"
	"gatehouse/internal/email"
)

// adminCommands are for operators, who need no session for them.
type adminCommands struct {
	List          adminListCommand         `cmd:"" help:"List the administrators."`
	Create        adminCreateCommand       `cmd:"" help:"Create an administrator."`
	Grant         adminGrantCommand        `cmd:"" help:"Give an existing account the role admin."`
	Revoke        adminRevokeCommand       `cmd:"" help:"Take the role admin from an account. Refused for the last administrator."`
	ResetPassword adminResetCommand        `cmd:"" help:"Set a new password for an account, and end its sessions."`
	ResetFactors  adminResetFactorsCommand `cmd:"" help:"Remove the second factors of an account whose owner lost them, and end its sessions. The password stays."`
	Import        adminImportCommand       `cmd:"" help:"Import accounts from another system, with their password hashes."`
}

// passwordCommandFlags name an account and its new password.
type passwordCommandFlags struct {
	Email string `arg:"" help:"The account's email."`
	// Not GATEHOUSE_ADMIN_PASSWORD, which is set where auth runs: there, every
	// account whose password is reset would get the administrator's.
	Password string `env:"GATEHOUSE_NEW_PASSWORD" placeholder:"PASSWORD" help:"Set this password; generated and printed if empty."`
	offlineFlags
}

// with opens auth offline and calls work with the password to set.
func (f *passwordCommandFlags) with(p *program, app *kong.Application, invalid *problems, work func(*auth.Service, string) error) error {
	checkNames(invalid, app, os.Environ())
	f.Email = email.Normalize(f.Email)
	if f.Password != "" {
		f.checkPassword(invalid, "GATEHOUSE_NEW_PASSWORD", f.Password)
	}
	return f.offlineFlags.with(p, invalid, func(service *auth.Service) error {
		password := f.Password
		if password == "" {
			password = rand.Text()
		}
		if err := work(service, password); err != nil {
			return err
		}
		fmt.Fprintf(p.stdout, "  %-14s %s\n", "email", f.Email)
		if f.Password == "" {
			fmt.Fprintf(p.stdout, "  %-14s %s\n", "password", password)
		}
		return nil
	})
}

type adminCreateCommand struct{ passwordCommandFlags }

func (c *adminCreateCommand) Run(p *program, app *kong.Application) error {
	var invalid problems
	checkEmail(&invalid, "EMAIL", c.Email)
	return c.with(p, app, &invalid, func(service *auth.Service, password string) error {
		return service.CreateAdministrator(p.ctx, c.Email, password)
	})
}

type adminResetCommand struct{ passwordCommandFlags }

func (c *adminResetCommand) Run(p *program, app *kong.Application) error {
	// Any email: that of an account may be older than the rule for new ones.
	return c.with(p, app, &problems{}, func(service *auth.Service, password string) error {
		return service.SetPassword(p.ctx, c.Email, password)
	})
}

type adminResetFactorsCommand struct {
	Email string `arg:"" help:"The account's email."`
	offlineFlags
}

func (c *adminResetFactorsCommand) Run(p *program, app *kong.Application) error {
	var invalid problems
	checkNames(&invalid, app, os.Environ())
	// Any email: that of an account may be older than the rule for new ones.
	c.Email = email.Normalize(c.Email)
	return c.with(p, &invalid, func(service *auth.Service) error {
		hasPassword, err := service.ResetFactors(p.ctx, c.Email)
		if connect.CodeOf(err) == connect.CodeNotFound {
			return fmt.Errorf("no account has the email %s", c.Email)
		}
		if err != nil {
			return err
		}
		next := "The password is unchanged: sign in with it, and add a second factor again."
		if !hasPassword {
			next = "The account has no password: set one with gatehouse admin reset-password."
		}
		_, err = fmt.Fprintf(p.stdout, "%s has no second factor and no session now.\n%s\n", c.Email, next)
		return err
	})
}

type adminListCommand struct{ offlineFlags }

func (c *adminListCommand) Run(p *program, app *kong.Application) error {
	var invalid problems
	checkNames(&invalid, app, os.Environ())
	return c.with(p, &invalid, func(service *auth.Service) error {
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

// roleFlags name an account whose role changes.
type roleFlags struct {
	Email string `arg:"" help:"The account's email."`
	offlineFlags
}

// change grants or revokes the role admin by act, and prints the outcome.
func (f *roleFlags) change(p *program, app *kong.Application, done, already string, act func(*auth.Service) (bool, error)) error {
	var invalid problems
	checkNames(&invalid, app, os.Environ())
	checkEmail(&invalid, "EMAIL", f.Email)
	return f.with(p, &invalid, func(service *auth.Service) error {
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
	return c.change(p, app, "is no longer an administrator", "is not an administrator", func(service *auth.Service) (bool, error) {
		return service.RevokeRole(p.ctx, c.Email, auth.AdminRole)
	})
}
