package app

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"gatehouse/auth"
	"gatehouse/bff"
	"gatehouse/internal/email"
	"gatehouse/internal/postgres"
	"gatehouse/internal/schema"
)

// schemaCommands make a database be as schema.sql declares it.
type schemaCommands struct {
	Plan   schemaPlanCommand   `cmd:"" help:"Print the SQL that apply would execute."`
	Apply  schemaApplyCommand  `cmd:"" help:"Change the database, in one transaction. What would lose data is refused."`
	Status schemaStatusCommand `cmd:"" help:"Tell whether the database is as it should be."`
}

// schemaFlags are what each of them reads.
type schemaFlags struct {
	databaseFlags
	authDatabaseFlags
	usersDatabaseFlags
	readerDatabaseFlags
	secretFlags
	shareFlags
}

// config checks the flags, and returns the secret keys as well. The passwords of
// the services' roles are derived from these, unless their own URLs give them.
func (f *schemaFlags) config(p *program, app *kong.Application) (schema.Config, [][]byte, error) {
	var m mistakes
	checkNames(&m, app, os.Environ())
	f.databaseFlags.parse(&m, true)
	checkDatabaseURL(&m, "AUTH_DATABASE_URL", f.AuthDatabaseURL, false)
	checkDatabaseURL(&m, "USERS_DATABASE_URL", f.UsersDatabaseURL, false)
	reader := f.readerDatabaseFlags.parse(&m)
	var secrets [][]byte
	if f.AuthDatabaseURL == "" || f.UsersDatabaseURL == "" || f.SecretKey != "" {
		secrets = f.secretFlags.parse(&m)
	}
	if err := m.err(); err != nil {
		return schema.Config{}, nil, err
	}
	logins, err := loginsOf(f.DatabaseURL, f.AuthDatabaseURL, f.UsersDatabaseURL, secrets)
	if err != nil {
		return schema.Config{}, nil, err
	}
	logins.roles.Reader = reader
	return schema.Config{
		SQL: schemaSQL, DatabaseURL: f.DatabaseURL, DevURL: f.AtlasDevURL, Roles: logins.roles, Shared: f.ShareDatabase, Logger: p.logger,
	}, secrets, nil
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
		fmt.Fprintln(p.stdout, "-- Nothing is to be done.")
	}
	for _, statement := range proposal.Statements {
		fmt.Fprintln(p.stdout, statement+";")
	}
	for _, loss := range proposal.Destructive {
		fmt.Fprintln(p.stdout, "-- Destructive, and refused without --allow-destructive:", loss)
	}
	return nil
}

type schemaApplyCommand struct {
	schemaFlags
	AllowDestructive bool `help:"Permit changes that lose data."`
}

func (c *schemaApplyCommand) Run(p *program, app *kong.Application) error {
	config, secrets, err := c.config(p, app)
	if err != nil {
		return err
	}
	config.AllowDestructive = c.AllowDestructive
	result, err := applySchema(p, config, secrets)
	if err != nil {
		return fmt.Errorf("apply the schema: %w", err)
	}
	if result.Newer {
		fmt.Fprintf(p.stdout, "The database has the newer schema %d: nothing was changed.\n", result.Number)
		return nil
	}
	fmt.Fprintf(p.stdout, "The database has schema %d; %d statements were executed.\n", result.Number, len(result.Statements))
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
	switch {
	case state.Newer():
		fmt.Fprintln(p.stdout, "It is newer: this binary can run beside it.")
	case state.Converged():
		fmt.Fprintln(p.stdout, "It is as schema.sql declares it.")
	case len(state.Pending.Statements) == 0:
		return errors.New("only the stored number is old: run gatehouse schema apply")
	default:
		return fmt.Errorf("%d statements are needed: see gatehouse schema plan", len(state.Pending.Statements))
	}
	return nil
}

