package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/jackc/pgx/v5"

	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/pgtest"
	"gatehouse/internal/postgres"
	"gatehouse/internal/schema"
)

// execute runs statements as the owner of a database.
func execute(t *testing.T, url string, statements ...string) {
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

// ownPostgres starts a Postgres for one test, which may turn all of it.
func ownPostgres(t *testing.T) pgtest.Database {
	t.Helper()
	dir, err := os.MkdirTemp("", "gatehouse-own-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	server, err := postgres.Start(t.Context(), postgres.Config{Dir: dir, NoSync: true})
	if err != nil {
		t.Fatalf("start a Postgres: %v", err)
	}
	t.Cleanup(func() { _ = server.Stop(context.Background()) })
	db := pgtest.Database{Owner: server.URL("postgres")}
	_, err = schema.Apply(t.Context(), schema.Config{
		SQL: schemaSQL, DatabaseURL: db.Owner,
		Roles: map[string]schema.Role{"auth": {Password: "auth"}, "users": {Password: "users"}},
	})
	if err != nil {
		t.Fatalf("apply the schema: %v", err)
	}
	for service, url := range map[string]*string{"auth": &db.Auth, "users": &db.Users} {
		if *url, err = schema.ServiceURL(db.Owner, schema.RoleName("postgres", service), service); err != nil {
			t.Fatal(err)
		}
	}
	return db
}

// login signs the administrator in.
func (s *system) login(t *testing.T) error {
	_, err := s.client("").auth.Login(t.Context(), &bffv1.LoginRequest{Email: adminEmail, Password: adminPassword})
	return err
}

func TestWritesSucceedAgainOnceTheDatabaseTakesThem(t *testing.T) {
	t.Parallel()
	database := ownPostgres(t)
	s := newSystemOn(t, "three processes", database)
	if err := s.login(t); err != nil {
		t.Fatalf("Login before: %v", err)
	}
	ready := func(status int, text string) func() error {
		return func() error {
			response, err := http.Get("http://" + s.roles[roleAuth].listen + "/readyz")
			if err != nil {
				return err
			}
			defer response.Body.Close()
			body, _ := io.ReadAll(response.Body)
			if response.StatusCode != status || !strings.Contains(string(body), text) {
				return fmt.Errorf("auth's readyz: %s %s", response.Status, body)
			}
			return nil
		}
	}
	eventually(t, 20*time.Second, "auth is ready", ready(http.StatusOK, ""))
	execute(t, database.Owner, "ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
	eventually(t, 20*time.Second, "writes are refused", func() error {
		if code := connect.CodeOf(s.login(t)); code != connect.CodeUnavailable {
			return fmt.Errorf("Login: %v", code)
		}
		return nil
	})
	eventually(t, 20*time.Second, "readiness tells it", ready(http.StatusServiceUnavailable, "takes no writes"))
	execute(t, database.Owner, "SET default_transaction_read_only = off", "ALTER SYSTEM SET default_transaction_read_only = off", "SELECT pg_reload_conf()")
	eventually(t, 20*time.Second, "writes succeed again", func() error { return s.login(t) })
	eventually(t, 20*time.Second, "auth is ready again", ready(http.StatusOK, ""))
}

func TestNoCallIsInternalWhateverIsolationTheDatabaseSets(t *testing.T) {
	t.Parallel()
	for _, isolation := range []string{"serializable", "repeatable read"} {
		t.Run(isolation, func(t *testing.T) {
			t.Parallel()
			s := newSystem(t, "one process", func(database *pgtest.Database) {
				config, err := pgx.ParseConfig(database.Owner)
				if err != nil {
					t.Fatal(err)
				}
				execute(t, database.Owner, "ALTER DATABASE "+config.Database+" SET default_transaction_isolation = '"+isolation+"'")
			})
			admin, ada := s.admin(t), s.signUp(t, "ada@example.com")
			var group sync.WaitGroup
			for range 60 {
				group.Go(func() {
					err := patiently(func() error {
						_, err := s.client("").auth.Refresh(t.Context(), &bffv1.RefreshRequest{RefreshToken: ada.GetTokens().GetRefreshToken()})
						return err
					})
					if code := connect.CodeOf(err); err != nil && code != connect.CodeUnauthenticated {
						t.Errorf("Refresh: %v", err)
					}
				})
			}
			for i := range 10 {
				group.Go(func() {
					roles := []string{"editor"}
					if i%2 == 0 {
						roles = nil
					}
					err := patiently(func() error {
						_, err := admin.users.SetUserRoles(t.Context(), &bffv1.SetUserRolesRequest{UserId: ada.GetUser().GetId(), Roles: roles})
						return err
					})
					if err != nil {
						t.Errorf("SetUserRoles: %v", err)
					}
				})
			}
			group.Wait()
		})
	}
}

func TestNoLoginFailsAfterAColumnChangesItsType(t *testing.T) {
	t.Parallel()
	var owner string
	s := newSystem(t, "three processes", func(database *pgtest.Database) { owner = database.Owner })
	for _, name := range []string{roleAuth, roleBff} {
		s.set(t, name, "GATEHOUSE_THROTTLE=off")
	}
	var group sync.WaitGroup
	logins := func() {
		for i := range 12 {
			group.Go(func() {
				if err := patiently(func() error { return s.login(t) }); err != nil {
					t.Errorf("Login %d: %v", i, err)
				}
			})
		}
		group.Wait()
	}
	logins()
	execute(t, owner, "ALTER TABLE auth.accounts ALTER COLUMN email TYPE varchar(254)", "ALTER TABLE auth.accounts ALTER COLUMN password_hash TYPE varchar(300)",
		"ALTER TABLE users.profiles ALTER COLUMN first_name TYPE varchar(200)")
	for i := range 12 {
		if err := s.login(t); err != nil {
			t.Errorf("Login %d after the change: %v", i, err)
		}
	}
	logins()
	admin := s.admin(t)
	for i := range 12 {
		if _, err := admin.account.GetMe(t.Context(), &bffv1.GetMeRequest{}); err != nil {
			t.Errorf("GetMe %d after the change: %v", i, err)
		}
	}
}

// The environment of whoever works with another Postgres.
var strayEnvironment = []string{
	"PGSERVICE=elsewhere", "PGSERVICEFILE=/nowhere/service.conf", "PGOPTIONS=-c search_path=nowhere -c default_transaction_isolation=serializable",
	"PGTARGETSESSIONATTRS=standby", "PGTZ=Mars/Base", "PGAPPNAME=stray", "PGCONNECT_TIMEOUT=soon",
	"PGHOST=db.invalid", "PGPORT=1", "PGUSER=nobody", "PGPASSWORD=wrong", "PGDATABASE=none", "PGDATA=/nowhere",
	"PGSSLMODE=verify-full", "PGSSLROOTCERT=/nowhere/ca.pem", "PGREQUIREAUTH=none", "PGCHANNELBINDING=require", "PGSSLNEGOTIATION=direct",
	"PGCLIENTENCODING=LATIN1", "PGMINPROTOCOLVERSION=9",
}

func TestUpStartsWhateverTheEnvironmentSaysOfPostgres(t *testing.T) {
	t.Parallel()
	h := newUpHouse(t)
	h.env = append(h.env, strayEnvironment...)
	_, banner := h.up(t)
	h.signUp(t, "ada@example.com")
	if strings.Contains(banner, "db.invalid") {
		t.Errorf("the banner names the environment's host: %s", banner)
	}
}
