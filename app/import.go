package app

import (
	"fmt"
	"io"
	"os"

	"github.com/alecthomas/kong"

	"gatehouse/auth"
)

// adminImportCommand imports accounts from another system. Each line is a
// JSON object: email, password_hash, first_name, last_name, locale, roles,
// email_verified, status ("active" or "disabled") and id, a UUID. Only the email
// is required.
type adminImportCommand struct {
	File   string `arg:"" optional:"" default:"-" help:"Read accounts from this file of JSON lines: email, password_hash, first_name, last_name, locale, roles, email_verified, status, id. Standard input if empty or -."`
	DryRun bool   `help:"Only report what would be imported."`
	offlineFlags
}

func (c *adminImportCommand) Run(p *program, app *kong.Application) error {
	var invalid problems
	checkNames(&invalid, app, os.Environ())
	return c.with(p, &invalid, func(service *auth.Service) error {
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
			return fmt.Errorf("%d lines were refused: fix them, and import only those", refused)
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