// adminCommands help an operator who can't sign in.
type adminCommands struct {
	List          adminListCommand   `cmd:"" help:"List the administrators."`
	Create        adminCreateCommand `cmd:"" help:"Make an administrator."`
	Grant         adminGrantCommand  `cmd:"" help:"Make an account that exists an administrator."`
	Revoke        adminRevokeCommand `cmd:"" help:"Take the role admin from an account. The last administrator keeps it."`
	ResetPassword adminResetCommand  `cmd:"" help:"Give an account another password, and end its sessions."`
	Import        adminImportCommand `cmd:"" help:"Bring accounts over from another system, with their password hashes."`
}

// adminFlags say whose password, and where auth's tables are.
type adminFlags struct {
	Email string `arg:"" help:"The account's email."`
	// Not GATEHOUSE_ADMIN_PASSWORD, which is set where auth runs: whoever's
	// password is reset there would get the administrator's.
	Password string `env:"GATEHOUSE_NEW_PASSWORD" placeholder:"PASSWORD" help:"The password to have; generated and printed if empty."`
	besideFlags
}

// with opens auth beside whatever is running and lets work use it.
func (f *adminFlags) with(p *program, app *kong.Application, m *mistakes, work func(*auth.Service, string) error) error {
	checkNames(m, app, os.Environ())
	f.Email = email.Normalize(f.Email)
	if f.Password != "" {
		checkPassword(m, "GATEHOUSE_NEW_PASSWORD", f.Password)
	}
	return f.besideFlags.with(p, m, func(service *auth.Service) error {
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

// attach returns the URL of the data folder's Postgres: the one that runs, or
// one that is started for as long as this command needs it.
func attach(p *program, dir string) (url string, stop func() error, err error) {
	if server, ok := postgres.Running(dir); ok {
		return server.URL(embeddedDatabase), func() error { return nil }, nil
	}
	server, err := postgres.Start(p.ctx, postgres.Config{Dir: dir, Logger: p.logger})
	if err != nil {
		return "", nil, err
	}
	return server.URL(embeddedDatabase), func() error { return server.Stop(context.WithoutCancel(p.ctx)) }, nil
}

type adminCreateCommand struct{ adminFlags }

func (c *adminCreateCommand) Run(p *program, app *kong.Application) error {
	var m mistakes
	checkEmail(&m, "EMAIL", c.Email)
	return c.with(p, app, &m, func(service *auth.Service, password string) error {
		return service.CreateAdministrator(p.ctx, c.Email, password)
	})
}

type adminResetCommand struct{ adminFlags }

func (c *adminResetCommand) Run(p *program, app *kong.Application) error {
	// Any email: that of an account may be older than the rule for new ones.
	return c.with(p, app, &mistakes{}, func(service *auth.Service, password string) error {
		return service.SetPassword(p.ctx, c.Email, password)
	})
}

// policyCommand prints who may call what, and what holds for it.
type policyCommand struct {
	Markdown bool `help:"Print it as a page of documentation."`
	policyFlags
}

func (c policyCommand) Run(p *program) error {
	var m mistakes
	tightened := c.policyFlags.parse(&m)
	if err := m.err(); err != nil {
		return err
	}
	policy, err := bff.PolicyOf(tightened)
	if err != nil {
		return err
	}
	if c.Markdown {
		return policy.WriteMarkdown(p.stdout)
	}
	return policy.WriteText(p.stdout)
}

// healthcheckCommand asks a role whether it is ready.
type healthcheckCommand struct {
	Listen string `env:"GATEHOUSE_LISTEN" default:"127.0.0.1:8001" placeholder:"ADDRESS" help:"Where the role listens."`
}

func (c *healthcheckCommand) Run(p *program) error {
	var m mistakes
	parseListen(&m, c.Listen)
	if err := m.err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(p.ctx, 3*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+dialable(c.Listen)+"/readyz", nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("ask for readiness: %w", err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 4096))
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return errors.New(strings.TrimSpace(string(text)))
	}
	fmt.Fprint(p.stdout, string(text))
	return nil
}

// dialable is an address to listen on as one to dial on this machine.
func dialable(listen string) string {
	host, port, _ := net.SplitHostPort(listen)
	if address := net.ParseIP(host); host == "" || address != nil && address.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}
