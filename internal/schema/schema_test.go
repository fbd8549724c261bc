package schema_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"gatehouse/internal/pgtest"
	"gatehouse/internal/schema"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// config returns the configuration for an empty database and the schema.sql of the tree.
func config(t *testing.T) schema.Config {
	t.Helper()
	return configFor(t, pgtest.Empty(t))
}

func configFor(t *testing.T, databaseURL string) schema.Config {
	t.Helper()
	return schema.Config{
		SQL:         pgtest.SchemaSQL(t),
		DatabaseURL: databaseURL,
		Roles:       map[string]schema.Role{"auth": {Password: "for auth"}, "users": {Password: "for users"}},
	}
}

// appliedConfig returns the configuration for a database to which schema.sql was applied.
func appliedConfig(t *testing.T) schema.Config {
	t.Helper()
	cfg := configFor(t, pgtest.Tables(t))
	cfg.DevURL = pgtest.Empty(t) // faster than a scratch database
	apply(t, cfg)
	return cfg
}

// with returns cfg with a later schema.sql, which ends with change.
func with(cfg schema.Config, number int, change string) schema.Config {
	_, rest, _ := strings.Cut(cfg.SQL, "\n")
	cfg.SQL = fmt.Sprintf("-- schema number: %d\n%s\n%s\n", number, rest, change)
	return cfg
}

func apply(t *testing.T, cfg schema.Config) schema.Result {
	t.Helper()
	result, err := schema.Apply(t.Context(), cfg)
	if err != nil {
		t.Fatalf("Apply: %v", err)
	}
	return result
}

func plan(t *testing.T, cfg schema.Config) schema.Proposal {
	t.Helper()
	proposal, err := schema.Plan(t.Context(), cfg)
	if err != nil {
		t.Fatalf("Plan: %v", err)
	}
	return proposal
}

func wantNothingPlanned(t *testing.T, cfg schema.Config) {
	t.Helper()
	if p := plan(t, cfg); len(p.Statements) != 0 || len(p.Destructive) != 0 {
		t.Errorf("Plan = %q, destructive %q, want no changes", p.Statements, p.Destructive)
	}
}

func exec(t *testing.T, databaseURL string, statements ...string) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context()) // usable in a cleanup
	conn, err := pgx.Connect(ctx, databaseURL)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	defer conn.Close(ctx)
	for _, s := range statements {
		if _, err := conn.Exec(ctx, s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

func query[T any](t *testing.T, databaseURL, sql string, args ...any) T {
	t.Helper()
	conn := pgtest.Connect(t, databaseURL)
	defer conn.Close(t.Context())
	rows, err := conn.Query(t.Context(), sql, args...)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	value, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[T])
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return value
}

func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", parts)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q lacks %q", err, part)
		}
	}
}

const insertAccount = `INSERT INTO auth.accounts (id, email, password_hash) VALUES (gen_random_uuid(), 'ada@example.com', 'x')`

