package schema_test

import (
	"strings"
	"testing"

	"gatehouse/internal/pgtest"
)

// At an upgrade there are accounts, and deletions that the older version has not delivered.
func TestTheAccountLogIsFilledOnce(t *testing.T) {
	t.Parallel()
	cfg := appliedConfig(t)
	const account, deleted, log = "00000000-0000-7000-8000-000000000001", "00000000-0000-7000-8000-000000000002",
		`SELECT coalesce(string_agg(account_id || ' ' || version || ' ' || deleted, ', ' ORDER BY account_id), '') FROM auth.account_log`
	exec(t, cfg.DatabaseURL,
		`DROP TRIGGER account_log ON auth.accounts`,
		`INSERT INTO auth.accounts (id, email, password_hash, version) VALUES ('`+account+`', 'ada@example.com', 'x', 5)`,
		`INSERT INTO auth.account_outbox (account_id, version, deleted, next_attempt_time) VALUES ('`+account+`', 5, false, now()), ('`+deleted+`', 3, true, now())`)
	if got := query[string](t, cfg.DatabaseURL, log); got != "" {
		t.Fatalf("without the trigger the log is %q", got)
	}
	want := account + " 5 false, " + deleted + " 3 true"
	apply(t, cfg)
	if got := query[string](t, cfg.DatabaseURL, log); got != want {
		t.Errorf("the log is %q, want %q", got, want)
	}
	wantNothingPlanned(t, cfg)
	exec(t, cfg.DatabaseURL, `UPDATE auth.account_log SET change_time = '2020-01-01'`, `DROP TRIGGER account_log ON auth.accounts`)
	apply(t, cfg)
	if n := query[int](t, cfg.DatabaseURL, `SELECT count(*) FROM auth.account_log WHERE change_time = '2020-01-01'`); n != 2 {
		t.Errorf("after the second Apply, %d of 2 rows are unchanged", n)
	}
}

// The trigger works for the role of auth, with any version of auth.
func TestTheAccountLogIsWrittenByATrigger(t *testing.T) {
	t.Parallel()
	cfg := appliedConfig(t)
	conn := pgtest.Connect(t, serviceURL(t, cfg, "auth"))
	const id = "00000000-0000-7000-8000-000000000001"
	for _, step := range []struct{ change, want string }{
		{`INSERT INTO auth.accounts (id, email, password_hash) VALUES ('` + id + `', 'ada@example.com', 'x')`, "1 false"},
		{`UPDATE auth.accounts SET last_sign_in_time = now()`, "1 false"},
		{`UPDATE auth.accounts SET version = version + 1`, "2 false"},
		{`UPDATE auth.account_log SET profile = '{"first_name": "Ada"}'`, `2 false {"first_name": "Ada"}`},
		{`DELETE FROM auth.accounts`, "3 true"},
	} {
		if _, err := conn.Exec(t.Context(), step.change); err != nil {
			t.Fatalf("%s: %v", step.change, err)
		}
		got := query[string](t, cfg.DatabaseURL, `SELECT concat_ws(' ', version, deleted::text, profile) FROM auth.account_log`)
		if got != step.want {
			t.Errorf("after %s: %q, want %q", step.change, got, step.want)
		}
	}
}

func TestAMissingOrChangedTriggerIsReplaced(t *testing.T) {
	t.Parallel()
	cfg := appliedConfig(t)
	for _, change := range []string{
		`ALTER TABLE auth.accounts DISABLE TRIGGER account_log`,
		`DROP TRIGGER account_log ON auth.accounts`,
		`CREATE OR REPLACE FUNCTION auth.log_account() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'`,
		`ALTER FUNCTION auth.log_account() SECURITY DEFINER`,
		`GRANT EXECUTE ON FUNCTION auth.log_account() TO PUBLIC`,
	} {
		exec(t, cfg.DatabaseURL, change)
		done := apply(t, cfg)
		if !strings.Contains(strings.Join(done.Statements, "\n"), "CREATE TRIGGER account_log") {
			t.Errorf("%s: Apply executed %q, want it replaced", change, done.Statements)
		}
		wantNothingPlanned(t, cfg)
	}
}
