package harness

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"gatehouse/internal/database"
	"gatehouse/internal/pgtest"
	"gatehouse/internal/postgres"
	"gatehouse/internal/schema"
	"gatehouse/internal/testneed"
)

// openDB opens a pool as a service does.
func openDB(t testing.TB, url, service string) *pgxpool.Pool {
	t.Helper()
	pool, err := database.Open(t.Context(), url, service)
	if err != nil {
		t.Fatalf("open the pool of %s: %v", service, err)
	}
	return pool
}

// Postgres is a Postgres server for one test, which may stop, kill and restart it.
type Postgres struct {
	dir    string
	server *postgres.Server
}

// StartPostgres starts a server that loses nothing in a crash, with the schema applied.
func StartPostgres(t *testing.T) (*Postgres, pgtest.Database) {
	t.Helper()
	// Not t.TempDir: its name is too long for a socket.
	dir, err := os.MkdirTemp(testneed.MemoryDir(), "gatehouse-restart-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil { // root's Postgres runs as another user
		t.Fatal(err)
	}
	s := &Postgres{dir: dir}
	s.Start(t)
	t.Cleanup(func() { _ = s.server.Stop(context.Background()) })
	return s, pgtest.Apply(t, s.server.URL("postgres"))
}

// Start starts the server again. It retries: after the postmaster was killed, its
// backends live on for a moment and block a new one.
func (s *Postgres) Start(t *testing.T) {
	t.Helper()
	Eventually(t, time.Minute, "start Postgres", func() error {
		server, err := postgres.Start(t.Context(), postgres.Config{Dir: s.dir})
		if err == nil {
			s.server = server
		}
		return err
	})
}

// Stop is a fast shutdown, which rolls back open transactions.
func (s *Postgres) Stop(t *testing.T) {
	t.Helper()
	if err := s.server.Stop(t.Context()); err != nil {
		t.Errorf("stop Postgres: %v", err)
	}
}

// Kill ends the postmaster as a crash does; the next start recovers.
func (s *Postgres) Kill(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.server.Dir(), "data", "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscan(strings.Split(string(text), "\n")[0], &pid); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-s.server.Done()
	_ = s.server.Stop(t.Context()) // returns that it had already ended
}

// Execute runs statements as the owner of a database.
func Execute(t *testing.T, url string, statements ...string) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	for _, statement := range statements {
		if _, err := conn.Exec(ctx, statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
}

// ServiceLogins returns the URLs of the logins of all services, whose passwords are
// derived from SecretKey.
func ServiceLogins(t *testing.T, databaseURL string) []string {
	t.Helper()
	database := DerivedLogins(t, databaseURL)
	var urls []string
	for _, service := range database.Services() {
		urls = append(urls, database.URL(service))
	}
	return urls
}

// DerivedLogins returns a database whose schema a program has applied with SecretKey, from
// which it derived the passwords of the services' logins.
func DerivedLogins(t *testing.T, databaseURL string) pgtest.Database {
	t.Helper()
	secret, err := hex.DecodeString(SecretKey)
	if err != nil {
		t.Fatal(err)
	}
	config, err := pgx.ParseConfig(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	database := pgtest.Database{Owner: databaseURL}
	services, err := pgtest.SchemaConfig(t, databaseURL).Services()
	if err != nil {
		t.Fatal(err)
	}
	for _, service := range services {
		password, err := hkdf.Key(sha256.New, secret, nil, "gatehouse database role v1: "+service, 24)
		if err != nil {
			t.Fatal(err)
		}
		url, err := schema.ServiceURL(databaseURL, schema.RoleName(config.Database, service), hex.EncodeToString(password))
		if err != nil {
			t.Fatal(err)
		}
		database.SetURL(service, url)
	}
	return database
}
