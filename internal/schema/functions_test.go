package schema_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"gatehouse/internal/pgtest"
	"gatehouse/internal/schema"
)

// insertEvent inserts an event of the given age, like auth.
const insertEvent = `
	INSERT INTO auth.audit_events (id, create_time, event, outcome, account_id, actor_id, ip_address, user_agent)
	SELECT overlay(gen_random_uuid()::text PLACING substr(ms, 1, 8) || '-' || substr(ms, 9, 4) FROM 1 FOR 13)::uuid,
		now() - $1::interval, $2, 'succeeded', $3, $4, '192.0.2.1', 'curl'
	FROM lpad(to_hex((extract(epoch FROM now() - $1::interval) * 1000)::bigint), 12, '0') AS ms`

func TestPruningTheAuditKeepsAtLeast30Days(t *testing.T) {
	t.Parallel()
	cfg := appliedConfig(t)
	conn := pgtest.Connect(t, serviceURL(t, cfg, "auth"))
	for _, age := range []string{"0 days", "29 days 23 hours", "30 days 1 hour", "99 days", "101 days"} {
		if _, err := conn.Exec(t.Context(), insertEvent, age, age, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		keep any
		want []string
	}{
		{"100 days", []string{"99 days", "30 days 1 hour", "29 days 23 hours", "0 days"}},
		{"30 days", []string{"29 days 23 hours", "0 days"}},
		{"1 second", []string{"29 days 23 hours", "0 days"}},
		{"-1 years", []string{"29 days 23 hours", "0 days"}},
		{nil, []string{"29 days 23 hours", "0 days"}},
	} {
		if _, err := conn.Exec(t.Context(), `SELECT auth.prune_audit($1::interval)`, test.keep); err != nil {
			t.Fatalf("prune_audit(%v): %v", test.keep, err)
		}
		got := query[[]string](t, cfg.DatabaseURL, `SELECT array_agg(event ORDER BY create_time) FROM auth.audit_events`)
		if !slices.Equal(got, test.want) {
			t.Errorf("prune_audit(%v) leaves %q, want %q", test.keep, got, test.want)
		}
	}
}

func TestClientInfoIsErasedFromTheAuditOnlyAfterTheAccount(t *testing.T) {
	t.Parallel()
	cfg := appliedConfig(t)
	const person, admin = "00000000-0000-7000-8000-000000000001", "00000000-0000-7000-8000-000000000002"
	exec(t, cfg.DatabaseURL, `INSERT INTO auth.accounts (id, email, password_hash) VALUES ('`+person+`', 'ada@example.com', 'x'), ('`+admin+`', 'root@example.com', 'x')`)
	conn := pgtest.Connect(t, serviceURL(t, cfg, "auth"))
	for _, event := range []struct {
		name           string
		account, actor any
	}{
		{"own", person, person}, {"sign-in", person, nil}, {"as an administrator", admin, person},
		{"by an administrator", person, admin}, {"of another", admin, admin}, {"of nobody", nil, nil},
	} {
		if _, err := conn.Exec(t.Context(), insertEvent, "1 day", event.name, event.account, event.actor); err != nil {
			t.Fatal(err)
		}
	}
	exec(t, cfg.DatabaseURL, `UPDATE auth.audit_events SET changed = '{attributes.theme}' WHERE account_id IS NOT NULL`)
	named := func() []string {
		return query[[]string](t, cfg.DatabaseURL, `SELECT array_agg(event ORDER BY event) FROM auth.audit_events WHERE changed <> '{}'`)
	}
	traced := func() []string {
		return query[[]string](t, cfg.DatabaseURL,
			`SELECT array_agg(event ORDER BY event) FROM auth.audit_events WHERE ip_address <> '' AND user_agent <> ''`)
	}
	erase := func() {
		t.Helper()
		if _, err := conn.Exec(t.Context(), `SELECT auth.erase_audit($1)`, person); err != nil {
			t.Fatalf("erase_audit: %v", err)
		}
	}
	erase()
	if got := traced(); len(got) != 6 {
		t.Errorf("while the account exists, only %q have client info, want all 6", got)
	}
	if got := named(); len(got) != 5 {
		t.Errorf("while the account exists, only %q have attribute names, want all 5", got)
	}
	exec(t, cfg.DatabaseURL, `DELETE FROM auth.accounts WHERE id = '`+person+`'`)
	erase()
	if got, want := traced(), []string{"by an administrator", "of another", "of nobody"}; !slices.Equal(got, want) {
		t.Errorf("after the deletion, %q have client info, want %q", got, want)
	}
	if got, want := named(), []string{"as an administrator", "of another"}; !slices.Equal(got, want) {
		t.Errorf("after the deletion, %q have attribute names, want %q", got, want)
	}
	if n := query[int](t, cfg.DatabaseURL, `SELECT count(*) FROM auth.audit_events WHERE account_id = '`+person+`'`); n != 3 {
		t.Errorf("%d events have the account's ID, want all 3", n)
	}
}

func TestOnlyAuthMayCallTheAuditsFunctions(t *testing.T) {
	t.Parallel()
	cfg := appliedConfig(t)
	database := query[string](t, cfg.DatabaseURL, `SELECT current_database()`)
	other := database + "_other"
	exec(t, cfg.DatabaseURL, `CREATE ROLE `+other+` LOGIN PASSWORD 'other'`, `GRANT USAGE ON SCHEMA auth TO `+other)
	t.Cleanup(func() { dropRole(t, cfg.DatabaseURL, other) })
	const denied = "42501"
	for who, databaseURL := range map[string]string{
		"users": serviceURL(t, cfg, "users"), "somebody with the schema's usage": as(t, cfg.DatabaseURL, other, "other"),
	} {
		conn := pgtest.Connect(t, databaseURL)
		for _, call := range []string{`SELECT auth.prune_audit('100 days')`, `SELECT auth.erase_audit(gen_random_uuid())`, `SELECT auth.count_refusal('\x00', now())`} {
			if _, err := conn.Exec(t.Context(), call); sqlState(err) != denied {
				t.Errorf("%s: %s = %v, want SQLSTATE %s", who, call, err, denied)
			}
		}
		conn.Close(t.Context())
	}
}

// At an upgrade, functions are missing or older.
func TestAMissingOrChangedFunctionIsReplaced(t *testing.T) {
	t.Parallel()
	cfg := appliedConfig(t)
	database := query[string](t, cfg.DatabaseURL, `SELECT current_database()`)
	role, other := pgx.Identifier{schema.RoleName(database, "auth")}.Sanitize(), database+"_other"
	exec(t, cfg.DatabaseURL, `CREATE ROLE `+other)
	t.Cleanup(func() { dropRole(t, cfg.DatabaseURL, other) })
	definition := func() string {
		return query[string](t, cfg.DatabaseURL, `
			SELECT string_agg(pg_get_functiondef(oid) || proowner::text || proacl::text, '' ORDER BY proname)
			FROM pg_proc WHERE pronamespace = 'auth'::regnamespace`)
	}
	want := definition()
	for _, change := range []string{
		`DROP FUNCTION auth.prune_audit`,
		`DROP FUNCTION auth.erase_audit`,
		`CREATE OR REPLACE FUNCTION auth.prune_audit(keep interval) RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
			AS 'WITH gone AS (DELETE FROM auth.audit_events RETURNING id) SELECT count(*) FROM gone'`,
		`ALTER FUNCTION auth.prune_audit SECURITY INVOKER`,
		`ALTER FUNCTION auth.erase_audit RESET search_path`,
		`ALTER FUNCTION auth.erase_audit SET search_path = public`,
		`ALTER FUNCTION auth.erase_audit OWNER TO ` + other,
		`GRANT EXECUTE ON FUNCTION auth.erase_audit TO PUBLIC`,
		`GRANT EXECUTE ON FUNCTION auth.prune_audit TO ` + other,
		`REVOKE EXECUTE ON FUNCTION auth.prune_audit FROM ` + role,
	} {
		exec(t, cfg.DatabaseURL, change)
		planned := plan(t, cfg)
		if len(planned.Statements) == 0 || !strings.Contains(fmt.Sprint(planned.Statements), "_audit") {
			t.Errorf("%s: Plan = %q, want it replaced", change, planned.Statements)
		}
		if done := apply(t, cfg); !slices.Equal(done.Statements, planned.Statements) {
			t.Errorf("%s: Apply executed %q, but the plan was %q", change, done.Statements, planned.Statements)
		}
		if got := definition(); got != want {
			t.Errorf("%s: the function is\n%s\nwant\n%s", change, got, want)
		}
		wantNothingPlanned(t, cfg)
	}
}
