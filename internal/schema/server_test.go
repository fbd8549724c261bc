package schema_test

// Tests of the requirements on the server, the owner and the scratch databases.

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"gatehouse/internal/pgtest"
	"gatehouse/internal/schema"
)

func TestScratchDatabasesAreDropped(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	random := make([]byte, 4)
	rand.Read(random)
	now := query[int64](t, cfg.DatabaseURL, `SELECT extract(epoch FROM now())::bigint`)
	abandoned := fmt.Sprintf("gatehouse_scratch_%d_%s", now-3700, hex.EncodeToString(random))
	atWork := fmt.Sprintf("gatehouse_scratch_%d_%s", now-3500, hex.EncodeToString(random))
	notOurs := fmt.Sprintf("gatehouse_scratch_%s", hex.EncodeToString(random))
	for _, name := range []string{abandoned, atWork, notOurs} {
		exec(t, cfg.DatabaseURL, "CREATE DATABASE "+name)
		t.Cleanup(func() {
			exec(t, cfg.DatabaseURL, "DROP DATABASE IF EXISTS "+name)
		})
	}
	apply(t, cfg)
	// This fails after the creation of a scratch database.
	if _, err := schema.Plan(t.Context(), with(cfg, 1002, "SELECT no_such_column;")); err == nil {
		t.Error("Plan accepted a wrong schema.sql")
	}
	plan(t, cfg)
	const exists = `SELECT count(*) FROM pg_database WHERE datname = $1`
	if query[int](t, cfg.DatabaseURL, exists, abandoned) != 0 {
		t.Errorf("%s is older than an hour, and was not dropped", abandoned)
	}
	for _, name := range []string{atWork, notOurs} {
		if query[int](t, cfg.DatabaseURL, exists, name) != 1 {
			t.Errorf("%s was dropped", name)
		}
	}
}

// owner creates a database that is owned by a user who is no superuser. Roles belong to the
// whole server, so the user is dropped after the database.
func owner(t *testing.T, attributes string) schema.Config {
	t.Helper()
	random := make([]byte, 4)
	rand.Read(random)
	name := "gatehouse_test_owner_" + hex.EncodeToString(random)
	admin := pgtest.Empty(t)
	exec(t, admin, "CREATE ROLE "+name+" LOGIN PASSWORD 'owner' "+attributes)
	t.Cleanup(func() { dropRole(t, admin, name) })
	cfg := config(t)
	database := query[string](t, cfg.DatabaseURL, `SELECT current_database()`)
	exec(t, cfg.DatabaseURL, "ALTER DATABASE "+database+" OWNER TO "+name)
	// The grants of the login roles would keep the user from being dropped.
	t.Cleanup(func() { exec(t, admin, "DROP DATABASE IF EXISTS "+database+" WITH (FORCE)") })
	cfg.DatabaseURL = as(t, cfg.DatabaseURL, name, "owner")
	return cfg
}

func dropRole(t *testing.T, databaseURL, name string) {
	t.Helper()
	exec(t, databaseURL, "DROP OWNED BY "+name, "DROP ROLE "+name)
}

