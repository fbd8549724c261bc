package app

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/alecthomas/kong"
	"github.com/jackc/pgx/v5"

	"gatehouse/internal/schema"
)

// psqlCommand opens psql on Gatehouse's data.
type psqlCommand struct {
	Command string `short:"c" placeholder:"SQL" help:"Run this SQL and exit, such as 'SELECT email FROM auth.accounts'. Without it, open a prompt."`
	dataFlags
	databaseFlags
}

func (c *psqlCommand) Run(p *program, app *kong.Application) (err error) {
	var invalid problems
	checkNames(&invalid, app, os.Environ())
	c.checkURLs(&invalid, false)
	if _, err := os.Stat(filepath.Join(c.DataDir, "postgres")); c.DatabaseURL == "" && err != nil {
		invalid.add("GATEHOUSE_DATA_DIR", fmt.Sprintf("%q is not a data folder of gatehouse up", c.DataDir),
			"run this where gatehouse up was started, or set DATABASE_URL")
	}
	if err := invalid.err(); err != nil {
		return err
	}
	program, err := exec.LookPath("psql")
	if err != nil {
		return errors.New("psql isn't on this machine: install it (Debian's package postgresql-client), or connect another client with the line that gatehouse up prints as \"look at data\"")
	}
	if c.DatabaseURL == "" {
		// Another name: the deferred stop reports by the result.
		url, stop, failed := openEmbedded(p, c.DataDir)
		if failed != nil {
			return failed
		}
		defer func() { err = errors.Join(err, stop()) }()
		c.DatabaseURL = url
	}
	config, err := pgx.ParseConfig(c.DatabaseURL)
	if err != nil {
		return problems{{"DATABASE_URL", "can't be parsed as a Postgres URL", "set it to one such as postgres://user:password@host:5432/gatehouse"}}
	}
	// The password is passed by the environment: arguments are visible to everybody.
	open, err := schema.WithoutPassword(c.DatabaseURL)
	if err != nil {
		return err
	}
	// Not bound to ctx: an interrupt at the terminal reaches psql as well, and
	// cancels its query only.
	args := []string{open}
	if c.Command != "" {
		args = append(args, "--command", c.Command)
	}
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), "PGPASSWORD="+config.Password)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("psql: %w", err)
	}
	return nil
}
