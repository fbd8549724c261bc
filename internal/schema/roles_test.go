package schema_test

import (
	"maps"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"gatehouse/internal/pgtest"
	"gatehouse/internal/schema"
)

// serviceURL returns the URL with which a service connects.
func serviceURL(t *testing.T, cfg schema.Config, service string) string {
	t.Helper()
	role := cfg.Roles[service]
	if role.Name == "" {
		role.Name = schema.RoleName(query[string](t, cfg.DatabaseURL, `SELECT current_database()`), service)
	}
	return as(t, cfg.DatabaseURL, role.Name, role.Password)
}

func TestEachServiceHasAccessToItsOwnSchemaOnly(t *testing.T) {
	t.Parallel()
	cfg := appliedConfig(t)
	const denied, undefined = "42501", "42P01"
	old := query[bool](t, cfg.DatabaseURL, `SELECT current_setting('server_version_num')::integer < 150000`)
	for _, test := range []struct{ service, sql, want string }{
		{"auth", `INSERT INTO auth.accounts (id, email, password_hash) VALUES ('00000000-0000-0000-0000-000000000001', 'ada@example.com', 'x')`, ""},
		{"auth", `INSERT INTO auth.sessions (id, account_id, token_hash, token_key, expire_time, max_expire_time)
			VALUES (gen_random_uuid(), '00000000-0000-0000-0000-000000000001', sha256(''), 'k', now(), now())`, ""},
		{"auth", `SELECT count(*) FROM accounts`, ""},
		{"auth", `UPDATE auth.accounts SET status = 'disabled'`, ""},
		{"auth", `DELETE FROM auth.accounts`, ""},
		{"users", `INSERT INTO users.tombstones (id, account_version) VALUES (gen_random_uuid(), 1)`, ""},
		{"users", `UPDATE users.tombstones SET account_version = 2`, ""},
		{"users", `SELECT count(*) FROM profiles`, ""},
		{"users", `DELETE FROM users.tombstones`, ""},

		{"auth", `SELECT count(*) FROM users.profiles`, denied},
		{"auth", `INSERT INTO users.tombstones (id, account_version) VALUES (gen_random_uuid(), 1)`, denied},
		{"auth", `SELECT number FROM users.applied_schema`, denied},
		{"users", `SELECT count(*) FROM auth.accounts`, denied},
		{"users", `UPDATE auth.accounts SET roles = '{admin}'`, denied},
		{"users", `SELECT sealed_private_key FROM auth.signing_keys`, denied},
		{"users", `DELETE FROM auth.sessions`, denied},
		{"users", `SELECT count(*) FROM accounts`, undefined},

		{"auth", `INSERT INTO auth.audit_events (id, event, outcome) VALUES (gen_random_uuid(), 'login', 'ok')`, ""},
		{"auth", `SELECT count(*) FROM auth.audit_events`, ""},
		{"auth", `UPDATE auth.audit_events SET outcome = 'never'`, denied},
		{"auth", `DELETE FROM auth.audit_events`, denied},
		{"auth", `TRUNCATE auth.audit_events`, denied},
		{"auth", `DROP TABLE auth.audit_events`, denied},

		{"auth", `UPDATE auth.applied_schema SET number = 9999`, denied},
		{"users", `DELETE FROM users.applied_schema`, denied},

		{"auth", `CREATE TABLE auth.mine (id integer)`, denied},
		{"auth", `CREATE TABLE public.mine (id integer)`, denied},
		{"users", `CREATE SCHEMA mine`, denied},
		{"users", `CREATE ROLE mine`, denied},
		{"users", `CREATE DATABASE mine`, denied},
		{"auth", `ALTER TABLE auth.accounts DISABLE TRIGGER ALL`, denied},
	} {
		if old && strings.Contains(test.sql, " public.") {
			continue // permitted to everyone up to Postgres 14
		}
		conn := pgtest.Connect(t, serviceURL(t, cfg, test.service))
		_, err := conn.Exec(t.Context(), test.sql)
		if got := sqlState(err); got != test.want || got == "" && err != nil {
			t.Errorf("%s: %s = %v, want SQLSTATE %q", test.service, test.sql, err, test.want)
		}
		conn.Close(t.Context())
	}
}

