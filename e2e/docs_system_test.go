package e2e

import (
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/pgtest"
	"gatehouse/internal/postgres"
	"gatehouse/internal/testneed"
)

// passwordDatabase makes an empty database on a server that asks everybody for
// a password: one that trusts would let a page's mistake with a password pass.
func passwordDatabase(t *testing.T) string {
	t.Helper()
	database := pgtest.Empty(t)
	if asksForPassword(t, database) {
		return database
	}
	dir, err := os.MkdirTemp(testneed.MemoryDir(), "gatehouse-docs-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	server, err := postgres.Start(t.Context(), postgres.Config{Dir: filepath.Join(dir, "data"), NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Stop(t.Context()) })
	if _, err := pgtest.Connect(t, server.URL("postgres")).Exec(t.Context(), "CREATE DATABASE documented"); err != nil {
		t.Fatal(err)
	}
	return server.URL("documented")
}

func asksForPassword(t *testing.T, database string) bool {
	t.Helper()
	wrong, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	wrong.User = url.UserPassword(wrong.User.Username(), "not the password")
	conn, err := pgx.Connect(t.Context(), wrong.String())
	if err == nil {
		_ = conn.Close(t.Context())
		return false
	}
	refusal, ok := errors.AsType[*pgconn.PgError](err)
	return ok && refusal.Code == "28P01"
}

// documentedSystem is what a page finds that is about a system in use.
type documentedSystem struct{ *harness.System }

const operatorEmail = "ops@example.com"

func newDocumentedSystem(t *testing.T) documentedSystem {
	t.Helper()
	database := passwordDatabase(t)
	env := []string{
		"DATABASE_URL=" + database, "GATEHOUSE_SECRET_KEY=" + harness.SecretKey, "GATEHOUSE_INTERNAL_KEY=" + harness.InternalKey,
		"GATEHOUSE_REGISTRATION=closed", "GATEHOUSE_ADMIN_EMAIL=" + operatorEmail, "GATEHOUSE_ADMIN_PASSWORD=" + harness.AdminPassword,
	}
	if status, said := harness.RunCommand(t, env, "schema", "apply"); status != 0 {
		t.Fatalf("schema apply: exit status %d, said %s", status, said)
	}
	return documentedSystem{harness.StartServe(t, database, env)}
}

// stillWorks checks that the page's commands left the system in order: people
// sign in, and the services do at each new connection.
func (s documentedSystem) stillWorks(t *testing.T) {
	t.Helper()
	_, err := s.Client("").Auth.Login(t.Context(), &bffv1.LoginRequest{Email: operatorEmail, Password: harness.AdminPassword})
	if err != nil {
		t.Errorf("after the page's commands, Login says %v", err)
	}
	var database string
	for _, setting := range s.Roles["serve"].Env {
		if value, ok := strings.CutPrefix(setting, "DATABASE_URL="); ok {
			database = value
		}
	}
	for _, login := range harness.ServiceLogins(t, database) {
		conn, err := pgx.Connect(t.Context(), login)
		if err != nil {
			t.Errorf("after the page's commands, a service can't connect any more: %v", err)
			continue
		}
		_ = conn.Close(t.Context())
	}
}
