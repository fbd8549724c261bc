package app

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/alecthomas/kong"

	"gatehouse/auth"
	"gatehouse/internal/schema"
)

// besideFlags say where auth's tables are: AUTH_DATABASE_URL, or DATABASE_URL,
// or else the embedded Postgres of the data folder, running or not.
type besideFlags struct {
	dataFlags
	databaseFlags
	authDatabaseFlags
	secretFlags
}

// with opens auth beside whatever is running and lets work use it. Account
// changes are left in the outbox, for the running auth to tell.
func (f *besideFlags) with(p *program, m *mistakes, work func(*auth.Service) error) (err error) {
	f.databaseFlags.parse(m, false)
	checkDatabaseURL(m, "AUTH_DATABASE_URL", f.AuthDatabaseURL, false)
	if f.SecretKey == "" && f.AuthDatabaseURL == "" && f.DatabaseURL == "" {
		text, err := os.ReadFile(filepath.Join(f.DataDir, "secret.key"))
		if err != nil {
			m.add("GATEHOUSE_DATA_DIR", fmt.Sprintf("%q is no data folder of gatehouse up", f.DataDir),
				"run this where gatehouse up was started, or set DATABASE_URL and GATEHOUSE_SECRET_KEY")
			return m.err()
		}
		f.SecretKey = strings.TrimSpace(string(text))
	}
	secrets := f.secretFlags.parse(m)
	if err := m.err(); err != nil {
		return err
	}
	if f.AuthDatabaseURL == "" && f.DatabaseURL == "" {
		url, stop, err := attach(p, f.DataDir)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, stop()) }()
		f.DatabaseURL = url
	}
	var others []string
	if f.AuthDatabaseURL == "" {
		logins, err := loginsOf(f.DatabaseURL, "", "", secrets)
		if err != nil {
			return err
		}
		f.AuthDatabaseURL, others = logins.auth, logins.otherAuth
	}
	db, err := openDatabase(p.ctx, f.AuthDatabaseURL, schema.Auth, others...)
	if err != nil {
		return err
	}
	defer db.Close()
	service, err := auth.New(p.ctx, auth.Config{DB: db, Secrets: secrets, Logger: p.logger})
	if err != nil {
		return err
	}
	return work(service)
}

// keysCommands look after the signing keys, beside a running system.
type keysCommands struct {
	List   keysListCommand   `cmd:"" help:"Print the signing keys, the one to sign last first."`
	Rotate keysRotateCommand `cmd:"" help:"Have the next key sign: ten seconds after gateways know it. Nobody is signed out."`
}

type keysListCommand struct{ besideFlags }

func (c *keysListCommand) Run(p *program, app *kong.Application) error {
	var m mistakes
	checkNames(&m, app, os.Environ())
	return c.with(p, &m, func(service *auth.Service) error {
		keys, err := service.SigningKeys(p.ctx)
		if err != nil {
			return err
		}
		table := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "KEY\tSTATE\tMADE")
		for _, key := range keys {
			state := "verifies what it signed"
			switch {
			case key.Signing:
				state = "signs since " + coarse(-key.SignsIn)
			case key.SignsIn > 0:
				state = "signs in " + coarse(key.SignsIn)
			}
			fmt.Fprintf(table, "%s\t%s\t%s ago\n", key.KID, state, coarse(key.Age))
		}
		return table.Flush()
	})
}

// coarse words a duration for people, in whole seconds.
func coarse(d time.Duration) string {
	if d >= 48*time.Hour {
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	}
	return d.Round(time.Second).String()
}

type keysRotateCommand struct {
	Emergency bool `help:"A key may be in other hands: the new key signs at once, the old ones verify nothing any more, and everybody is signed out."`
	Yes       bool `help:"Do so, with --emergency."`
	besideFlags
}

func (c *keysRotateCommand) Run(p *program, app *kong.Application) error {
	var m mistakes
	checkNames(&m, app, os.Environ())
	if c.Emergency && !c.Yes {
		m.add("--emergency", "it signs everybody out, and nothing undoes that", "give --yes as well")
	}
	return c.with(p, &m, func(service *auth.Service) error {
		if c.Emergency {
			kid, err := service.ReplaceKeys(p.ctx)
			if err != nil {
				return err
			}
			fmt.Fprintf(p.stdout, "%s signs now, and no older key verifies. Every session has ended.\n", kid)
			return nil
		}
		next, err := service.RotateKeys(p.ctx)
		if err != nil {
			return err
		}
		if next.SignsIn <= 0 {
			fmt.Fprintf(p.stdout, "%s signs now.\n", next.KID)
			return nil
		}
		fmt.Fprintf(p.stdout, "%s signs in %s.\n", next.KID, coarse(next.SignsIn))
		return nil
	})
}
