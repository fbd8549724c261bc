package database_test

import (
	"context"
	"net/url"
	"sync"
	"testing"
	"time"

	"gatehouse/internal/database"
	"gatehouse/internal/pgtest"
	"gatehouse/internal/testneed"
)

// During a rotation of secret keys, the schema is applied between two calls, which changes
// the password of the role for later connections.
func TestConnectionsUseTheCurrentPasswordOfTheRole(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	address, err := url.Parse(db.Auth)
	if err != nil {
		t.Fatal(err)
	}
	role := address.User.Username()
	address.User = url.UserPassword(role, "one")
	set := func(password string) { exec(t, db.Owner, "ALTER ROLE "+role+" PASSWORD '"+password+"'") }
	set("two")
	if _, err := database.Open(t.Context(), address.String(), "auth"); err == nil {
		testneed.Lacks(t, "this Postgres asks nobody for a password", "use one that does")
	}
	opened, err := database.Open(t.Context(), address.String(), "auth", "two")
	if err != nil {
		t.Fatalf("open with two passwords, the second of which is valid: %v", err)
	}
	t.Cleanup(opened.Close)
	pool := database.Retrying(opened)
	for _, password := range []string{"one", "two", "two", "one"} {
		set(password)
		pool.Reset()
		var calls sync.WaitGroup
		for range 8 {
			calls.Go(func() {
				if _, err := pool.Exec(t.Context(), "SELECT 1"); err != nil {
					t.Errorf("the role's password is now %s: %v", password, err)
				}
			})
		}
		calls.Wait()
	}
	set("three")
	pool.Reset()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := pool.Exec(ctx, "SELECT 1"); err == nil || ctx.Err() != nil {
		t.Errorf("the role has neither password: got %v, want a refusal at once", err)
	}
}
