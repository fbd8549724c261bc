package schema_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
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

func TestOnlyWhatDiffersOfTheTriggersOfEventsIsReplaced(t *testing.T) {
	t.Parallel()
	cfg := appliedConfig(t)
	for _, test := range []struct{ change, want, locked string }{
		{`ALTER TABLE auth.sessions DISABLE TRIGGER events`, "CREATE CONSTRAINT TRIGGER events AFTER INSERT OR UPDATE OF revoke_time ON auth.sessions", "auth.sessions"},
		{`DROP TRIGGER events ON auth.api_keys`, "CREATE CONSTRAINT TRIGGER events AFTER INSERT OR DELETE OR UPDATE OF revoke_time ON auth.api_keys", "auth.api_keys"},
		{`CREATE OR REPLACE FUNCTION auth.write_event() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'`, "CREATE OR REPLACE FUNCTION auth.write_event()", ""},
		{`ALTER FUNCTION auth.write_event() SECURITY DEFINER`, "CREATE OR REPLACE FUNCTION auth.write_event()", ""},
		{`ALTER FUNCTION auth.write_event() RESET search_path`, "CREATE OR REPLACE FUNCTION auth.write_event()", ""},
		{`GRANT EXECUTE ON FUNCTION auth.write_event() TO PUBLIC`, "REVOKE ALL ON FUNCTION auth.write_event() FROM PUBLIC", ""},
	} {
		exec(t, cfg.DatabaseURL, test.change)
		proposal := plan(t, cfg)
		if last := proposal.Statements[len(proposal.Statements)-1]; !strings.HasPrefix(last, test.want) {
			t.Errorf("%s: Plan ends with %q, want %q", test.change, last, test.want)
		}
		modes := map[string]string{}
		for i, lock := range proposal.Locks {
			if lock != nil {
				modes[proposal.Statements[i]] = lock.Mode + " " + lock.Table
			}
		}
		want := map[string]string{}
		if test.locked != "" {
			want[proposal.Statements[0]] = "ACCESS EXCLUSIVE " + test.locked
			want[proposal.Statements[1]] = "SHARE ROW EXCLUSIVE " + test.locked
		}
		if !maps.Equal(modes, want) || len(proposal.Statements) != max(len(want), 1) {
			t.Errorf("%s: Plan = %q with the locks %q, want %q and nothing else", test.change, proposal.Statements, modes, want)
		}
		if done := apply(t, cfg); !slices.Equal(done.Statements, proposal.Statements) {
			t.Errorf("%s: Apply executed %q, want what was planned, %q", test.change, done.Statements, proposal.Statements)
		}
		wantNothingPlanned(t, cfg)
	}
}

// Each change of a column that the triggers name, there and back, while accounts are written.
func TestATypeChangeUnderTriggersLosesNoEvent(t *testing.T) {
	t.Parallel()
	cfg := appliedConfig(t)
	cfg.DevURL, cfg.AllowDestructive = pgtest.Empty(t), true
	conn := pgtest.Connect(t, serviceURL(t, cfg, "auth"))
	exec(t, cfg.DatabaseURL, `INSERT INTO auth.webhooks (id, url, types) VALUES (gen_random_uuid(), 'https://example.com', '{user.created}')`)
	var writing atomic.Bool
	writing.Store(true)
	written, ended := 0, make(chan struct{})
	go func() {
		defer close(ended)
		for ; writing.Load(); written++ {
			if _, err := conn.Exec(t.Context(), `INSERT INTO auth.accounts (id, email, password_hash) VALUES (gen_random_uuid(), $1, 'x')`, fmt.Sprintf("ada%d@example.com", written)); err != nil {
				t.Errorf("write an account: %v", err)
				return
			}
		}
	}()
	for i, change := range []string{
		"ALTER TABLE auth.accounts ALTER roles TYPE varchar(300)[];",
		"",
		"ALTER TABLE auth.accounts ALTER version TYPE numeric;",
		"ALTER TABLE auth.sessions ALTER revoke_time TYPE timestamptz(3);",
		"",
	} {
		next := with(cfg, 1001+i, change)
		proposal := plan(t, next)
		if text := strings.Join(proposal.Statements, "\n"); strings.Count(text, "DROP TRIGGER") == 0 || strings.Count(text, "DROP TRIGGER") != strings.Count(text, "CREATE CONSTRAINT TRIGGER")+strings.Count(text, "CREATE TRIGGER") {
			t.Errorf("%s: Plan = %q, want each trigger dropped and created", change, proposal.Statements)
		}
		for i, lock := range proposal.Locks {
			if lock == nil {
				t.Errorf("%s: %s is without a lock", change, proposal.Statements[i])
			}
		}
		if done := apply(t, next); !slices.Equal(done.Statements, proposal.Statements) {
			t.Errorf("%s: Apply executed %q, want what was planned, %q", change, done.Statements, proposal.Statements)
		}
		wantNothingPlanned(t, next)
	}
	writing.Store(false)
	<-ended
	if got := query[int](t, cfg.DatabaseURL, `SELECT count(*)::int FROM auth.events`); got != written || written == 0 {
		t.Errorf("%d accounts made %d events", written, got)
	}
	if got := query[int](t, cfg.DatabaseURL, `SELECT count(*)::int FROM auth.account_log`); got != written {
		t.Errorf("%d accounts are %d times in the account log", written, got)
	}
}

// A trigger of the operator's own stays as it was, too.
func TestATypeChangeKeepsATriggerOfTheOperator(t *testing.T) {
	t.Parallel()
	cfg := appliedConfig(t)
	cfg.DevURL, cfg.AllowDestructive = pgtest.Empty(t), true
	exec(t, cfg.DatabaseURL, `CREATE FUNCTION public.mine() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'`,
		`CREATE TRIGGER "of Mine" BEFORE UPDATE ON auth.accounts FOR EACH ROW WHEN (OLD.roles IS DISTINCT FROM NEW.roles) EXECUTE FUNCTION public.mine()`)
	const definition = `SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgname = 'of Mine'`
	before := query[string](t, cfg.DatabaseURL, definition)
	apply(t, with(cfg, 1001, "ALTER TABLE auth.accounts ALTER roles TYPE varchar(300)[];"))
	if after := query[string](t, cfg.DatabaseURL, definition); after != before {
		t.Errorf("the trigger is %q after the change, and was %q", after, before)
	}
}