// A pooler does not forward this setting of a client, so the role must have it.
func TestTheSessionSettingsOfARoleAreRestored(t *testing.T) {
	t.Parallel()
	cfg := appliedConfig(t)
	for _, service := range []string{"auth", "users"} {
		if got := query[string](t, serviceURL(t, cfg, service), `SELECT current_setting('idle_in_transaction_session_timeout')`); got != "10s" {
			t.Errorf("%s: idle transactions end after %q, want 10s", service, got)
		}
	}
	database := query[string](t, cfg.DatabaseURL, `SELECT quote_ident(current_database())`)
	exec(t, cfg.DatabaseURL, "ALTER ROLE "+schema.RoleName(query[string](t, cfg.DatabaseURL, `SELECT current_database()`), "auth")+
		" IN DATABASE "+database+" RESET idle_in_transaction_session_timeout")
	apply(t, cfg)
	if got := query[string](t, serviceURL(t, cfg, "auth"), `SELECT current_setting('idle_in_transaction_session_timeout')`); got != "10s" {
		t.Errorf("after a reset and Apply: %q, want 10s", got)
	}
	wantNothingPlanned(t, cfg)
}

func TestRoleNamesAndPasswordsAreQuoted(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	database := query[string](t, cfg.DatabaseURL, `SELECT current_database()`)
	cfg.Roles = map[string]schema.Role{
		"auth":  {Name: database + ` "; DROP`, Password: `pass'word \ "?@/#%&= §`},
		"users": {Name: database + `-Üsers`, Password: "\u00aa\u00a0\u2160 Straße"},
	}
	for _, role := range []string{cfg.Roles["auth"].Name, cfg.Roles["users"].Name} {
		role := pgx.Identifier{role}.Sanitize()
		t.Cleanup(func() { dropRole(t, cfg.DatabaseURL, role) })
	}
	result := apply(t, cfg)
	for _, s := range result.Statements {
		if strings.Contains(s, "Straße") || strings.Contains(s, "SCRAM") {
			t.Errorf("a statement contains a password: %s", s)
		}
	}
	wantNothingPlanned(t, cfg)
	for _, service := range []string{"auth", "users"} {
		if err := schema.Ready(t.Context(), pgtest.Connect(t, serviceURL(t, cfg, service)), service, 1); err != nil {
			t.Errorf("%s: %v", service, err)
		}
	}
	const scram = `SELECT count(*) FROM pg_authid WHERE rolname = ANY ($1) AND rolpassword LIKE 'SCRAM-SHA-256$4096:%'`
	if n := query[int](t, cfg.DatabaseURL, scram, []string{cfg.Roles["auth"].Name, cfg.Roles["users"].Name}); n != 2 {
		t.Errorf("%d passwords are stored as SCRAM verifiers, want 2", n)
	}
}

func TestAPasswordIsSetOnlyIfItIsWrong(t *testing.T) {
	t.Parallel()
	cfg := appliedConfig(t)
	role := schema.RoleName(query[string](t, cfg.DatabaseURL, `SELECT current_database()`), "auth")
	stored := func() string {
		return query[string](t, cfg.DatabaseURL, `SELECT coalesce(rolpassword, '') FROM pg_authid WHERE rolname = $1`, role)
	}
	works := func(password string) bool {
		conn, err := pgx.Connect(t.Context(), as(t, cfg.DatabaseURL, role, password))
		if err != nil {
			return false
		}
		conn.Close(t.Context())
		return true
	}
	first := stored()

	apply(t, cfg)
	if stored() != first {
		t.Error("a valid password was set again")
	}

	exec(t, cfg.DatabaseURL, "ALTER ROLE "+role+" PASSWORD 'by hand'")
	result := apply(t, cfg)
	if len(result.Statements) != 1 || !strings.HasPrefix(result.Statements[0], "ALTER ROLE") {
		t.Errorf("Apply executed %q, want one ALTER ROLE", result.Statements)
	}
	if !works(cfg.Roles["auth"].Password) {
		t.Error("Apply did not restore a password that was changed by hand")
	}

	cfg.Roles["auth"] = schema.Role{Name: cfg.Roles["auth"].Name, Password: "another"}
	apply(t, cfg)
	if !works("another") {
		t.Error("a new password was not set")
	}

	kept := stored()
	cfg.Roles["auth"] = schema.Role{Name: cfg.Roles["auth"].Name, Password: ""}
	apply(t, cfg)
	if stored() != kept {
		t.Error("an unknown password was changed")
	}
}

func TestARoleWithoutAPasswordIsCreated(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.Roles = nil
	apply(t, cfg)
	wantNothingPlanned(t, cfg)
	const roles = `SELECT count(*) FROM pg_authid WHERE rolname LIKE current_database() || '%' AND rolcanlogin AND rolpassword IS NULL`
	if n := query[int](t, cfg.DatabaseURL, roles); n != 2 {
		t.Errorf("%d roles were created, want 2", n)
	}
}