func as(t *testing.T, databaseURL, user, password string) string {
	t.Helper()
	u, err := schema.ServiceURL(databaseURL, user, password)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestApplyNeedsNoSuperuser(t *testing.T) {
	t.Parallel()
	cfg := owner(t, "CREATEROLE CREATEDB")
	apply(t, cfg)
	wantNothingPlanned(t, cfg)
	next := with(cfg, 1002, `CREATE TABLE users.groups (id uuid NOT NULL);`)
	apply(t, next)
	wantNothingPlanned(t, next)
	next.Roles = map[string]schema.Role{"auth": cfg.Roles["auth"], "users": {Password: "a new one"}}
	apply(t, next)
	wantNothingPlanned(t, next)
	exec(t, serviceURL(t, next, "users"), `INSERT INTO users.groups VALUES (gen_random_uuid())`)
}

func TestApplyWithoutCreateDB(t *testing.T) {
	t.Parallel()
	cfg := owner(t, "CREATEROLE")
	// Neither an empty nor an unchanged database needs a scratch database.
	apply(t, cfg)
	apply(t, cfg)
	next := with(cfg, 1002, `CREATE TABLE users.groups (id uuid NOT NULL);`)
	_, err := schema.Apply(t.Context(), next)
	wantError(t, err, "CREATEDB", "ATLAS_DEV_URL")
	_, err = schema.Plan(t.Context(), cfg)
	wantError(t, err, "CREATEDB", "ATLAS_DEV_URL")

	next.DevURL = pgtest.Empty(t)
	apply(t, next)
	wantNothingPlanned(t, next)
	if n := query[int](t, next.DevURL, `SELECT count(*) FROM pg_namespace WHERE nspname IN ('auth', 'users')`); n != 0 {
		t.Errorf("%d schemas remain in the database of ATLAS_DEV_URL", n)
	}

	exec(t, next.DevURL, `CREATE TABLE public.precious (id integer)`)
	_, err = schema.Plan(t.Context(), next)
	wantError(t, err, "ATLAS_DEV_URL", "must be empty")
	query[int](t, next.DevURL, `SELECT count(*) FROM public.precious`)

	next.DevURL = "docker://postgres/17/dev"
	_, err = schema.Plan(t.Context(), next)
	wantError(t, err, "ATLAS_DEV_URL")
}

func TestConcurrentAppliesShareOneDevDatabase(t *testing.T) {
	t.Parallel()
	dev := pgtest.Empty(t)
	var workers sync.WaitGroup
	for range 3 {
		cfg := config(t)
		cfg.DevURL = dev
		workers.Go(func() {
			if _, err := schema.Apply(t.Context(), cfg); err != nil {
				t.Errorf("Apply: %v", err)
			}
			if p, err := schema.Plan(t.Context(), cfg); err != nil || len(p.Statements) > 0 {
				t.Errorf("Plan = %q, %v, want nothing", p.Statements, err)
			}
		})
	}
	workers.Wait()
}

func TestTheTargetIsRefusedAsTheScratchDatabase(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	apply(t, cfg)
	exec(t, cfg.DatabaseURL, insertAccount)
	cfg.DevURL = cfg.DatabaseURL
	_, err := schema.Plan(t.Context(), cfg)
	wantError(t, err, "ATLAS_DEV_URL", "must be empty")
	if n := query[int](t, cfg.DatabaseURL, `SELECT count(*) FROM auth.accounts`); n != 1 {
		t.Errorf("%d accounts remain, want 1", n)
	}
}

func TestApplyWithoutCreateRole(t *testing.T) {
	t.Parallel()
	cfg := owner(t, "CREATEDB")
	_, err := schema.Apply(t.Context(), cfg)
	wantError(t, err, "CREATEROLE")
	cfg.TablesOnly = true
	apply(t, cfg)
	wantNothingPlanned(t, cfg)
}

func TestApplyNeedsThePrivilegeToCreateSchemas(t *testing.T) {
	t.Parallel()
	cfg := owner(t, "CREATEDB CREATEROLE")
	user, err := pgx.ParseConfig(cfg.DatabaseURL)
	if err != nil {
		t.Fatal(err)
	}
	other := pgtest.Empty(t)
	cfg.DatabaseURL = as(t, other, user.User, user.Password)

	_, err = schema.Apply(t.Context(), cfg)
	wantError(t, err, "DATABASE_URL", "permission denied for database", "CREATE SCHEMA auth")

	exec(t, other, "GRANT CREATE ON DATABASE "+query[string](t, other, `SELECT current_database()`)+" TO "+user.User)
	apply(t, cfg)
	wantNothingPlanned(t, cfg)
	// The schemas would keep the user from being dropped.
	exec(t, other, "DROP SCHEMA auth, users CASCADE")
}

func TestTheErrorsOfConnecting(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	missing, _ := url.Parse(cfg.DatabaseURL)
	missing.Path = "/no_such_database"
	for _, test := range []struct{ name, url, want string }{
		{"none", "", "DATABASE_URL"},
		{"malformed", "postgres://user:secret@host:port/", "DATABASE_URL"},
		{"unreachable", "postgres://user:secret@127.0.0.1:1/db", "can't be reached"},
		{"no such socket", "host=/no/such/folder user=me password=secret dbname=db", "can't be reached"},
		{"wrong password", as(t, cfg.DatabaseURL, "gatehouse", "secret"), "refuses the user or the password"},
		{"no such database", missing.String(), "the database doesn't exist"},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg := cfg
			cfg.DatabaseURL = test.url
			_, err := schema.Apply(t.Context(), cfg)
			wantError(t, err, test.want)
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("error %q contains the password", err)
			}
		})
	}
}

func TestApplyEndsWithItsContext(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	conn := pgtest.Connect(t, cfg.DatabaseURL)
	if _, err := conn.Exec(t.Context(), `SELECT pg_advisory_lock($1)`, 0x67617465_01); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := schema.Apply(ctx, cfg)
		done <- err
	}()
	const waiting = `SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
		AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))`
	for !query[bool](t, cfg.DatabaseURL, waiting) {
		select {
		case err := <-done:
			t.Fatalf("Apply = %v while another process held the lock, want it to wait", err)
		default:
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Apply = %v, want it cancelled", err)
	}
}

func sqlState(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}
	return ""
}
