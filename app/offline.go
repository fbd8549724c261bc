package app

import (
	"context"
	"errors"
	"fmt"
	"gatehouse/auth"
	"gatehouse/internal/postgres"
	"os"
	"path/filepath"
	"strings"
)

// offlineFlags say where auth's tables are, for commands that change them without
// calling a running auth: AUTH_DATABASE_URL, or DATABASE_URL, or else the
// embedded Postgres of the data folder, running or not.
type offlineFlags struct {
	dataFlags
	databaseFlags
	secretFlags
	passwordFlags
	Login loginFlags `embed:"" prefix:"auth-" envprefix:"AUTH_" set:"service=auth"`
}

// with opens auth and calls work with it. Account changes stay in the outbox,
// from which a running auth delivers them.
func (f *offlineFlags) with(p *program, invalid *problems, work func(*auth.Service) error) (err error) {
	f.checkURLs(invalid, false)
	f.Login.service = roleAuth
	checkDatabaseURL(invalid, f.Login.name(), f.Login.URL, false)
	f.passwordFlags.parse(invalid)
	if f.SecretKey == "" && f.Login.URL == "" && f.DatabaseURL == "" {
		text, err := os.ReadFile(filepath.Join(f.DataDir, "secret.key"))
		if err != nil {
			invalid.add("GATEHOUSE_DATA_DIR", fmt.Sprintf("%q is not a data folder of gatehouse up", f.DataDir),
				"run this where gatehouse up was started, or set DATABASE_URL and GATEHOUSE_SECRET_KEY")
			return invalid.err()
		}
		f.SecretKey = strings.TrimSpace(string(text))
	}
	f.secretFlags.parse(invalid)
	if err := invalid.err(); err != nil {
		return err
	}
	if f.Login.URL == "" && f.DatabaseURL == "" {
		// Another name: the deferred stop reports by the result.
		url, stop, failed := openEmbedded(p, f.DataDir)
		if failed != nil {
			return failed
		}
		defer func() { err = errors.Join(err, stop()) }()
		f.DatabaseURL = url
	}
	logins, err := deriveLogins(f.DatabaseURL, map[string]*loginFlags{roleAuth: &f.Login}, f.keys)
	if err != nil {
		return err
	}
	db, err := openDatabase(p.ctx, logins[roleAuth], roleAuth, p.schema)
	if err != nil {
		return err
	}
	defer db.Close()
	service, err := auth.New(p.ctx, auth.Config{DB: db, Secrets: f.keys, PasswordMin: f.PasswordMin, Logger: p.logger})
	if err != nil {
		return err
	}
	return work(service)
}

// openEmbedded returns the URL of the data folder's Postgres. It starts the
// server if it isn't running; stop then stops it.
func openEmbedded(p *program, dir string) (url string, stop func() error, err error) {
	if server, ok := postgres.Running(dir); ok {
		return server.URL(embeddedDatabase), func() error { return nil }, nil
	}
	server, err := postgres.Start(p.ctx, postgres.Config{Dir: dir, Logger: p.logger})
	if err != nil {
		return "", nil, err
	}
	return server.URL(embeddedDatabase), func() error { return server.Stop(context.WithoutCancel(p.ctx)) }, nil
}