func TestRolesMustDifferAndNotOwnTheTables(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	same := cfg
	same.Roles = map[string]schema.Role{"auth": {Name: "one"}, "users": {Name: "one"}}
	_, err := schema.Apply(t.Context(), same)
	wantError(t, err, "the same login role", "one")

	owning := cfg
	owning.Roles = map[string]schema.Role{"auth": {Name: query[string](t, cfg.DatabaseURL, `SELECT current_user`)}}
	_, err = schema.Apply(t.Context(), owning)
	wantError(t, err, "owns the tables")

	apply(t, cfg)
	database := query[string](t, cfg.DatabaseURL, `SELECT current_database()`)
	auth, users := schema.RoleName(database, "auth"), schema.RoleName(database, "users")
	exec(t, cfg.DatabaseURL, "GRANT "+auth+" TO "+users)
	_, err = schema.Apply(t.Context(), with(cfg, 1002, `CREATE TABLE auth.badges (id uuid NOT NULL);`))
	wantError(t, err, users, "member of another role")
	if query[bool](t, cfg.DatabaseURL, `SELECT to_regclass('auth.badges') IS NOT NULL`) {
		t.Error("the table auth.badges was created although the roles were refused")
	}
}

func TestRoleName(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("d", 63)
	wide := "x" + strings.Repeat("é", 31) // 63 bytes
	for _, test := range []struct{ database, service, want string }{
		{"gatehouse", "auth", "gatehouse_auth"},
		{"gatehouse", "users", "gatehouse_users"},
		{"My-DB", "auth", "My-DB_auth"},
		{strings.Repeat("d", 58), "auth", strings.Repeat("d", 58) + "_auth"},
		{long, "auth", strings.Repeat("d", 49) + "_"},
		{wide, "users", "x" + strings.Repeat("é", 23) + "_"},
	} {
		got := schema.RoleName(test.database, test.service)
		if !strings.HasPrefix(got, test.want) || !strings.HasSuffix(got, "_"+test.service) || len(got) > 63 || !utf8.ValidString(got) {
			t.Errorf("RoleName(%q, %q) = %q (%d bytes), want %q…", test.database, test.service, got, len(got), test.want)
		}
	}
	if a, b := schema.RoleName(long+"1", "auth"), schema.RoleName(long+"2", "auth"); a == b {
		t.Errorf("two databases share the role %q", a)
	}
}

func TestServiceURL(t *testing.T) {
	t.Parallel()
	const role, password = "db_auth", `p'a s\s/@:?#%`
	for _, databaseURL := range []string{
		"postgres://me:secret@example.com:6432/db?sslmode=require",
		"postgresql://me@example.com/db?application_name=a%20b",
		"postgres:///db?host=/var/run/postgresql&user=me&password=secret",
		"postgres://me:secret@%2Fvar%2Frun%2Fpostgresql/db",
		"postgres://me:secret@/db?host=%2Ftmp%2Fx&port=5433",
		"postgres://me:secret@a.example.com:5432,b.example.com:5433/db",
		"postgres://me:secret@[::1]:5432/db",
		"postgres://db:secret@example.com",
		"postgres://me:secret@example.com/?dbname=db",
		"host=example.com port=6432 user=me password=secret dbname=db sslmode=disable",
		`host='/var/run/postgresql' user=db password='it\'s'`,
		"host = example.com user =me password= secret dbname=db ",
		`host=example.com user=me password=se\ cret\' dbname=db application_name=' a = \'b\' '`,
	} {
		want, err := pgx.ParseConfig(databaseURL)
		if err != nil {
			t.Errorf("%s: %v", databaseURL, err)
			continue
		}
		got, err := schema.ServiceURL(databaseURL, role, password)
		if err != nil {
			t.Errorf("ServiceURL(%q): %v", databaseURL, err)
			continue
		}
		cfg, err := pgx.ParseConfig(got)
		if err != nil {
			t.Errorf("ServiceURL(%q) = %q: %v", databaseURL, got, err)
			continue
		}
		if cfg.User != role || cfg.Password != password {
			t.Errorf("ServiceURL(%q) = %q, with user %q and password %q", databaseURL, got, cfg.User, cfg.Password)
		}
		if strings.Contains(got, "secret") || strings.Contains(got, "user=me") || strings.Contains(got, "me:") {
			t.Errorf("ServiceURL(%q) = %q, which contains the owner's credentials", databaseURL, got)
		}
		if cfg.Host != want.Host || cfg.Port != want.Port || cfg.Database != "db" || len(cfg.Fallbacks) != len(want.Fallbacks) ||
			(cfg.TLSConfig == nil) != (want.TLSConfig == nil) || !maps.Equal(cfg.RuntimeParams, want.RuntimeParams) {
			t.Errorf("ServiceURL(%q) = %q, which names another server or database", databaseURL, got)
		}
	}
	for _, wrong := range []string{"", "postgres://me:secret@host:port/db", "no URL at all"} {
		if got, err := schema.ServiceURL(wrong, role, password); err == nil {
			t.Errorf("ServiceURL(%q) = %q, want an error", wrong, got)
		}
	}
}
