package e2e

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/jackc/pgx/v5"

	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/pgtest"
)

// login signs the administrator in.
func loginAsAdmin(t *testing.T, s *system) error {
	_, err := s.client("").auth.Login(t.Context(), &bffv1.LoginRequest{Email: adminEmail, Password: adminPassword})
	return err
}

func TestWritesSucceedAgainOnceTheDatabaseTakesThem(t *testing.T) {
	t.Parallel()
	_, database := newStore(t)
	s := Start(t, ThreeProcesses, OnDatabase(database))
	if err := loginAsAdmin(t, s); err != nil {
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
		if code := connect.CodeOf(loginAsAdmin(t, s)); code != connect.CodeUnavailable {
			return fmt.Errorf("Login: %v", code)
		}
		return nil
	})
	eventually(t, 20*time.Second, "readiness tells it", ready(http.StatusServiceUnavailable, "takes no writes"))
	execute(t, database.Owner, "SET default_transaction_read_only = off", "ALTER SYSTEM SET default_transaction_read_only = off", "SELECT pg_reload_conf()")
	eventually(t, 20*time.Second, "writes succeed again", func() error { return loginAsAdmin(t, s) })
	eventually(t, 20*time.Second, "auth is ready again", ready(http.StatusOK, ""))
}

func TestNoCallIsInternalWhateverIsolationTheDatabaseSets(t *testing.T) {
	t.Parallel()
	for _, isolation := range []string{"serializable", "repeatable read"} {
		t.Run(isolation, func(t *testing.T) {
			t.Parallel()
			s := Start(t, OneProcess, WithDatabaseURLs(func(database *pgtest.Database) {
				config, err := pgx.ParseConfig(database.Owner)
				if err != nil {
					t.Fatal(err)
				}
				execute(t, database.Owner, "ALTER DATABASE "+config.Database+" SET default_transaction_isolation = '"+isolation+"'")
			}))
			admin, ada := s.Admin(t).Client(), s.signUp(t, "ada@example.com")
			var group sync.WaitGroup
			for range 60 {
				group.Go(func() {
					err := patiently(func() error {
						_, err := s.client("").auth.Refresh(t.Context(), &bffv1.RefreshRequest{RefreshToken: ada.Refresh})
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
						_, err := admin.users.SetUserRoles(t.Context(), &bffv1.SetUserRolesRequest{UserId: ada.ID, Roles: roles})
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
	s := Start(t, ThreeProcesses, WithDatabaseURLs(func(database *pgtest.Database) { owner = database.Owner }))
	for _, name := range []string{roleAuth, roleBff} {
		s.set(t, name, "GATEHOUSE_THROTTLE=off")
	}
	var group sync.WaitGroup
	logins := func() {
		for i := range 12 {
			group.Go(func() {
				if err := patiently(func() error { return loginAsAdmin(t, s) }); err != nil {
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
		if err := loginAsAdmin(t, s); err != nil {
			t.Errorf("Login %d after the change: %v", i, err)
		}
	}
	logins()
	admin := s.Admin(t).Client()
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
