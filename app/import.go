package app

import (
	"fmt"
	"io"
	"os"

	"github.com/alecthomas/kong"

	"gatehouse/auth"
)

// adminImportCommand brings accounts over from another system. Each line is a
// JSON object: email, password_hash, first_name, last_name, locale, roles,
// email_verified, status ("active" or "disabled") and id, a UUID. Only the email
// must be there.
type adminImportCommand struct {
	File   string `arg:"" optional:"" default:"-" help:"JSON lines: email, password_hash, first_name, last_name, locale, roles, email_verified, status, id. Standard input if empty or -."`
	DryRun bool   `help:"Only say what would come of it."`
	besideFlags
}

func (c *adminImportCommand) Run(p *program, app *kong.Application) error {
	var m mistakes
	checkNames(&m, app, os.Environ())
	return c.with(p, &m, func(service *auth.Service) error {
		source, err := c.open()
		if err != nil {
			return err
		}
		defer func() { _ = source.Close() }()
		refused := 0
		made, err := service.Import(p.ctx, source, c.DryRun, func(line int, reason string) {
			refused++
			fmt.Fprintf(p.stdout, "line %d: %s\n", line, reason)
		})
		if c.DryRun {
			fmt.Fprintf(p.stdout, "%d accounts could be imported.\n", made)
		} else {
			fmt.Fprintf(p.stdout, "%d accounts are imported.\n", made)
		}
		if err != nil {
			return err
		}
		if refused > 0 {
			return fmt.Errorf("%d lines were refused: mend them, and import them alone", refused)
		}
		return nil
	})
}

func (c *adminImportCommand) open() (io.ReadCloser, error) {
	if c.File == "-" {
		return io.NopCloser(os.Stdin), nil
	}
	file, err := os.Open(c.File)
	if err != nil {
		return nil, fmt.Errorf("import: %w", err)
	}
	return file, nil
}
