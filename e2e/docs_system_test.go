package e2e

import (
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/pgtest"
	"gatehouse/internal/postgres"
)

// passwordDatabase makes an empty database on a server that asks everybody for
// a password: one that trusts would let a page's mistake with a password pass.
func passwordDatabase(t *testing.T) string {
	t.Helper()
	database := pgtest.Empty(t)
	if asksForPassword(t, database) {
		return database
	}
	dir, err := os.MkdirTemp("", "gatehouse-docs-")
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
type documentedSystem struct{ *system }

const operatorEmail = "ops@example.com"

func newDocumentedSystem(t *testing.T) documentedSystem {
	t.Helper()
	database := passwordDatabase(t)
	listen := freeAddress(t)
	env := []string{
		"DATABASE_URL=" + database, "GATEHOUSE_SECRET_KEY=" + secretKey, "GATEHOUSE_INTERNAL_KEY=" + internalKey,
		"GATEHOUSE_REGISTRATION=closed", "GATEHOUSE_ADMIN_EMAIL=" + operatorEmail, "GATEHOUSE_ADMIN_PASSWORD=" + adminPassword,
	}
	if status, said := ended(t, env, "schema", "apply"); status != 0 {
		t.Fatalf("schema apply: exit status %d, said %s", status, said)
	}
	s := &system{
		url: "http://" + listen, owner: openPool(t, database), processes: map[string]*process{},
		roles: map[string]role{"serve": {env: env, listen: listen}},
	}
	s.start(t, "serve")
	return documentedSystem{s}
}

// stillWorks checks that the page's commands left the system in order: people
// sign in, and the services do at each new connection.
func (s documentedSystem) stillWorks(t *testing.T) {
	t.Helper()
	_, err := s.client("").auth.Login(t.Context(), &bffv1.LoginRequest{Email: operatorEmail, Password: adminPassword})
	if err != nil {
		t.Errorf("after the page's commands, Login says %v", err)
	}
	var database string
	for _, setting := range s.roles["serve"].env {
		if value, ok := strings.CutPrefix(setting, "DATABASE_URL="); ok {
			database = value
		}
	}
	for _, login := range serviceLogins(t, database) {
		conn, err := pgx.Connect(t.Context(), login)
		if err != nil {
			t.Errorf("after the page's commands, a service can't connect any more: %v", err)
			continue
		}
		_ = conn.Close(t.Context())
	}
}

var (
	comment  = regexp.MustCompile(`(?s)<!--.*?-->`)
	used     = regexp.MustCompile(`\$\{?([A-Z][A-Z_0-9]+)`)
	assigned = regexp.MustCompile(`(?m)(?:^|[\s;(&|])([A-Z][A-Z_0-9]+)=|\bfor ([A-Z_0-9]+) in|\bread (?:-r )?([A-Z_0-9]+)`)
	before   = regexp.MustCompile(`(?s)## Before you begin\n(.*?)\n## `)
)

// A reader sees what a page's commands need before the first of them: no
// variable comes from a comment, or from the test.
func TestPagesSayWhichVariablesTheirCommandsNeed(t *testing.T) {
	t.Parallel()
	found := 0
	for _, page := range pagesWithCommands(t) {
		var commands strings.Builder
		for _, one := range page.snippets {
			if one.notRun == "" {
				commands.WriteString(one.commands)
			}
		}
		set := map[string]bool{}
		for _, match := range assigned.FindAllStringSubmatch(commands.String(), -1) {
			set[match[1]+match[2]+match[3]] = true
		}
		var visible string
		if section := before.FindStringSubmatch(comment.ReplaceAllString(read(t, "docs/"+page.name+".md"), "")); section != nil {
			visible = section[1]
		}
		for _, match := range used.FindAllStringSubmatch(commands.String(), -1) {
			name := match[1]
			if set[name] {
				continue
			}
			found++
			if !strings.Contains(visible, name) {
				t.Errorf("docs/%s.md uses $%s, and its section \"Before you begin\" doesn't say where that comes from", page.name, name)
			}
		}
		needsDatabase := page.surroundings != whileUp && page.surroundings != inTree
		for _, name := range []string{"DATABASE_URL"} {
			if needsDatabase && strings.Contains(commands.String(), "gatehouse ") && !strings.Contains(visible, name) {
				t.Errorf("docs/%s.md needs %s, and its section \"Before you begin\" doesn't say so", page.name, name)
			}
		}
		if page.surroundings == whileUp && !strings.Contains(visible, "gatehouse up") {
			t.Errorf("docs/%s.md needs a running gatehouse up, and its section \"Before you begin\" doesn't say so", page.name)
		}
	}
	if found < 5 {
		t.Errorf("found %d variables that pages need, which looks like a fault of this test", found)
	}
}
