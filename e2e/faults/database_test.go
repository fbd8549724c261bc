package faults

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

	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/pgtest"
)

// login signs the administrator in.
func loginAsAdmin(t *testing.T, s *harness.System) error {
	_, err := s.Client("").Auth.Login(t.Context(), &bffv1.LoginRequest{Email: harness.AdminEmail, Password: harness.AdminPassword})
	return err
}

func TestWritesSucceedAgainOnceTheDatabaseTakesThem(t *testing.T) {
	t.Parallel()
	_, database := harness.StartPostgres(t)
	s := harness.Start(t, harness.ThreeProcesses, harness.OnDatabase(database))
	if err := loginAsAdmin(t, s); err != nil {
		t.Fatalf("Login before: %v", err)
	}
	ready := func(status int, text string) func() error {
		return func() error {
			response, err := http.Get("http://" + s.Roles[harness.RoleAuth].Listen + "/readyz")
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
	harness.Eventually(t, 20*time.Second, "auth is ready", ready(http.StatusOK, ""))
	harness.Execute(t, database.Owner, "ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
	harness.Eventually(t, 20*time.Second, "writes are refused", func() error {
		if code := connect.CodeOf(loginAsAdmin(t, s)); code != connect.CodeUnavailable {
			return fmt.Errorf("Login: %v", code)
		}
		return nil
	})
	harness.Eventually(t, 20*time.Second, "readiness reports it", ready(http.StatusServiceUnavailable, "its database accepts no writes: unless a failover is in progress, "))
	harness.Execute(t, database.Owner, "SET default_transaction_read_only = off", "ALTER SYSTEM SET default_transaction_read_only = off", "SELECT pg_reload_conf()")
	harness.Eventually(t, 20*time.Second, "writes succeed again", func() error { return loginAsAdmin(t, s) })
	harness.Eventually(t, 20*time.Second, "auth is ready again", ready(http.StatusOK, ""))
}

func TestNoCallIsInternalWhateverIsolationTheDatabaseSets(t *testing.T) {
	t.Parallel()
	for _, isolation := range []string{"serializable", "repeatable read"} {
		t.Run(isolation, func(t *testing.T) {
			t.Parallel()
			s := harness.Start(t, harness.OneProcess, harness.WithDatabaseURLs(func(database *pgtest.Database) {
				config, err := pgx.ParseConfig(database.Owner)
				if err != nil {
					t.Fatal(err)
				}
				harness.Execute(t, database.Owner, "ALTER DATABASE "+config.Database+" SET default_transaction_isolation = '"+isolation+"'")
			}))
			admin, ada := s.Admin(t).Client(), s.SignUp(t, "ada@example.com")
			var group sync.WaitGroup
			for range 60 {
				group.Go(func() {
					err := harness.Patiently(func() error {
						_, err := s.Client("").Auth.Refresh(t.Context(), &bffv1.RefreshRequest{RefreshToken: ada.Refresh})
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
					err := harness.Patiently(func() error {
						_, err := admin.Users.SetUserRoles(t.Context(), &bffv1.SetUserRolesRequest{UserId: ada.ID, Roles: roles})
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
	s := harness.Start(t, harness.ThreeProcesses, harness.WithSettings("GATEHOUSE_THROTTLE=off"),
		harness.WithDatabaseURLs(func(database *pgtest.Database) { owner = database.Owner }))
	var group sync.WaitGroup
	logins := func() {
		for i := range 12 {
			group.Go(func() {
				if err := harness.Patiently(func() error { return loginAsAdmin(t, s) }); err != nil {
					t.Errorf("Login %d: %v", i, err)
				}
			})
		}
		group.Wait()
	}
	logins()
	// Postgres does not change the type of a column that a trigger names.
	harness.Execute(t, owner, "DROP TRIGGER events ON auth.accounts", "ALTER TABLE auth.accounts ALTER COLUMN email TYPE varchar(254)", "ALTER TABLE auth.accounts ALTER COLUMN password_hash TYPE varchar(300)",
		"ALTER TABLE users.profiles ALTER COLUMN first_name TYPE varchar(200)")
	for i := range 12 {
		if err := loginAsAdmin(t, s); err != nil {
			t.Errorf("Login %d after the change: %v", i, err)
		}
	}
	logins()
	admin := s.Admin(t).Client()
	for i := range 12 {
		if _, err := admin.Account.GetMe(t.Context(), &bffv1.GetMeRequest{}); err != nil {
			t.Errorf("GetMe %d after the change: %v", i, err)
		}
	}
}

// An environment that was set for another Postgres.
var strayEnvironment = []string{
	"PGSERVICE=elsewhere", "PGSERVICEFILE=/nowhere/service.conf", "PGOPTIONS=-c search_path=nowhere -c default_transaction_isolation=serializable",
	"PGTARGETSESSIONATTRS=standby", "PGTZ=Mars/Base", "PGAPPNAME=stray", "PGCONNECT_TIMEOUT=soon",
	"PGHOST=db.invalid", "PGPORT=1", "PGUSER=nobody", "PGPASSWORD=wrong", "PGDATABASE=none", "PGDATA=/nowhere",
	"PGSSLMODE=verify-full", "PGSSLROOTCERT=/nowhere/ca.pem", "PGREQUIREAUTH=none", "PGCHANNELBINDING=require", "PGSSLNEGOTIATION=direct",
	"PGCLIENTENCODING=LATIN1", "PGMINPROTOCOLVERSION=9",
}

func TestUpStartsWhateverTheEnvironmentSaysOfPostgres(t *testing.T) {
	t.Parallel()
	h := harness.NewEmbedded(t)
	h.Env = append(h.Env, strayEnvironment...)
	_, banner := h.Up(t)
	h.SignUp(t, "ada@example.com")
	if strings.Contains(banner, "db.invalid") {
		t.Errorf("the banner names the environment's host: %s", banner)
	}
}
