package operate

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"gatehouse/e2e/harness"
	"gatehouse/internal/pgtest"
)

const otherSecret = "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"

// everything describes what people make in a database, and its roles.
const everything = `
SELECT coalesce(string_agg(line, E'\n' ORDER BY line), '') FROM (
	SELECT format('schema %s %s', nspname, nspacl) AS line FROM pg_namespace WHERE nspname !~ '^pg_'
	UNION ALL
	SELECT format('relation %s %s %s %s', relnamespace::regnamespace, relname, relkind, relacl) FROM pg_class WHERE relnamespace::regnamespace::text !~ '^pg_'
	UNION ALL
	SELECT format('role %s', rolname) FROM pg_roles WHERE rolname LIKE current_database() || '%'
) AS lines`

func textOf(t *testing.T, conn *pgx.Conn, sql string) string {
	t.Helper()
	var text string
	if err := conn.QueryRow(t.Context(), sql).Scan(&text); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return text
}

// A made-up secret key, as a page once told people to export, doesn't reach the
// passwords of a system that has another.
func TestAnotherSecretKeyChangesNothing(t *testing.T) {
	t.Parallel()
	database := pgtest.Empty(t)
	right := []string{
		"DATABASE_URL=" + database, "GATEHOUSE_SECRET_KEY=" + harness.SecretKey, "GATEHOUSE_INTERNAL_KEY=" + harness.InternalKey,
		"GATEHOUSE_REGISTRATION=closed",
	}
	if status, said := harness.RunCommand(t, right, "schema", "apply"); status != 0 {
		t.Fatalf("schema apply: exit status %d, said %s", status, said)
	}
	harness.StartServe(t, database, append(right[:len(right):len(right)], "GATEHOUSE_ADMIN_EMAIL="+harness.AdminEmail, "GATEHOUSE_ADMIN_PASSWORD="+harness.AdminPassword))

	wrong := append(right[:len(right):len(right)], "GATEHOUSE_SECRET_KEY="+otherSecret, "GATEHOUSE_DATA_DIR="+t.TempDir(), "GATEHOUSE_LISTEN="+harness.FreeAddress(t))
	for _, command := range [][]string{{"schema", "plan"}, {"schema", "apply"}, {"schema", "status"}, {"up"}} {
		status, said := harness.RunCommand(t, wrong, command...)
		if status != harness.ExitUsage || !strings.Contains(said, "GATEHOUSE_SECRET_KEY: ") {
			t.Errorf("%v with another secret key: exit status %d, said %s", command, status, said)
		}
	}
	for _, url := range harness.ServiceLogins(t, database) {
		pgtest.Connect(t, url) // a connection that is opened after it
	}
	// The older key may stand second, and a database without keys takes any.
	if status, said := harness.RunCommand(t, append(right[:len(right):len(right)], "GATEHOUSE_SECRET_KEY="+harness.SecretKey+","+otherSecret), "schema", "status"); status != 0 {
		t.Errorf("schema status with both keys: exit status %d, said %s", status, said)
	}
	if status, said := harness.RunCommand(t, []string{"DATABASE_URL=" + pgtest.Empty(t), "GATEHOUSE_SECRET_KEY=" + otherSecret}, "schema", "apply"); status != 0 {
		t.Errorf("schema apply on a fresh database: exit status %d, said %s", status, said)
	}
}

