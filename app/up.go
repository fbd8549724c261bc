package app

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"

	"github.com/alecthomas/kong"
	"github.com/jackc/pgx/v5"

	"gatehouse/auth"
	"gatehouse/internal/database"
	"gatehouse/internal/postgres"
	"gatehouse/internal/schema"
)

// upCommand runs everything.
type upCommand struct {
	kong.Plugins
	settings *settings
}

// upSettings are those of up: the ones of serve, and the data folder.
func upSettings() *settings {
	s := newSettings(commandUp, Services()...)
	s.add(&dataFlags{}, &shareFlags{}, &developmentFlags{})
	s.defaults["registration"] = string(auth.RegistrationOpen)
	return s
}

// dataFlags have the folder in which up keeps its data.
type dataFlags struct {
	DataDir string `env:"GATEHOUSE_DATA_DIR" default:".gatehouse" placeholder:"FOLDER" help:"Keep the embedded Postgres and the generated secrets in this folder."`
}

func (*dataFlags) check(*checks) {}

const (
	embeddedDatabase = "gatehouse"
	defaultDataDir   = ".gatehouse" // as dataFlags say
)

func (c *upCommand) Run(p *program, app *kong.Application) (err error) {
	ignoreBrokenPipes()
	var invalid problems
	dir, listen := find[*dataFlags](c.settings).DataDir, find[*listenFlags](c.settings).Listen
	keepSecrets(c.settings, dir, &invalid)
	find[*mailFlags](c.settings).mailbox = filepath.Join(dir, "mailbox")
	find[*originFlags](c.settings).development = true
	find[*publicFlags](c.settings).listen = listen
	c.settings.check(&invalid, app)
	if err := invalid.err(); err != nil {
		return err
	}
	database := find[*databaseFlags](c.settings)
	source := "DATABASE_URL"
	if database.DatabaseURL == "" {
		source = "embedded"
	}
	p.logger.Info("starting", "version", thisBuild(p.schema).name(), "listen", listen, "data_dir", dir, "database", source)
	b := banner{settings: c.settings, dataDir: dir}
	ctx := p.ctx
	if database.DatabaseURL == "" {
		var embedded *postgres.Server
		embedded, err = postgres.Start(p.ctx, postgres.Config{Dir: dir, Logger: p.logger})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, embedded.Stop(context.WithoutCancel(p.ctx))) }()
		if database.DatabaseURL, err = embeddedURL(p.ctx, embedded); err != nil {
			return err
		}
		b.embedded = embedded.Dir()
		var end context.CancelCauseFunc
		ctx, end = context.WithCancelCause(ctx)
		defer end(nil)
		go func() {
			<-embedded.Done()
			end(errors.New("the embedded Postgres exited: see its log in " + embedded.Dir()))
		}()
	}
	if err := c.serve(ctx, p, b); p.ctx.Err() != nil || ctx.Err() == nil {
		return err
	}
	return context.Cause(ctx)
}

// serve applies the schema, creates the administrator and runs the stack.
func (c *upCommand) serve(ctx context.Context, p *program, b banner) error {
	logins, err := c.settings.deriveLogins()
	if err != nil {
		return err
	}
	database := find[*databaseFlags](c.settings)
	_, err = applySchema(p, schema.Config{
		SQL: p.schema, Own: ownSchemas(), DatabaseURL: database.DatabaseURL, DevURL: database.AtlasDevURL, Roles: rolesOf(logins),
		Shared: find[*shareFlags](c.settings).ShareDatabase, Logger: p.logger,
		AllowLocking: true, // nothing else serves while up starts
	}, find[*secretFlags](c.settings).keys)
	if err != nil {
		return fmt.Errorf("apply the schema: %w", err)
	}
	stack, err := newStack(ctx, &Stack{settings: c.settings, logger: p.logger, schema: p.schema, logins: logins})
	if err != nil {
		return err
	}
	defer stack.Close()
	accounts := find[*accountFlags](c.settings)
	if b.password = accounts.AdminPassword; b.password == "" {
		b.password = rand.Text()
	}
	service := stack.Service(roleAuth).(*auth.Service)
	if b.created, err = service.EnsureAdministrator(ctx, accounts.AdminEmail, b.password); err != nil {
		return fmt.Errorf("create the administrator: %w", err)
	}
	return stack.Serve(ctx, func() {
		// Free what hashing and planning used in a first run: 20 MiB.
		debug.FreeOSMemory()
		b.write(p.stdout)
	})
}

// embeddedURL returns the URL of our database on the embedded Postgres, which it
// creates on the first run.
func embeddedURL(ctx context.Context, server *postgres.Server) (string, error) {
	config, err := database.ParseConfig(server.URL("postgres"))
	if err != nil {
		return "", fmt.Errorf("read the embedded Postgres' URL: %w", err)
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return "", fmt.Errorf("connect to the embedded Postgres: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var exists bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", embeddedDatabase).Scan(&exists); err != nil {
		return "", fmt.Errorf("look for the database: %w", err)
	}
	if !exists {
		if _, err := conn.Exec(ctx, "CREATE DATABASE "+embeddedDatabase); err != nil {
			return "", fmt.Errorf("create the database: %w", err)
		}
	}
	return server.URL(embeddedDatabase), nil
}

// keepSecrets generates the keys that aren't given, once, in the data folder.
func keepSecrets(s *settings, dir string, invalid *problems) {
	for _, key := range secretFiles(s) {
		if *key.value != "" {
			continue
		}
		text, err := keptSecret(filepath.Join(dir, key.file))
		if err != nil {
			invalid.add("GATEHOUSE_DATA_DIR", err.Error(), "make the folder writable, or name another")
			return
		}
		*key.value = text
	}
}

// secretFile is a key that up keeps in a file of the data folder.
type secretFile struct {
	file  string
	value *string // the setting
}

func secretFiles(s *settings) []secretFile {
	return []secretFile{
		{"internal.key", &find[*internalFlags](s).InternalKey},
		{"secret.key", &find[*secretFlags](s).SecretKey},
		{"identity.key", &find[*identityFlags](s).IdentityKey},
	}
}

// keptSecret returns the key in a file, which it creates if it isn't there.
func keptSecret(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err == nil {
		return strings.TrimSpace(string(text)), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil {
		return "", err
	}
	key := make([]byte, keyLength)
	_, _ = rand.Read(key) // never fails: it would end the process
	fresh := path + ".new"
	if err := writeSynced(fresh, []byte(hex.EncodeToString(key)+"\n")); err != nil {
		return "", err
	}
	// A link rather than a rename: two processes that start at once must use one key.
	if err := os.Link(fresh, path); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	_ = os.Remove(fresh)
	text, err = os.ReadFile(path)
	return strings.TrimSpace(string(text)), err
}

func writeSynced(path string, text []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	return errors.Join(err, file.Sync(), file.Close())
}
