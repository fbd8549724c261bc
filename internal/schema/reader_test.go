package schema_test

import (
	"regexp"
	"slices"
	"testing"

	"gatehouse/internal/pgtest"
	"gatehouse/internal/schema"
)

func readerConfig(t *testing.T) (cfg schema.Config, url string) {
	t.Helper()
	cfg = configFor(t, pgtest.Tables(t))
	cfg.DevURL = pgtest.Empty(t) // faster than a scratch database
	cfg.Reader = schema.Role{Password: "reader"}
	apply(t, cfg)
	name := schema.RoleName(query[string](t, cfg.DatabaseURL, `SELECT current_database()`), schema.Reader)
	return cfg, as(t, cfg.DatabaseURL, name, "reader")
}

const denied = "42501"

func TestTheReaderCanOnlyRead(t *testing.T) {
	t.Parallel()
	cfg, url := readerConfig(t)
	exec(t, cfg.DatabaseURL, `INSERT INTO auth.accounts (id, email, password_hash) VALUES (gen_random_uuid(), 'ada@example.com', 'x')`)
	for sql, want := range map[string]string{
		`SELECT count(*) FROM auth.accounts`:                                              "",
		`SELECT id, email, email_verified, status, roles, create_time FROM auth.accounts`: "",
		`SELECT id, account_id, user_agent, ip_address, revoke_reason FROM auth.sessions`: "",
		`SELECT kid, public_key FROM auth.signing_keys`:                                   "",
		`SELECT * FROM auth.audit_events`:                                                 "",
		`SELECT * FROM auth.applied_schema`:                                               "",
		`SELECT * FROM users.profiles`:                                                    "",

		`SELECT * FROM auth.accounts`:                           denied,
		`SELECT password_hash FROM auth.accounts`:               denied,
		`SELECT accounts FROM auth.accounts`:                    denied,
		`SELECT id FROM auth.accounts WHERE password_hash = ''`: denied,
		`SELECT token_hash FROM auth.sessions`:                  denied,
		`SELECT idempotency_key_hash FROM auth.sessions`:        denied,
		`SELECT sealed_private_key FROM auth.signing_keys`:      denied,
		`SELECT token_hash FROM auth.links`:                     denied,
		`SELECT sealed_values FROM auth.mails`:                  denied,
		`SELECT rolpassword FROM pg_authid`:                     denied,
		// A session can change this setting, so the grants alone must suffice.
		`UPDATE auth.accounts SET status = 'disabled'`: denied,
		`DELETE FROM users.profiles`:                   denied,
		`INSERT INTO auth.audit_events (id, event, outcome) VALUES (gen_random_uuid(), 'login', 'ok')`: denied,
		`SELECT id FROM auth.accounts FOR UPDATE`:                                                      denied,
		`TRUNCATE users.profiles`:                                                                      denied,
		`BEGIN; LOCK TABLE auth.accounts IN EXCLUSIVE MODE`:                                            denied,
		`SELECT auth.prune_audit('30 days')`:                                                           denied,
		`CREATE TABLE auth.mine (id integer)`:                                                          denied,
		`CREATE SCHEMA mine`:                                                                           denied,
		`CREATE ROLE mine`:                                                                             denied,
		`COPY users.profiles TO PROGRAM 'true'`:                                                        denied,
		`SELECT pg_read_file('/etc/passwd')`:                                                           denied,
		`CREATE FUNCTION users.mine() RETURNS integer LANGUAGE sql RETURN 1`:                           denied,
	} {
		conn := pgtest.Connect(t, url)
		_, err := conn.Exec(t.Context(), "SET default_transaction_read_only = off")
		if err == nil {
			_, err = conn.Exec(t.Context(), sql)
		}
		if got := sqlState(err); got != want || got == "" && err != nil {
			t.Errorf("%s = %v, want SQLSTATE %q", sql, err, want)
		}
		conn.Close(t.Context())
	}
	wantNothingPlanned(t, cfg)
}