// DATABASE_URL may be another project's: nothing is written there.
func TestADatabaseOfOthersIsLeftAlone(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		statements string
		says       []string
	}{
		"one like Supabase's": {
			`CREATE SCHEMA auth; CREATE TABLE auth.users (id uuid PRIMARY KEY, email text); CREATE SCHEMA users; CREATE TABLE users.profiles (id uuid)`,
			[]string{"the schema auth", "belongs to another program", "CREATE DATABASE gatehouse"},
		},
		"one with tables in public": {
			`CREATE TABLE public.orders (id integer)`, []string{"the database ", "public.orders", "GATEHOUSE_SHARE_DATABASE=true", "CREATE DATABASE gatehouse"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			database := pgtest.Empty(t)
			owner := pgtest.Connect(t, database)
			if _, err := owner.Exec(t.Context(), test.statements); err != nil {
				t.Fatal(err)
			}
			before := textOf(t, owner, everything)
			env := []string{"DATABASE_URL=" + database, "GATEHOUSE_SECRET_KEY=" + harness.SecretKey, "GATEHOUSE_DATA_DIR=" + t.TempDir(), "GATEHOUSE_LISTEN=" + harness.FreeAddress(t)}
			for _, command := range [][]string{nil, {"schema", "plan"}, {"schema", "apply"}, {"schema", "apply", "--allow-destructive"}} {
				status, said := harness.RunCommand(t, env, command...)
				if status != harness.ExitUsage || strings.Contains(said, "--allow-destructive") {
					t.Errorf("%v: exit status %d, said %s", command, status, said)
				}
				for _, want := range test.says {
					if !strings.Contains(said, want) {
						t.Errorf("%v: it doesn't say %q: %s", command, want, said)
					}
				}
			}
			if status, said := doctor(t, env); status != 1 || !strings.Contains(said, "BAD  DATABASE_URL: "+test.says[0]) {
				t.Errorf("doctor: exit status %d, said %s", status, said)
			}
			if after := textOf(t, owner, everything); after != before {
				t.Errorf("something was written: before\n%s\nafter\n%s", before, after)
			}
		})
	}
}

func TestASharedDatabaseIsUsedAfterAYes(t *testing.T) {
	t.Parallel()
	database := pgtest.Empty(t)
	if _, err := pgtest.Connect(t, database).Exec(t.Context(), `CREATE TABLE public.orders (id integer)`); err != nil {
		t.Fatal(err)
	}
	env := []string{"DATABASE_URL=" + database, "GATEHOUSE_SECRET_KEY=" + harness.SecretKey}
	if status, said := harness.RunCommand(t, append(env, "GATEHOUSE_SHARE_DATABASE=true"), "schema", "apply"); status != 0 {
		t.Fatalf("schema apply: exit status %d, said %s", status, said)
	}
	if status, said := harness.RunCommand(t, env, "schema", "status"); status != 0 {
		t.Errorf("schema status, once it is ours: exit status %d, said %s", status, said)
	}
}

// The index is built while the table has more than 64 MiB, and a change that would block it is
// refused at the command line.
func TestALargeTableIsNotBlockedByTheSchema(t *testing.T) {
	t.Parallel()
	database := pgtest.Empty(t)
	env := []string{"DATABASE_URL=" + database, "GATEHOUSE_SECRET_KEY=" + harness.SecretKey}
	if status, said := harness.RunCommand(t, env, "schema", "apply"); status != 0 {
		t.Fatalf("schema apply: exit status %d, said %s", status, said)
	}
	conn := pgtest.Connect(t, database)
	for _, statement := range []string{
		`DROP INDEX auth.audit_events_event_idx`,
		`ALTER TABLE auth.audit_events ALTER changed DROP NOT NULL`,
		`INSERT INTO auth.audit_events (id, event, outcome, user_agent) SELECT gen_random_uuid(), 'session.login', 'success', repeat('x', 1500) FROM generate_series(1, 50000)`,
	} {
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	_, said := harness.RunCommand(t, env, "schema", "plan")
	for _, part := range []string{"CREATE INDEX CONCURRENTLY", "-- Locks: SHARE UPDATE EXCLUSIVE on auth.audit_events, which blocks neither reads nor writes, while it builds an index of", "-- Blocks a large table, and refused without --allow-locking: ALTER TABLE"} {
		if !strings.Contains(said, part) {
			t.Errorf("schema plan said %s\nwant %q", said, part)
		}
	}
	if status, said := harness.RunCommand(t, env, "schema", "apply"); status == 0 || !strings.Contains(said, "--allow-locking") {
		t.Errorf("schema apply: exit status %d, said %s, want it refused", status, said)
	}
	if status, said := harness.RunCommand(t, env, "schema", "apply", "--allow-locking"); status != 0 {
		t.Errorf("schema apply --allow-locking: exit status %d, said %s", status, said)
	}
	if status, said := harness.RunCommand(t, env, "schema", "status"); status != 0 {
		t.Errorf("schema status: exit status %d, said %s", status, said)
	}
}
