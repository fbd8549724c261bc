package app

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
	Registration string `env:"GATEHOUSE_REGISTRATION" default:"open" placeholder:"open|verify|closed" help:"Who may make an account: anybody, anybody by a link that is mailed to them, or administrators alone."`
	dataFlags
	shareFlags
	houseFlags
}

// dataFlags say where up keeps what it makes.
type dataFlags struct {
	DataDir string `env:"GATEHOUSE_DATA_DIR" default:".gatehouse" placeholder:"FOLDER" help:"The embedded Postgres and the generated secrets."`
}

const (
	embeddedDatabase = "gatehouse"
	defaultDataDir   = ".gatehouse" // as dataFlags say
)

func (c *upCommand) Run(p *program, app *kong.Application) (err error) {
	outliveReaders()
	var m mistakes
	c.keepSecrets(&m)
	c.mailbox = filepath.Join(c.DataDir, "mailbox")
	c.development = true
	h := c.houseFlags.parse(&m, app, p.logger, c.Registration, c.Listen, false)
	if err := m.err(); err != nil {
		return err
	}
	database := "DATABASE_URL"
	if c.DatabaseURL == "" {
		database = "embedded"
	}
	p.logger.Info("starting", "version", builtVersion(), "listen", c.Listen, "data_dir", c.DataDir, "database", database)
	place := c.DatabaseURL
	var embedded *postgres.Server
	if c.DatabaseURL == "" {
		embedded, err = postgres.Start(p.ctx, postgres.Config{Dir: c.DataDir, Logger: p.logger})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, embedded.Stop(context.WithoutCancel(p.ctx))) }()
		if c.DatabaseURL, err = embeddedURL(p.ctx, embedded); err != nil {
			return err
		}
		place = embedded.Dir()
	}
	h.logins, err = loginsOf(c.DatabaseURL, c.AuthDatabaseURL, c.UsersDatabaseURL, h.secrets)
	if err != nil {
		return err
	}
	_, err = applySchema(p, schema.Config{
		SQL: schemaSQL, DatabaseURL: c.DatabaseURL, DevURL: c.AtlasDevURL, Roles: h.logins.roles, Shared: c.ShareDatabase, Logger: p.logger,
	}, h.secrets)
	if err != nil {
		return fmt.Errorf("apply the schema: %w", err)
	}
	ctx := p.ctx
	if embedded != nil {
		var end context.CancelCauseFunc
		ctx, end = context.WithCancelCause(ctx)
		defer end(nil)
		go func() {
			<-embedded.Done()
			end(errors.New("the embedded Postgres has ended by itself: its log is in " + embedded.Dir()))
		}()
	}
	made, password := false, h.rules.adminPassword
	if password == "" {
		password = rand.Text()
	}
	err = h.run(ctx, func(service *auth.Service) (err error) {
		made, err = service.EnsureAdministrator(ctx, h.rules.adminEmail, password)
		return err
	}, func() {
		// A first run leaves what hashing and planning took: twenty MiB.
		debug.FreeOSMemory()
		c.banner(p.stdout, h, place, embedded != nil, made, password)
	})
	if p.ctx.Err() == nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// embeddedURL returns the URL of our database on the embedded Postgres, which
// it makes on the first run.
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
			return "", fmt.Errorf("make the database: %w", err)
		}
	}
	return server.URL(embeddedDatabase), nil
}

// keepSecrets generates the keys that aren't given, once, in the data folder.
func (c *upCommand) keepSecrets(m *mistakes) {
	for _, key := range []struct {
		name, file string
		value      *string
	}{
		{"GATEHOUSE_INTERNAL_KEY", "internal.key", &c.InternalKey},
		{"GATEHOUSE_SECRET_KEY", "secret.key", &c.SecretKey},
	} {
		if *key.value != "" {
			continue
		}
		text, err := keptSecret(filepath.Join(c.DataDir, key.file))
		if err != nil {
			m.add("GATEHOUSE_DATA_DIR", err.Error(), "make the folder writable, or name another")
			return
		}
		*key.value = text
	}
}

// keptSecret returns the key in a file, which it makes if it isn't there.
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
	// Not a rename: of two that start at once, one's key must stand for both.
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

// banner says what is where, once all of it is ready.
func (c *upCommand) banner(out io.Writer, h house, place string, embedded, made bool, password string) {
	url := h.edge.publicURL
	var b strings.Builder
	line := func(name, text string) { fmt.Fprintf(&b, "  %-14s %s\n", name, text) }
	b.WriteString("\nGatehouse is ready.\n\n")
	line("gateway", url)
	line("docs", url+"/docs")
	if h.rules.mail.mailbox != "" {
		line("mailbox", h.rules.mail.mailbox)
	}
	if embedded {
		data, err := filepath.Abs(c.DataDir)
		if err != nil {
			data = c.DataDir
		}
		line("data folder", data)
		reset := "rm -rf " + quoted(data)
		if !strings.HasPrefix(place, data+string(filepath.Separator)) {
			line("Postgres' files", place+" (its user can't reach the data folder)")
			reset += " " + quoted(place)
		}
		line("reset", "stop, then: "+reset)
		line("look at data", c.lookAt(place))
	} else {
		line("database", "as DATABASE_URL says")
		line("reset", "drop and create that database")
		line("look at data", programName()+` psql, or: psql "$DATABASE_URL"`)
	}
	try := "curl " + url + "/.well-known/jwks.json"
	if made {
		line("administrator", h.rules.adminEmail)
		line("password", password)
		credentials, _ := json.Marshal(map[string]string{"email": h.rules.adminEmail, "password": password})
		try = "curl -H 'Content-Type: application/json' -d " + quoted(string(credentials)) + " " + url + "/bff.v1.AuthService/Login"
	} else {
		kept := "kept from an earlier run"
		if h.rules.adminPassword != "" {
			kept += ", and so is the password: GATEHOUSE_ADMIN_PASSWORD is for the first run alone"
		}
		line("administrator", kept+"; a new password: "+programName()+" admin reset-password "+h.rules.adminEmail)
	}
	b.WriteString("\nTry it:\n\n  " + try + "\n\nCtrl-C stops it.\n")
	_, _ = io.WriteString(out, b.String())
}

// lookAt is how to open the embedded Postgres' data, without showing its password.
func (c *upCommand) lookAt(place string) string {
	ours := programName() + " psql"
	if c.DataDir != defaultDataDir {
		ours += " --data-dir " + quoted(c.DataDir)
	}
	config, err := pgx.ParseConfig(c.DatabaseURL)
	if err != nil {
		return ours
	}
	return fmt.Sprintf("%s, or: PGPASSWORD=$(cat %s) psql -h %s -U %s %s",
		ours, quoted(filepath.Join(place, "password")), quoted(config.Host), config.User, config.Database)
}

// quoted makes a path safe to paste into a shell.
func quoted(path string) string {
	if strings.Trim(path, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-") == "" {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
