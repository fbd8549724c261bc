package operate

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"testing"
	"time"

	"gatehouse/e2e/harness"
	"gatehouse/internal/pgtest"
)

// Once serve is ready, people can sign in: while the administrator can't be
// created yet, nobody finds it ready.
func TestServeIsReadyOnceItsAdministratorExists(t *testing.T) {
	t.Parallel()
	database := pgtest.Empty(t)
	env := []string{
		"DATABASE_URL=" + database, "GATEHOUSE_SECRET_KEY=" + harness.SecretKey, "GATEHOUSE_INTERNAL_KEY=" + harness.InternalKey,
		"GATEHOUSE_REGISTRATION=closed", "GATEHOUSE_ADMIN_EMAIL=" + harness.AdminEmail, "GATEHOUSE_ADMIN_PASSWORD=" + harness.AdminPassword,
	}
	if status, said := harness.RunCommand(t, env, "schema", "apply"); status != 0 {
		t.Fatalf("schema apply: exit status %d, said %s", status, said)
	}
	holder := pgtest.Connect(t, database)
	held, err := holder.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// Accounts can be read, and not written.
	if _, err := held.Exec(t.Context(), "LOCK TABLE auth.accounts IN SHARE MODE"); err != nil {
		t.Fatal(err)
	}
	s := harness.NewServe(t, database, env)
	listen := s.Roles[harness.RoleServe].Listen
	p := harness.StartProcess(t, slices.Concat(env, []string{"GATEHOUSE_LISTEN=" + listen}), "serve")
	readyz := func() bool {
		response, err := http.Get("http://" + listen + "/readyz")
		if err != nil {
			return false
		}
		defer response.Body.Close()
		return response.StatusCode == http.StatusOK
	}
	harness.Eventually(t, 30*time.Second, "serve waits to create the administrator", func() error {
		if p.HasEnded() {
			t.Fatalf("serve ended: %s", p.Stderr.String())
		}
		if readyz() {
			t.Fatal("serve is ready, and its administrator isn't there")
		}
		var waits bool
		err := s.Owner.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 'auth.accounts'::regclass)").Scan(&waits)
		if err == nil && !waits {
			err = errors.New("nobody waits for the table")
		}
		return err
	})
	// It waits, so that whatever comes before listening has been done.
	for range 20 {
		if readyz() {
			t.Fatal("serve is ready, and its administrator isn't there")
		}
	}
	if err := held.Rollback(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, 30*time.Second, "serve is ready", func() error {
		if !readyz() {
			return errors.New("not yet")
		}
		return nil
	})
	s.Admin(t)
}
