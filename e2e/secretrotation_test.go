package e2e

import (
	"fmt"
	"testing"
	"time"

	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/pgtest"
)

// The passwords of the services' roles are derived from the first secret key. Copies
// that know both keys work before the schema is applied with the new one, and after.
func TestARotationOfTheSecretKeyLocksNoCopyOutOfTheDatabase(t *testing.T) {
	database := passwordDatabase(t)
	const newKey = "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"
	env := func(keys string) []string {
		return []string{
			"DATABASE_URL=" + database, "GATEHOUSE_SECRET_KEY=" + keys, "GATEHOUSE_INTERNAL_KEY=" + harness.InternalKey, "GATEHOUSE_THROTTLE=off",
			"GATEHOUSE_REGISTRATION=closed", "GATEHOUSE_PUBLIC_URL=http://localhost:8001", "GATEHOUSE_ADMIN_EMAIL=" + harness.AdminEmail, "GATEHOUSE_ADMIN_PASSWORD=" + harness.AdminPassword,
		}
	}
	apply := func(keys string) {
		t.Helper()
		if status, said := harness.RunCommand(t, env(keys), "schema", "apply"); status != 0 {
			t.Fatalf("schema apply: exit status %d, said %s", status, said)
		}
	}
	owner := pgtest.Pool(t, database)
	copies := map[string]*harness.System{}
	start := func(keys string) {
		t.Helper()
		copies[keys] = harness.StartServe(t, database, env(keys))
	}
	wantSignIn := func(when string) {
		t.Helper()
		if _, err := owner.Exec(t.Context(), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'gatehouse %' AND datname = current_database() AND usename <> current_user"); err != nil {
			t.Fatal(err)
		}
		for keys, one := range copies {
			// A call that was given a connection which has just ended may fail.
			harness.Eventually(t, 20*time.Second, when, func() error {
				_, err := one.Client("").Auth.Login(t.Context(), &bffv1.LoginRequest{Email: harness.AdminEmail, Password: harness.AdminPassword})
				if err != nil {
					return fmt.Errorf("the copy with the keys %s: %w", keys, err)
				}
				return nil
			})
		}
	}
	apply(harness.SecretKey)
	both := []string{harness.SecretKey + "," + newKey, newKey + "," + harness.SecretKey}
	start(both[0])
	wantSignIn("the new key is second")
	start(both[1])
	wantSignIn("the new key is first on one copy")
	apply(both[1])
	wantSignIn("the schema is applied with the new key first")
	start(both[1])
	start(newKey)
	wantSignIn("the new key alone")
}
