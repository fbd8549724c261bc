package app

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"github.com/jackc/pgx/v5"

	"gatehouse/app/backup"
	"gatehouse/auth"
	"gatehouse/auth/keyring"
	"gatehouse/auth/secretkey"
	"gatehouse/internal/postgres"
	"gatehouse/internal/schema"
)

const secretSetting = "GATEHOUSE_SECRET_KEY"

// backupCommand writes a backup. With the secret key it also tests whether the key opens
// the database.
type backupCommand struct {
	File string `arg:"" help:"Write into this new file, and its description into FILE.json."`
	dataFlags
	databaseFlags
	secretFlags
}

func (c *backupCommand) Run(p *program, app *kong.Application) (err error) {
	var invalid problems
	checkNames(&invalid, app, os.Environ())
	c.checkURLs(&invalid, false)
	embedded := c.DatabaseURL == ""
	if embedded {
		readKeptSecret(&c.secretFlags, c.DataDir)
	}
	if c.SecretKey != "" {
		c.parse(&invalid)
	}
	if _, err := os.Stat(filepath.Join(c.DataDir, "postgres")); embedded && err != nil {
		invalid.add("GATEHOUSE_DATA_DIR", fmt.Sprintf("%q is not a data folder of gatehouse up", c.DataDir),
			"run this where gatehouse up was started, or set DATABASE_URL")
	}
	if err := invalid.err(); err != nil {
		return err
	}
	if embedded {
		url, stop, failed := openEmbedded(p, c.DataDir)
		if failed != nil {
			return failed
		}
		defer func() { err = errors.Join(err, stop()) }()
		c.DatabaseURL = url
	}
	m, err := backup.Create(p.ctx, c.File, backup.Config{
		DatabaseURL: c.DatabaseURL, Schemas: schemas(), Gatehouse: thisBuild(p.schema).name(), Key: c.key,
	})
	if err != nil {
		return fmt.Errorf("back up: %w", err)
	}
	fmt.Fprintf(p.stdout, "%s has the schemas %s: %d accounts, %d bytes.\n", c.File, strings.Join(slices.Sorted(maps.Keys(m.Schemas)), ", "), m.Rows["auth.accounts"], m.Bytes)
	for _, key := range m.Keys {
		fmt.Fprintf(p.stdout, "To use it you need the %s with the fingerprint %s. Store that separately.\n", key.Setting, key.Fingerprint)
		if !key.Tested {
			p.logger.Warn("backup: the secret key was not tested, because none was given that opens the database", "setting", key.Setting, "fingerprint", key.Fingerprint)
		}
	}
	return nil
}

// key returns the key that the backup needs: the given one if it opens the signing keys.
// A backup without it, or with a wrong one, is better than no backup.
func (f *secretFlags) key(ctx context.Context, conn *pgx.Conn) (backup.Key, error) {
	if len(f.keys) > 0 {
		err := auth.CheckSecrets(ctx, conn, f.keys)
		if err == nil {
			fingerprint, err := secretkey.ID(f.keys[0])
			return backup.Key{Setting: secretSetting, Fingerprint: fingerprint, Tested: true}, err
		}
		if !errors.Is(err, auth.ErrSecret) {
			return backup.Key{}, err
		}
	}
	fingerprint, err := keyring.StoredFingerprint(ctx, conn)
	return backup.Key{Setting: secretSetting, Fingerprint: fingerprint}, err
}

// readKeptSecret reads the secret key of a data folder, unless one was given.
func readKeptSecret(f *secretFlags, dir string) {
	if f.SecretKey != "" {
		return
	}
	if text, err := os.ReadFile(filepath.Join(dir, "secret.key")); err == nil {
		f.SecretKey = strings.TrimSpace(string(text))
	}
}

// restoreCommand restores a backup.
type restoreCommand struct {
	File    string `arg:"" help:"Restore this file of gatehouse backup, or a custom archive of pg_dump."`
	Replace bool   `help:"Delete the data of Gatehouse in the database first. Without it, a database that holds any is refused."`
	dataFlags
	schemaFlags
}

