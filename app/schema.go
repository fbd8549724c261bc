package app

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/alecthomas/kong"

	"gatehouse/internal/schema"
)

// schemaCommands change a database to what schema.sql declares.
type schemaCommands struct {
	Plan   schemaPlanCommand   `cmd:"" help:"Print the SQL that apply would execute, with the lock that each statement takes on a table."`
	Apply  schemaApplyCommand  `cmd:"" help:"Change the database to what schema.sql declares, in one transaction; indexes of large tables are built after it, concurrently. Changes that would lose data or block a large table are refused."`
	Status schemaStatusCommand `cmd:"" help:"Compare the database with schema.sql."`
	List   schemaListCommand   `cmd:"" help:"Print the names of the Postgres schemas of all services, one on each line, such as for pg_dump."`
}

// schemaFlags are read by each of them.
type schemaFlags struct {
	databaseFlags
	readerFlags
	secretFlags
	shareFlags
	Logins serviceLogins `embed:""`
}

// serviceLogins are the logins of all services that have a schema.
type serviceLogins struct {
	kong.Plugins
	byService map[string]*loginFlags
}

func newServiceLogins() serviceLogins {
	l := serviceLogins{byService: map[string]*loginFlags{}}
	for _, service := range Services() {
		if service.HasTables() {
			l.byService[service.Name] = &loginFlags{service: service.Name}
			l.Plugins = append(l.Plugins, named(service.Name, l.byService[service.Name]))
		}
	}
	return l
}

// config checks the flags, and returns the secret keys as well. The passwords of
// the services' roles are derived from these, unless their own URLs give them.
func (f *schemaFlags) config(p *program, app *kong.Application) (schema.Config, [][]byte, error) {
	var invalid problems
	checkNames(&invalid, app, os.Environ())
	f.checkURLs(&invalid, true)
	derived := false
	for _, login := range f.Logins.byService {
		checkDatabaseURL(&invalid, login.name(), login.URL, false)
		derived = derived || login.URL == ""
	}
	reader := f.readerFlags.parse(&invalid)
	if derived || f.SecretKey != "" {
		f.secretFlags.parse(&invalid)
	}
	if err := invalid.err(); err != nil {
		return schema.Config{}, nil, err
	}
	logins, err := deriveLogins(f.DatabaseURL, f.Logins.byService, f.keys)
	if err != nil {
		return schema.Config{}, nil, err
	}
	return schema.Config{
		SQL: p.schema, Own: ownSchemas(), DatabaseURL: f.DatabaseURL, DevURL: f.AtlasDevURL, Roles: rolesOf(logins), Reader: reader, Shared: f.ShareDatabase, Logger: p.logger,
	}, f.keys, nil
}

// readOnly is config for a command that changes nothing.
func (f *schemaFlags) readOnly(p *program, app *kong.Application) (schema.Config, error) {
	config, secrets, err := f.config(p, app)
	if err != nil {
		return config, err
	}
	return config, checkSecrets(p.ctx, config.DatabaseURL, secrets)
}

type schemaPlanCommand struct{ schemaFlags }

func (c *schemaPlanCommand) Run(p *program, app *kong.Application) error {
	config, err := c.readOnly(p, app)
	if err != nil {
		return err
	}
	proposal, err := schema.Plan(p.ctx, config)
	if err != nil {
		return fmt.Errorf("plan the schema: %w", refusal(err))
	}
	if len(proposal.Statements) == 0 {
		fmt.Fprintln(p.stdout, "-- Nothing to do.")
	}
	for i, statement := range proposal.Statements {
		if lock := proposal.Locks[i]; lock != nil {
			fmt.Fprintf(p.stdout, "-- Locks: %s.\n", lock)
		}
		fmt.Fprintln(p.stdout, statement+";")
	}
	for _, loss := range proposal.Destructive {
		fmt.Fprintln(p.stdout, "-- Destructive, and refused without --allow-destructive:", loss)
	}
	for _, statement := range proposal.Locking {
		fmt.Fprintln(p.stdout, "-- Blocks a large table, and refused without --allow-locking:", statement)
	}
	return nil
}

type schemaApplyCommand struct {
	schemaFlags
	AllowDestructive bool `help:"Permit changes that lose data."`
	AllowLocking     bool `help:"Permit statements that block a table of 64 MiB or more until every row is processed."`
}

func (c *schemaApplyCommand) Run(p *program, app *kong.Application) error {
	config, secrets, err := c.config(p, app)
	if err != nil {
		return err
	}
	config.AllowDestructive, config.AllowLocking = c.AllowDestructive, c.AllowLocking
	result, err := applySchema(p, config, secrets)
	if err != nil {
		return fmt.Errorf("apply the schema: %w", err)
	}
	if result.Newer {
		fmt.Fprintf(p.stdout, "The database has the newer schema %d: it was not changed.\n", result.Number)
	} else {
		fmt.Fprintf(p.stdout, "The database has schema %d; %d statements were executed.\n", result.Number, len(result.Statements))
	}
	for _, service := range slices.Sorted(maps.Keys(result.Own)) {
		own := result.Own[service]
		if own.Newer {
			fmt.Fprintf(p.stdout, "The service %s has the newer schema %d: it was not changed.\n", service, own.Number)
		} else {
			fmt.Fprintf(p.stdout, "The service %s has schema %d.\n", service, own.Number)
		}
	}
	return nil
}

type schemaStatusCommand struct{ schemaFlags }

func (c *schemaStatusCommand) Run(p *program, app *kong.Application) error {
	config, err := c.readOnly(p, app)
	if err != nil {
		return err
	}
	state, err := schema.Status(p.ctx, config)
	if err != nil {
		return fmt.Errorf("compare the schema: %w", refusal(err))
	}
	fmt.Fprintf(p.stdout, "The database has schema %d, this binary schema %d.\n", state.Stored, state.Number)
	for _, service := range slices.Sorted(maps.Keys(state.Own)) {
		own := state.Own[service]
		fmt.Fprintf(p.stdout, "The service %s has schema %d, this binary schema %d.\n", service, own.Stored, own.Number)
	}
	switch {
	case state.Newer():
		fmt.Fprintln(p.stdout, "It is newer: this binary can run with it.")
	case state.Converged():
		fmt.Fprintln(p.stdout, "It is as schema.sql declares it.")
	case len(state.Pending.Statements) == 0:
		return errors.New("only the stored number is old: run gatehouse schema apply")
	default:
		return fmt.Errorf("%d statements are needed: see gatehouse schema plan", len(state.Pending.Statements))
	}
	return nil
}

// schemaListCommand prints the schemas that a backup must contain.
type schemaListCommand struct{}

func (schemaListCommand) Run(p *program) error {
	for _, name := range schemas() {
		if _, err := fmt.Fprintln(p.stdout, name); err != nil {
			return err
		}
	}
	return nil
}
