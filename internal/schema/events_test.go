package schema_test

import (
	"strings"
	"testing"

	"gatehouse/internal/pgtest"
)

// The triggers work for the role of auth, with any version of auth, and write at the end of
// the transaction.
func TestEventsAreWrittenByTriggers(t *testing.T) {
	t.Parallel()
	cfg := appliedConfig(t)
	conn := pgtest.Connect(t, serviceURL(t, cfg, "auth"))
	const account = "00000000-0000-7000-8000-000000000001"
	exec(t, cfg.DatabaseURL, `INSERT INTO auth.webhooks (id, url, types) VALUES (gen_random_uuid(), 'https://example.com', '{user.created,user.disabled,user.deleted}')`)
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{
		`INSERT INTO auth.accounts (id, email, password_hash) VALUES ('` + account + `', 'ada@example.com', 'x')`,
		`UPDATE auth.accounts SET status = 'disabled'`,
		`UPDATE auth.accounts SET version = version + 1`,
	} {
		if _, err := tx.Exec(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	const events = `SELECT coalesce(string_agg(type || ' ' || version, ', ' ORDER BY create_time), '') FROM auth.events`
	if got := query[string](t, cfg.DatabaseURL, events); got != "user.created 2, user.disabled 2" {
		t.Errorf("got the events %q, want both with the final version", got)
	}
	if _, err := conn.Exec(t.Context(), `DELETE FROM auth.accounts`); err != nil {
		t.Fatal(err)
	}
	if got := query[string](t, cfg.DatabaseURL, events); got != "user.created 2, user.disabled 2, user.deleted 3" {
		t.Errorf("got the events %q after the deletion", got)
	}
}

func TestAMissingOrChangedTriggerOfEventsIsReplaced(t *testing.T) {
	t.Parallel()
	cfg := appliedConfig(t)
	for _, change := range []string{
		`ALTER TABLE auth.sessions DISABLE TRIGGER events`,
		`DROP TRIGGER events ON auth.api_keys`,
		`CREATE OR REPLACE FUNCTION auth.write_event() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'`,
		`ALTER FUNCTION auth.write_event() SECURITY DEFINER`,
		`GRANT EXECUTE ON FUNCTION auth.write_event() TO PUBLIC`,
	} {
		exec(t, cfg.DatabaseURL, change)
		done := apply(t, cfg)
		if !strings.Contains(strings.Join(done.Statements, "\n"), "CREATE CONSTRAINT TRIGGER events") {
			t.Errorf("%s: Apply executed %q, want it replaced", change, done.Statements)
		}
		wantNothingPlanned(t, cfg)
	}
}