func (c *restoreCommand) Run(p *program, app *kong.Application) (err error) {
	var invalid problems
	c.checkURLs(&invalid, false)
	embedded := c.DatabaseURL == ""
	if embedded {
		readKeptSecret(&c.secretFlags, c.DataDir)
	}
	c.secretFlags.parse(&invalid)
	if err := invalid.err(); err != nil {
		return err
	}
	if embedded {
		stop, failed := c.openData(p)
		if failed != nil {
			return failed
		}
		defer func() { err = errors.Join(err, stop()) }()
	}
	config, secrets, err := c.config(p, app)
	if err != nil {
		return err
	}
	if err := schema.CheckOwnership(p.ctx, config); err != nil {
		return refusal(err)
	}
	restored, err := c.restore(p, secrets)
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	if _, err := applySchema(p, config, secrets); err != nil {
		return fmt.Errorf("the data is restored; apply the schema: %w", err)
	}
	if err := c.checkLogins(p); err != nil {
		return fmt.Errorf("the data is restored; check the services' logins: %w", err)
	}
	c.report(p, restored, embedded)
	return nil
}

// openData opens the embedded Postgres of the data folder, with an empty database if
// there is none.
func (c *restoreCommand) openData(p *program) (stop func() error, err error) {
	if _, running := postgres.Running(c.DataDir); running {
		c.DatabaseURL, stop, err = openEmbedded(p, c.DataDir)
		return stop, err
	}
	server, err := postgres.Start(p.ctx, postgres.Config{Dir: c.DataDir, Logger: p.logger})
	if err != nil {
		return nil, err
	}
	stop = func() error { return server.Stop(context.WithoutCancel(p.ctx)) }
	if c.DatabaseURL, err = embeddedURL(p.ctx, server); err != nil {
		return nil, errors.Join(err, stop())
	}
	return stop, nil
}

func (c *restoreCommand) restore(p *program, secrets [][]byte) (backup.Restored, error) {
	config := backup.RestoreConfig{
		DatabaseURL: c.DatabaseURL, Schemas: schemas(), Replace: c.Replace,
		CheckSecrets: func(ctx context.Context, conn *pgx.Conn) error { return auth.CheckSecrets(ctx, conn, secrets) },
	}
	for _, secret := range secrets {
		fingerprint, err := secretkey.ID(secret)
		if err != nil {
			return backup.Restored{}, err
		}
		config.Fingerprints = append(config.Fingerprints, fingerprint)
	}
	return backup.Restore(p.ctx, c.File, config)
}

// checkLogins connects as each service.
func (c *restoreCommand) checkLogins(p *program) error {
	logins, err := deriveLogins(c.DatabaseURL, c.Logins.byService, c.keys)
	if err != nil {
		return err
	}
	for _, service := range Services() {
		if service.HasTables() {
			db, err := openDatabase(p.ctx, logins[service.Name], service.Name, service.schemaText(p.schema))
			if err != nil {
				return err
			}
			db.Close()
		}
	}
	return nil
}

func (c *restoreCommand) report(p *program, restored backup.Restored, embedded bool) {
	fmt.Fprintf(p.stdout, "%s is restored: %d accounts and %d profiles. The secret key opens the signing keys, and each service can sign in to the database.\n",
		c.File, restored.Rows["auth.accounts"], restored.Rows["users.profiles"])
	if !restored.Counted {
		fmt.Fprintln(p.stdout, "The rows were not counted, because the backup has no manifest.")
	}
	for table, rows := range restored.Cleared {
		fmt.Fprintf(p.stdout, "%d rows of %s were not restored: they would undo what happened since.\n", rows, table)
	}
	fmt.Fprintln(p.stdout, "Sessions that ended and accounts that were deleted since the backup exist again. To end all sessions: gatehouse keys rotate --emergency --yes")
	if _, err := os.Stat(filepath.Join(c.DataDir, "secret.key")); embedded && err != nil {
		fmt.Fprintln(p.stdout, "The data folder has no secret key: start gatehouse up with the same GATEHOUSE_SECRET_KEY.")
	}
}