func TestApplyCreatesTheDeclaredState(t *testing.T) {
	t.Parallel()
	cfg := config(t)

	before, err := schema.Status(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if before.Stored != 0 || before.Converged() {
		t.Errorf("Status before = %+v, want nothing stored and not converged", before)
	}
	result := apply(t, cfg)
	number, _ := schema.Number(cfg.SQL)
	if result.Number != number || result.Newer {
		t.Errorf("Apply = number %d, newer %v, want %d, false", result.Number, result.Newer, number)
	}
	if !slices.Equal(result.Statements, before.Pending.Statements) {
		t.Errorf("Apply executed\n%q\nbut the plan was\n%q", result.Statements, before.Pending.Statements)
	}
	after, err := schema.Status(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if after.Stored != number || !after.Converged() {
		t.Errorf("Status after = %+v, want %d stored and converged", after, number)
	}
}

func TestApplyingTwiceChangesNothing(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	apply(t, cfg)
	wantNothingPlanned(t, cfg)
	const writes = `SELECT max(xmin::text::bigint) FROM (
		SELECT xmin FROM auth.applied_schema UNION ALL SELECT xmin FROM pg_class WHERE relnamespace = 'auth'::regnamespace
		UNION ALL SELECT xmin FROM pg_authid WHERE rolname LIKE current_database() || '%'
		UNION ALL SELECT xmin FROM pg_database WHERE datname = current_database()) AS x`
	before := query[int64](t, cfg.DatabaseURL, writes)

	result := apply(t, cfg)

	if len(result.Statements) != 0 {
		t.Errorf("the second Apply executed %q, want nothing", result.Statements)
	}
	if after := query[int64](t, cfg.DatabaseURL, writes); after != before {
		t.Errorf("the second Apply wrote: latest transaction %d, want %d", after, before)
	}
}

// A new installation executes schema.sql, an older database the statements of Atlas. They
// would differ in objects that Atlas does not support.
func TestANewInstallationEqualsAnUpgrade(t *testing.T) {
	t.Parallel()
	fresh, diffed := config(t), config(t)
	apply(t, fresh)
	exec(t, diffed.DatabaseURL, "CREATE SCHEMA users")
	apply(t, diffed)

	wantNothingPlanned(t, fresh)
	wantNothingPlanned(t, diffed)
	const hash = `SELECT encode(catalog_hash, 'hex') FROM auth.applied_schema`
	if a, b := query[string](t, fresh.DatabaseURL, hash), query[string](t, diffed.DatabaseURL, hash); a != b {
		t.Errorf("the catalog has hash %s after executing schema.sql, and %s after a diff", a, b)
	}
}

// A new installation would create an object of schema.sql that Atlas does not support, and
// an upgrade never would.
func TestSchemaSQLHasNoUnsupportedObjects(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.TablesOnly = true
	apply(t, cfg)
	const unseen = `
WITH ours AS (SELECT oid, nspname FROM pg_namespace WHERE nspname IN ('auth', 'users'))
SELECT coalesce(array_agg(what), '{}') FROM (
	SELECT 'relation ' || relname || ' of kind ' || relkind::text AS what FROM pg_class
	WHERE relnamespace IN (SELECT oid FROM ours)
		AND (relkind NOT IN ('r', 'i') OR relpersistence <> 'p' OR relispartition OR relrowsecurity OR relkind = 'i' AND reloptions IS NOT NULL)
	UNION ALL
	SELECT 'function ' || proname FROM pg_proc WHERE pronamespace IN (SELECT oid FROM ours)
	UNION ALL
	SELECT 'trigger ' || tgname FROM pg_trigger JOIN pg_class c ON c.oid = tgrelid
	WHERE NOT tgisinternal AND relnamespace IN (SELECT oid FROM ours)
	UNION ALL
	SELECT 'type ' || typname FROM pg_type
	WHERE typnamespace IN (SELECT oid FROM ours) AND typtype IN ('d', 'r')
	UNION ALL
	SELECT 'deferrable constraint ' || conname FROM pg_constraint
	WHERE connamespace IN (SELECT oid FROM ours) AND condeferrable
) AS unseen`
	if got := query[[]string](t, cfg.DatabaseURL, unseen); len(got) != 0 {
		t.Errorf("schema.sql creates objects that an upgrade would not create: %q", got)
	}
}

func TestApplyFollowsAChangedSchema(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	apply(t, cfg)
	exec(t, cfg.DatabaseURL, insertAccount)

	next := with(cfg, 1002, `
ALTER TABLE auth.accounts ADD COLUMN nickname varchar(20) NOT NULL DEFAULT 'none';
CREATE INDEX accounts_nickname_idx ON auth.accounts (nickname) WHERE status = 'active';
CREATE TABLE users.groups (id uuid NOT NULL, CONSTRAINT groups_pkey PRIMARY KEY (id));
COMMENT ON TABLE users.groups IS 'many together';`)
	planned := plan(t, next)
	result := apply(t, next)

	if result.Number != 1002 || !slices.Equal(result.Statements, planned.Statements) {
		t.Errorf("Apply = number %d, executing\n%q\nwant 1002 and\n%q", result.Number, result.Statements, planned.Statements)
	}
	wantNothingPlanned(t, next)
	if got := query[string](t, cfg.DatabaseURL, `SELECT nickname FROM auth.accounts`); got != "none" {
		t.Errorf("the account's nickname is %q, want the default", got)
	}
	exec(t, serviceURL(t, cfg, "users"), `INSERT INTO users.groups VALUES (gen_random_uuid())`)

	wider := with(cfg, 1003, `
ALTER TABLE auth.accounts ADD COLUMN nickname text NOT NULL DEFAULT 'none';
CREATE TABLE users.groups (id uuid NOT NULL, CONSTRAINT groups_pkey PRIMARY KEY (id));`)
	if p := plan(t, wider); len(p.Statements) == 0 || len(p.Destructive) != 0 {
		t.Errorf("Plan = %q, destructive %q, want statements and none destructive", p.Statements, p.Destructive)
	}
	apply(t, wider)
	wantNothingPlanned(t, wider)
}

const notes = `
CREATE TABLE auth.notes (id integer NOT NULL, body text, small varchar(20), price numeric(10, 2));
CREATE TABLE users.tags (id integer NOT NULL);`

func withNotes(t *testing.T) schema.Config {
	t.Helper()
	cfg := with(config(t), 1001, notes)
	cfg.DevURL = pgtest.Empty(t) // faster than a scratch database
	apply(t, cfg)
	exec(t, cfg.DatabaseURL, `INSERT INTO auth.notes VALUES (1, 'kept', 'short', 12.25)`, `INSERT INTO users.tags VALUES (1)`)
	return cfg
}

func TestDestructiveChangesNeedPermission(t *testing.T) {
	t.Parallel()
	cfg := withNotes(t)
	for _, test := range []struct {
		name   string
		change string
		want   []string
	}{
		{"a dropped table", "DROP TABLE users.tags;", []string{"table users.tags is dropped"}},
		{"two dropped tables", "DROP TABLE users.tags; DROP TABLE auth.notes;",
			[]string{"table auth.notes is dropped", "table users.tags is dropped"}},
		{"a dropped column", "ALTER TABLE auth.notes DROP COLUMN body;", []string{"column auth.notes.body is dropped"}},
		{"a renamed column", "ALTER TABLE auth.notes RENAME COLUMN body TO contents;", []string{"column auth.notes.body is dropped"}},
		{"a renamed table", "ALTER TABLE users.tags RENAME TO labels;", []string{"table users.tags is dropped"}},
		{"a shorter type", "ALTER TABLE auth.notes ALTER small TYPE varchar(10);",
			[]string{"column auth.notes.small changes from character varying(20) to character varying(10)"}},
		{"text that gets a length", "ALTER TABLE auth.notes ALTER body TYPE varchar(200);",
			[]string{"column auth.notes.body changes from text to character varying(200)"}},
		{"a smaller integer and fewer decimals", "ALTER TABLE auth.notes ALTER id TYPE smallint, ALTER price TYPE numeric(10, 1);",
			[]string{"column auth.notes.id changes from integer to smallint", "column auth.notes.price changes from numeric(10,2) to numeric(10,1)"}},
		{"more decimals in as many digits", "ALTER TABLE auth.notes ALTER price TYPE numeric(10, 3);",
			[]string{"column auth.notes.price changes from numeric(10,2) to numeric(10,3)"}},
	} {
		_, err := schema.Apply(t.Context(), with(cfg, 1002, test.change))
		refused, ok := errors.AsType[*schema.DestructiveError](err)
		if !ok || !slices.Equal(refused.Changes, test.want) {
			t.Errorf("%s: Apply = %v, want it to refuse %q", test.name, err, test.want)
			continue
		}
		wantError(t, err, append(test.want, "--allow-destructive")...)
	}
	wantNothingPlanned(t, cfg)
	if got := query[string](t, cfg.DatabaseURL, `SELECT body FROM auth.notes JOIN users.tags USING (id)`); got != "kept" {
		t.Errorf("the note is %q after the refusals, want it unchanged", got)
	}

	all := with(cfg, 1003, `
ALTER TABLE auth.notes RENAME COLUMN body TO contents;
ALTER TABLE auth.notes ALTER small TYPE varchar(10), ALTER price TYPE numeric(10, 1), ALTER id TYPE smallint;
DROP TABLE users.tags;`)
	want := []string{
		"column auth.notes.body is dropped",
		"column auth.notes.id changes from integer to smallint",
		"column auth.notes.price changes from numeric(10,2) to numeric(10,1)",
		"column auth.notes.small changes from character varying(20) to character varying(10)",
		"table users.tags is dropped",
	}
	if got := plan(t, all).Destructive; !slices.Equal(slices.Sorted(slices.Values(got)), want) {
		t.Errorf("the destructive changes are %q, want %q", got, want)
	}
	all.AllowDestructive = true
	apply(t, all)
	wantNothingPlanned(t, all)
}

func TestHarmlessChangesNeedNoPermission(t *testing.T) {
	t.Parallel()
	cfg := withNotes(t)
	for i, change := range []string{
		"ALTER TABLE auth.notes ALTER id TYPE bigint, ALTER small TYPE varchar(30), ALTER price TYPE numeric(12, 3);",
		"ALTER TABLE auth.notes ALTER id TYPE numeric, ALTER small TYPE varchar, ALTER price TYPE numeric;",
		"ALTER TABLE auth.notes ALTER id TYPE numeric, ALTER small TYPE text, ALTER price TYPE numeric;",
		`DROP INDEX auth.sessions_prune_date_idx; ALTER TABLE auth.accounts ALTER status DROP DEFAULT, DROP CONSTRAINT accounts_status_known;
		ALTER TABLE auth.notes ALTER id TYPE numeric, ALTER id DROP NOT NULL, ALTER small TYPE text, ALTER price TYPE numeric;`,
	} {
		next := with(cfg, 1002+i, change)
		if p := plan(t, next); len(p.Statements) == 0 || len(p.Destructive) > 0 {
			t.Errorf("%s: Plan = %q, destructive %q, want statements and none destructive", change, p.Statements, p.Destructive)
		}
		if _, err := schema.Apply(t.Context(), next); err != nil {
			t.Errorf("%s: Apply = %v, want nil without permission", change, err)
		}
	}
	if got := query[string](t, cfg.DatabaseURL, `SELECT id || body || small || price FROM auth.notes`); got != "1keptshort12.250" {
		t.Errorf("the note is %q, want it unchanged", got)
	}
}

func TestApplyDoesNotTouchOtherSchemas(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.Shared = true
	reader := query[string](t, cfg.DatabaseURL, `SELECT current_database()`) + "_reader"
	exec(t, cfg.DatabaseURL,
		`CREATE ROLE `+reader,
		`CREATE SCHEMA shop`,
		`CREATE TABLE shop.orders (id integer PRIMARY KEY, note text)`,
		`CREATE VIEW shop.notes AS SELECT note FROM shop.orders`,
		`CREATE TABLE public.settings (name text)`,
		`CREATE FUNCTION shop.answer() RETURNS integer LANGUAGE sql RETURN 42`,
		`INSERT INTO shop.orders VALUES (1, 'theirs')`,
		`GRANT USAGE ON SCHEMA shop TO `+reader,
		`GRANT SELECT ON shop.orders TO `+reader)
	// Cleanups run in reverse order, so the database is dropped before the role.
	t.Cleanup(func() { dropRole(t, cfg.DatabaseURL, reader) })

	apply(t, cfg)
	exec(t, cfg.DatabaseURL, `GRANT USAGE ON SCHEMA users TO `+reader, `GRANT SELECT ON users.profiles TO `+reader)
	next := with(cfg, 1002, `CREATE TABLE users.groups (id uuid NOT NULL); DROP TABLE auth.account_outbox;`)
	next.AllowDestructive = true
	apply(t, next)

	wantNothingPlanned(t, next)
	if got := query[string](t, cfg.DatabaseURL, `SELECT note FROM shop.notes WHERE shop.answer() = 42`); got != "theirs" {
		t.Errorf("shop.notes = %q, want it unchanged", got)
	}
	if got := query[int](t, cfg.DatabaseURL, `SELECT count(*) FROM public.settings`); got != 0 {
		t.Errorf("public.settings has %d rows, want none", got)
	}
	const granted = `SELECT has_table_privilege($1, 'shop.orders', 'SELECT') AND has_table_privilege($1, 'users.profiles', 'SELECT')`
	if !query[bool](t, cfg.DatabaseURL, granted, reader) {
		t.Error("a grant to another role is gone")
	}
}

func TestAFailureLeavesNoPartialState(t *testing.T) {
	t.Parallel()
	t.Run("of a change", func(t *testing.T) {
		t.Parallel()
		cfg := config(t)
		apply(t, cfg)
		exec(t, cfg.DatabaseURL, insertAccount)
		// Only the last statement fails, because of existing rows.
		next := with(cfg, 1002, `
CREATE TABLE auth.badges (id uuid NOT NULL);
ALTER TABLE auth.accounts ADD COLUMN nickname text NOT NULL;`)
		_, err := schema.Apply(t.Context(), next)
		wantError(t, err, `"nickname"`, "null values")
		if query[bool](t, cfg.DatabaseURL, `SELECT to_regclass('auth.badges') IS NOT NULL`) {
			t.Error("the table auth.badges stayed")
		}
		wantNothingPlanned(t, cfg)
	})
	t.Run("of a fresh install", func(t *testing.T) {
		t.Parallel()
		cfg := config(t)
		_, err := schema.Apply(t.Context(), with(cfg, 1002, `ALTER TABLE auth.accounts ADD CONSTRAINT odd CHECK (no_such_column);`))
		wantError(t, err, "no_such_column")
		if n := query[int](t, cfg.DatabaseURL, `SELECT count(*) FROM pg_namespace WHERE nspname IN ('auth', 'users')`); n != 0 {
			t.Errorf("%d schemas remain", n)
		}
		if n := query[int](t, cfg.DatabaseURL, `SELECT count(*) FROM pg_roles WHERE rolname LIKE current_database() || '%'`); n != 0 {
			t.Errorf("%d roles remain", n)
		}
	})
	t.Run("to reach what is declared", func(t *testing.T) {
		t.Parallel()
		cfg := with(config(t), 1001, `CREATE TYPE auth.mood AS ENUM ('good', 'bad'); CREATE TABLE auth.moods (mood auth.mood NOT NULL);`)
		apply(t, cfg)
		next := with(config(t), 1002, `CREATE TYPE auth.mood AS ENUM ('good'); CREATE TABLE auth.moods (mood auth.mood NOT NULL);`)
		next.DatabaseURL = cfg.DatabaseURL
		_, err := schema.Apply(t.Context(), next)
		wantError(t, err, "enum auth.mood", `"bad"`)
		wantNothingPlanned(t, cfg)
	})
}

func TestConcurrentApplies(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	rounds := []schema.Config{cfg, with(cfg, 1002, `CREATE TABLE auth.badges (id uuid NOT NULL);`)}
	for i, cfg := range rounds {
		var workers sync.WaitGroup
		var workedCopies, results [6]int
		for copy := range results {
			workers.Go(func() {
				result, err := schema.Apply(t.Context(), cfg)
				if err != nil {
					t.Errorf("round %d, process %d: %v", i, copy, err)
				}
				workedCopies[copy], results[copy] = min(1, len(result.Statements)), result.Number
			})
		}
		workers.Wait()
		if sum := sum(workedCopies[:]); sum != 1 {
			t.Errorf("round %d: %d of them made changes, want one", i, sum)
		}
		number, _ := schema.Number(cfg.SQL)
		if results != [6]int{number, number, number, number, number, number} {
			t.Errorf("round %d: numbers %v, want %d from each", i, results, number)
		}
		wantNothingPlanned(t, cfg)
	}
}

func sum(list []int) (total int) {
	for _, n := range list {
		total += n
	}
	return total
}

// Guarantee 11.
func TestADatabaseWithALargerNumberIsNotChanged(t *testing.T) {
	t.Parallel()
	older := with(config(t), 1001, ``)
	newer := with(older, 1002, `CREATE TABLE users.groups (id uuid NOT NULL); ALTER TABLE auth.accounts ADD COLUMN nickname text;`)
	apply(t, older)
	apply(t, newer)

	older.AllowDestructive = true
	older.Roles = map[string]schema.Role{"auth": {Password: "another one"}, "users": older.Roles["users"]}
	result := apply(t, older)

	if !result.Newer || result.Number != 1002 || len(result.Statements) != 0 {
		t.Errorf("the older Apply = %+v, want number 1002 and no statements", result)
	}
	state, err := schema.Status(t.Context(), older)
	if err != nil {
		t.Fatal(err)
	}
	if !state.Newer() || state.Stored != 1002 || state.Number != 1001 || len(state.Pending.Statements) != 0 {
		t.Errorf("the older Status = %+v, want Newer and nothing pending", state)
	}
	wantNothingPlanned(t, newer)
}

func TestReadyComparesTheNumber(t *testing.T) {
	t.Parallel()
	cfg := with(config(t), 1002, ``)
	apply(t, cfg)
	for _, service := range []string{"auth", "users"} {
		conn := pgtest.Connect(t, serviceURL(t, cfg, service))
		for _, number := range []int{1001, 1002} {
			if err := schema.Ready(t.Context(), conn, service, number); err != nil {
				t.Errorf("Ready(%s, %d) = %v, want nil: the schema has number 1002", service, number, err)
			}
		}
		wantError(t, schema.Ready(t.Context(), conn, service, 1003), "1002", "1003", "gatehouse schema apply")
	}
	empty := pgtest.Connect(t, pgtest.Empty(t))
	wantError(t, schema.Ready(t.Context(), empty, "auth", 1), "never applied", "gatehouse schema apply")
	wantError(t, schema.Ready(t.Context(), empty, "bff", 1), "bff")
}

func TestADriftIsDetectedAndFixed(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.DevURL = pgtest.Empty(t) // faster than a scratch database
	apply(t, cfg)
	database := query[string](t, cfg.DatabaseURL, `SELECT current_database()`)
	for _, test := range []struct{ name, drift, want string }{
		{"a dropped table", `DROP TABLE users.tombstones`, `CREATE TABLE "users"."tombstones"`},
		{"a dropped schema", `DROP SCHEMA users CASCADE`, `CREATE SCHEMA "users"`},
		{"both schemas dropped", `DROP SCHEMA auth CASCADE; DROP SCHEMA users CASCADE`, "CREATE SCHEMA auth"},
		{"a dropped index", `DROP INDEX auth.sessions_live_idx`, `CREATE INDEX "sessions_live_idx"`},
		{"a storage parameter taken away", `ALTER TABLE auth.sessions RESET (fillfactor)`, "ALTER TABLE auth.sessions SET (fillfactor = 80)"},
		{"a dropped default", `ALTER TABLE auth.accounts ALTER status DROP DEFAULT`, "SET DEFAULT"},
		{"an index too many", `CREATE INDEX odd_idx ON auth.accounts (status)`, `DROP INDEX "auth"."odd_idx"`},
		{"a dropped check", `ALTER TABLE auth.accounts DROP CONSTRAINT accounts_status_known`, `ADD CONSTRAINT "accounts_status_known"`},
		{"a grant taken away", `REVOKE INSERT ON auth.accounts FROM $_auth`, "GRANT SELECT, INSERT"},
		{"a grant too many", `GRANT SELECT ON auth.accounts TO $_users`, "REVOKE ALL ON ALL TABLES"},
		{"a grant to everybody", `GRANT SELECT ON users.profiles TO PUBLIC`, "REVOKE ALL ON ALL TABLES"},
		{"the audit made mutable", `GRANT UPDATE ON auth.audit_events TO $_auth`, "REVOKE UPDATE, DELETE ON auth.audit_events"},
		{"attributes too many", `ALTER ROLE $_users CREATEDB SUPERUSER`, "NOSUPERUSER NOCREATEDB"},
		{"a role that may not sign in", `ALTER ROLE $_users NOLOGIN`, " LOGIN"},
		{"a search path", `ALTER ROLE $_auth IN DATABASE $ SET search_path = public`, "SET search_path = 'auth'"},
		{"an isolation", `ALTER ROLE $_users IN DATABASE $ SET default_transaction_isolation = serializable`, "SET default_transaction_isolation = 'read committed'"},
		{"a setting taken away", `ALTER ROLE $_users IN DATABASE $ RESET client_encoding`, "SET client_encoding = 'UTF8'"},
	} {
		exec(t, cfg.DatabaseURL, strings.ReplaceAll(test.drift, "$", database))
		planned := plan(t, cfg)
		if !strings.Contains(strings.Join(planned.Statements, "\n"), test.want) {
			t.Errorf("%s: Plan = %q, want it to contain %q", test.name, planned.Statements, test.want)
		}
		if result := apply(t, cfg); !slices.Equal(result.Statements, planned.Statements) {
			t.Errorf("%s: Apply executed\n%q\nbut the plan was\n%q", test.name, result.Statements, planned.Statements)
		}
		if result := apply(t, cfg); len(result.Statements) != 0 {
			t.Errorf("%s: the next Apply executed %q, want nothing", test.name, result.Statements)
		}
	}
	wantNothingPlanned(t, cfg)
}

func TestNumber(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		text string
		want int
		err  string
	}{
		{"-- schema number: 7\nCREATE SCHEMA auth;", 7, ""},
		{"-- a comment\r\n-- schema number: 12\r\nCREATE SCHEMA auth;", 12, ""},
		{"CREATE SCHEMA auth;", 0, "0 lines"},
		{"-- schema number: 1\n-- schema number: 2\n", 0, "2 lines"},
		{"-- schema number: 0\n", 0, "out of range"},
		{"-- schema number: 99999999999\n", 0, "out of range"},
	} {
		got, err := schema.Number(test.text)
		if got != test.want || (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("Number(%q) = %d, %v, want %d, %q", test.text, got, err, test.want, test.err)
		}
	}
}

func TestTheRepositorysSchemaHasANumber(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join("..", "..", "schema.sql"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := schema.Number(string(text)); err != nil {
		t.Error(err)
	}
}

// BenchmarkApplyUnchanged measures the cost of a start with an unchanged schema.
func BenchmarkApplyUnchanged(b *testing.B) {
	cfg := schema.Config{
		SQL:         pgtest.SchemaSQL(b),
		DatabaseURL: pgtest.Empty(b),
		Roles:       map[string]schema.Role{"auth": {Password: "for auth"}, "users": {Password: "for users"}},
	}
	for b.Loop() {
		if _, err := schema.Apply(b.Context(), cfg); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPlan measures a comparison of all tables, with a scratch database.
func BenchmarkPlan(b *testing.B) {
	cfg := schema.Config{SQL: pgtest.SchemaSQL(b), DatabaseURL: pgtest.New(b).Owner, TablesOnly: true}
	for b.Loop() {
		if _, err := schema.Plan(b.Context(), cfg); err != nil {
			b.Fatal(err)
		}
	}
}
