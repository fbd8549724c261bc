package pgtest_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"gatehouse/internal/pgtest"
	"gatehouse/internal/schema"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func queryText(t *testing.T, databaseURL, sql string) string {
	t.Helper()
	rows, err := pgtest.Connect(t, databaseURL).Query(t.Context(), sql)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	text, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return text
}

func TestNewAppliesTheSchema(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	cfg := schema.Config{
		SQL:         pgtest.SchemaSQL(t),
		DatabaseURL: db.Owner,
		Roles:       map[string]schema.Role{"auth": {Password: "auth"}, "users": {Password: "users"}},
	}
	state, err := schema.Status(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if !state.Converged() {
		t.Errorf("the database of New lacks %q", state.Pending.Statements)
	}
	for service, u := range map[string]string{"auth": db.Auth, "users": db.Users} {
		if err := schema.Ready(t.Context(), pgtest.Pool(t, u), service, state.Number); err != nil {
			t.Errorf("%s: %v", service, err)
		}
	}
}

func TestDatabasesOfParallelTestsAreApart(t *testing.T) {
	t.Parallel()
	for i := range 6 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t)
			conn := pgtest.Connect(t, db.Users)
			if _, err := conn.Exec(t.Context(), `INSERT INTO users.tombstones (id, account_version) VALUES (gen_random_uuid(), $1)`, i); err != nil {
				t.Fatal(err)
			}
			want := fmt.Sprintf("{%d}", i)
			if got := queryText(t, db.Owner, `SELECT array_agg(account_version)::text FROM users.tombstones`); got != want {
				t.Errorf("the tombstones are %s, want %s", got, want)
			}
		})
	}
}

func TestEmptyIsEmpty(t *testing.T) {
	t.Parallel()
	u := pgtest.Empty(t)
	const schemas = `SELECT string_agg(nspname, ',') FROM pg_namespace WHERE nspname NOT LIKE 'pg\_%' AND nspname <> 'information_schema'`
	if got := queryText(t, u, schemas); got != "public" {
		t.Errorf("an empty database has the schemas %s, want public", got)
	}
	if got := queryText(t, u, `SELECT count(*)::text FROM pg_class WHERE relnamespace = 'public'::regnamespace`); got != "0" {
		t.Errorf("an empty database has %s relations, want 0", got)
	}
}

func TestDatabasesAndRolesEndWithTheirTest(t *testing.T) {
	t.Parallel()
	var name string
	t.Run("a test", func(t *testing.T) {
		db := pgtest.New(t)
		name = queryText(t, db.Owner, `SELECT current_database()`)
		// One that is still at work doesn't keep the database.
		conn, err := pgx.Connect(t.Context(), db.Auth)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close(t.Context()) })
	})
	left := queryText(t, pgtest.Empty(t), `SELECT count(*)::text FROM (
		SELECT datname FROM pg_database WHERE datname = '`+name+`'
		UNION ALL SELECT rolname FROM pg_roles WHERE rolname LIKE '`+name+`%') AS rest`)
	if left != "0" {
		t.Errorf("%s databases and roles of the test %s are left", left, name)
	}
}

// TestChild is what the tests below run in a process of its own.
func TestChild(t *testing.T) {
	if os.Getenv("PGTEST_CHILD") == "" {
		t.Skip("runs in a child only")
	}
	fmt.Println("child:", pgtest.New(t).Owner)
}

func child(t *testing.T, environment ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestChild$")
	cmd.Env = append(os.Environ(), append(environment, "PGTEST_CHILD=1")...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("the child: %v\n%s", err, out)
	}
	_, line, _ := strings.Cut(string(out), "child: ")
	line, _, _ = strings.Cut(line, "\n")
	return line
}

func TestMainRemovesTheCluster(t *testing.T) {
	t.Parallel()
	owner := child(t, "GATEHOUSE_TEST_DATABASE_URL=")
	cfg, err := pgx.ParseConfig(owner)
	if err != nil {
		t.Fatal(err)
	}
	dir := regexp.MustCompile(`^.*/gatehouse-pgtest-[^/]*`).FindString(cfg.Host)
	if dir == "" {
		t.Fatalf("the cluster of %s is in an unexpected folder", cfg.Host)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is left (%v)", dir, err)
	}
	if conn, err := pgx.Connect(t.Context(), owner); err == nil {
		conn.Close(t.Context())
		t.Error("the child's Postgres still runs")
	}
}

func TestAGivenServerIsUsedAndLeftClean(t *testing.T) {
	t.Parallel()
	server := pgtest.Empty(t)
	owner := child(t, "GATEHOUSE_TEST_DATABASE_URL="+server)
	given, err := pgx.ParseConfig(server)
	if err != nil {
		t.Fatal(err)
	}
	used, err := pgx.ParseConfig(owner)
	if err != nil {
		t.Fatal(err)
	}
	if used.Host != given.Host || used.Database == given.Database {
		t.Errorf("the child used %s, want another database on %s", owner, server)
	}
	if n := queryText(t, server, `SELECT count(*)::text FROM pg_database WHERE datname = '`+used.Database+`'`); n != "0" {
		t.Errorf("the child left its database %s", used.Database)
	}
	if n := queryText(t, server, `SELECT count(*)::text FROM pg_roles WHERE rolname LIKE '`+used.Database+`%'`); n != "0" {
		t.Errorf("the child left %s roles", n)
	}
}

func BenchmarkNew(b *testing.B) {
	pgtest.New(b) // starts the server and makes the template
	for b.Loop() {
		pgtest.New(b)
	}
}