// A column with a name that suggests a secret must be hidden, or listed here with the reason
// why it is none.
func TestColumnsWithSecretNamesAreHiddenFromTheReader(t *testing.T) {
	t.Parallel()
	_, url := readerConfig(t)
	harmless := []string{
		"auth.accounts.password_change_time",                                                 // a time
		"auth.signing_keys.public_key",                                                       // public
		"auth.sessions.token_key", "auth.totp_factors.key_id", "auth.webhook_secrets.key_id", // the ID of a key
		"auth.audit_events.refusal_key",                                       // a MAC that counts refusals
		"auth.applied_schema.source_hash", "auth.applied_schema.catalog_hash", // of schema.sql
		"users.applied_schema.source_hash", "users.applied_schema.catalog_hash",
	}
	const readable = `
		SELECT coalesce(array_agg(n.nspname || '.' || c.relname || '.' || a.attname), '{}')
		FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname IN ('auth', 'users') AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
			AND has_column_privilege(c.oid, a.attnum, 'SELECT')`
	columns := query[[]string](t, url, readable)
	if len(columns) < 50 {
		t.Fatalf("the reader can read only %d columns: %q", len(columns), columns)
	}
	secret := regexp.MustCompile(`hash|secret|sealed|password|token|key|payload`)
	for _, column := range columns {
		if name := column[regexp.MustCompile(`[^.]*$`).FindStringIndex(column)[0]:]; secret.MatchString(name) && !slices.Contains(harmless, column) {
			t.Errorf("the reader can read %s", column)
		}
	}
}

func TestTheReadersGrantsAreRestored(t *testing.T) {
	t.Parallel()
	cfg, url := readerConfig(t)
	role := `"` + schema.RoleName(query[string](t, cfg.DatabaseURL, `SELECT current_database()`), schema.Reader) + `"`
	database := query[string](t, cfg.DatabaseURL, `SELECT quote_ident(current_database())`)
	for _, drift := range []string{
		"GRANT SELECT ON auth.accounts TO " + role,
		"GRANT SELECT (password_hash) ON auth.accounts TO " + role,
		"GRANT UPDATE (status) ON auth.accounts TO " + role,
		"REVOKE SELECT (email) ON auth.accounts FROM " + role,
		"GRANT CREATE ON SCHEMA users TO " + role,
		"REVOKE USAGE ON SCHEMA users FROM " + role,
		"ALTER ROLE " + role + " IN DATABASE " + database + " RESET default_transaction_read_only",
		"ALTER ROLE " + role + " CREATEDB",
	} {
		exec(t, cfg.DatabaseURL, drift)
		if plan, err := schema.Plan(t.Context(), cfg); err != nil || len(plan.Statements) == 0 {
			t.Errorf("after %s: plan %q, %v; want the grants restored", drift, plan.Statements, err)
		}
		apply(t, cfg)
		wantNothingPlanned(t, cfg)
	}
	if got := query[bool](t, url, `SELECT NOT has_column_privilege('auth.accounts', 'password_hash', 'SELECT') AND has_column_privilege('auth.accounts', 'email', 'SELECT')`); !got {
		t.Error("the reader's columns differ after the restoration")
	}

	// Without the setting, no role is created and an existing one is not changed.
	cfg.Reader = schema.Role{}
	wantNothingPlanned(t, cfg)
	apply(t, cfg)
	if n := query[int](t, url, `SELECT count(*)::integer FROM users.profiles`); n != 0 {
		t.Errorf("the reader counts %d profiles", n)
	}
}

func TestTheReaderMustNotBeAnotherRole(t *testing.T) {
	t.Parallel()
	cfg, _ := readerConfig(t)
	database := query[string](t, cfg.DatabaseURL, `SELECT current_database()`)
	for _, name := range []string{query[string](t, cfg.DatabaseURL, `SELECT current_user::text`), schema.RoleName(database, "auth")} {
		cfg.Reader = schema.Role{Name: name, Password: "reader"}
		if _, err := schema.Apply(t.Context(), cfg); err == nil {
			t.Errorf("the role %s was accepted as the reader", name)
		}
	}
	cfg.Reader = schema.Role{Password: "reader"}
	reader, auth := schema.RoleName(database, schema.Reader), schema.RoleName(database, "auth")
	exec(t, cfg.DatabaseURL, `GRANT "`+auth+`" TO "`+reader+`"; REVOKE SELECT (email) ON auth.accounts FROM "`+reader+`"`)
	if _, err := schema.Apply(t.Context(), cfg); err == nil {
		t.Error("a member of a service's role was accepted as the reader")
	}
}
