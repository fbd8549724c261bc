package database_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"gatehouse/internal/database"
	"gatehouse/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func open(t *testing.T, url string) *database.Pool {
	t.Helper()
	pool, err := database.Open(t.Context(), url, "auth")
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(pool.Close)
	return database.Retrying(pool)
}

func exec(t *testing.T, url string, statements ...string) {
	t.Helper()
	conn, err := pgx.Connect(context.WithoutCancel(t.Context()), url)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	for _, statement := range statements {
		if _, err := conn.Exec(context.WithoutCancel(t.Context()), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
}

func name(t *testing.T, url string) string {
	t.Helper()
	config, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	return config.Database
}

// fill makes the pool open n connections.
func fill(t *testing.T, pool *database.Pool, n int, statement string) {
	t.Helper()
	var held []*pgxpool.Conn
	for range n {
		conn, err := pool.Acquire(t.Context())
		if err != nil {
			t.Fatalf("acquire: %v", err)
		}
		held = append(held, conn)
		if statement == "" {
			continue
		}
		rows, err := conn.Query(t.Context(), statement, 1)
		if err != nil {
			t.Fatal(err)
		}
		rows.Close()
		if rows.Err() != nil {
			t.Fatal(rows.Err())
		}
	}
	for _, conn := range held {
		conn.Release()
	}
}

// eventually calls try until it returns nil.
func eventually(t *testing.T, limit time.Duration, what string, try func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: after %s still %v", what, limit, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Not parallel: it turns the whole server read-only.
func TestReadOnlyConnectionsAreReplaced(t *testing.T) {
	db := pgtest.New(t)
	exec(t, db.Owner, "CREATE TABLE auth.written (n int)", "GRANT INSERT, SELECT ON auth.written TO PUBLIC")
	pool := open(t, db.Auth)
	fill(t, pool, 5, "")
	write := func() error {
		_, err := pool.Exec(t.Context(), "INSERT INTO auth.written VALUES ($1)", 1)
		return err
	}
	if err := write(); err != nil {
		t.Fatalf("write before: %v", err)
	}
	set := func(value string) {
		exec(t, db.Owner, "ALTER SYSTEM SET default_transaction_read_only = "+value, "SELECT pg_reload_conf()")
	}
	t.Cleanup(func() { set("off") })
	// Some connections are in use at the switch.
	held, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(held.Release) // closing the pool waits for it
	set("on")
	eventually(t, 20*time.Second, "the kept sessions take no writes", func() error {
		err := write()
		if err == nil {
			return errors.New("a write went through")
		}
		return nil
	})
	eventually(t, 20*time.Second, "the server is refused at connect time", func() error {
		if err := write(); !errors.Is(err, database.ErrReadOnly) {
			return fmt.Errorf("got %v, want ErrReadOnly", err)
		}
		return nil
	})
	if idle := pool.Stat().IdleConns(); idle != 0 {
		t.Errorf("the pool still has %d read-only connections", idle)
	}
	held.Release()
	if _, err := database.Open(t.Context(), db.Auth, "auth"); !errors.Is(err, database.ErrReadOnly) {
		t.Errorf("Open = %v, want ErrReadOnly", err)
	}
	set("off")
	eventually(t, 20*time.Second, "writes succeed again", write)
}

// Not parallel: it turns the whole server read-only.
func TestAURLMayAskForAReadOnlyServer(t *testing.T) {
	db := pgtest.New(t)
	exec(t, db.Owner, "ALTER DATABASE "+name(t, db.Owner)+" SET default_transaction_read_only = on")
	for _, attrs := range []string{"any", "read-only"} {
		pool := open(t, withParameter(db.Auth, "target_session_attrs="+attrs))
		if err := pool.Ping(t.Context()); err != nil {
			t.Errorf("target_session_attrs=%s: %v", attrs, err)
		}
		if err := database.Writable(t.Context(), pool.Pool); !errors.Is(err, database.ErrReadOnly) {
			t.Errorf("target_session_attrs=%s: Writable = %v, want ErrReadOnly", attrs, err)
		}
	}
}

func withParameter(url, parameter string) string {
	if strings.Contains(url, "?") {
		return url + "&" + parameter
	}
	return url + "?" + parameter
}

func TestSessionSettingsOverrideThoseOfTheDatabase(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	config, err := pgx.ParseConfig(db.Auth)
	if err != nil {
		t.Fatal(err)
	}
	for _, odd := range []string{
		"default_transaction_isolation = serializable", "client_encoding = LATIN1", "search_path = public", "TimeZone = 'Asia/Tokyo'",
		"statement_timeout = '1h'", "lock_timeout = '1h'", "idle_in_transaction_session_timeout = 0",
	} {
		exec(t, db.Owner, "ALTER DATABASE "+config.Database+" SET "+odd, "ALTER ROLE "+config.User+" SET "+odd)
	}
	check := func(pool *database.Pool) {
		t.Helper()
		for _, want := range database.SessionSettings("auth") {
			var got string
			if err := pool.QueryRow(t.Context(), "SELECT current_setting($1)", want.Name).Scan(&got); err != nil || got != want.Value {
				t.Errorf("%s = %q, %v; want %q", want.Name, got, err, want.Value)
			}
		}
	}
	check(open(t, db.Auth))
	// Like behind a pooler, which refuses most settings of a client.
	plain, err := pgxpool.New(t.Context(), db.Auth)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(plain.Close)
	check(database.Retrying(plain))
	// And without the settings of the role.
	exec(t, db.Owner, "ALTER ROLE "+config.User+" IN DATABASE "+config.Database+" RESET ALL")
	check(open(t, db.Auth))
	// A URL may override only the timeouts.
	pool := open(t, withParameter(withParameter(db.Auth, "statement_timeout=7000"), "default_transaction_isolation=serializable"))
	var timeout, isolation string
	err = pool.QueryRow(t.Context(), "SELECT current_setting('statement_timeout'), current_setting('transaction_isolation')").Scan(&timeout, &isolation)
	if err != nil || timeout != "7s" || isolation != "read committed" {
		t.Errorf("statement_timeout = %q, isolation = %q, %v", timeout, isolation, err)
	}
}

func TestAStalePlanIsRetried(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	exec(t, db.Owner, "CREATE TABLE auth.things (n int, text text)", "GRANT ALL ON auth.things TO PUBLIC", "INSERT INTO auth.things VALUES (1, 'one')")
	const statement = "SELECT text FROM auth.things WHERE n = $1"
	change := func(size int) {
		exec(t, db.Owner, fmt.Sprintf("ALTER TABLE auth.things ALTER COLUMN text TYPE varchar(%d)", size))
	}
	for what, read := range map[string]func(*database.Pool) (string, error){
		"QueryRow": func(pool *database.Pool) (text string, err error) {
			err = pool.QueryRow(t.Context(), statement, 1).Scan(&text)
			return text, err
		},
		"Query": func(pool *database.Pool) (string, error) {
			rows, err := pool.Query(t.Context(), statement, 1)
			if err != nil {
				return "", err
			}
			return pgx.CollectExactlyOneRow(rows, pgx.RowTo[string])
		},
		"Exec": func(pool *database.Pool) (string, error) {
			tag, err := pool.Exec(t.Context(), statement, 1)
			return map[int64]string{1: "one"}[tag.RowsAffected()], err
		},
		"TransactBatch": func(pool *database.Pool) (text string, err error) {
			err = pool.TransactBatch(t.Context(), func(batch *pgx.Batch) error {
				batch.Queue(statement, 1).QueryRow(func(row pgx.Row) error { return row.Scan(&text) })
				return nil
			})
			return text, err
		},
		"Transact": func(pool *database.Pool) (text string, err error) {
			err = pool.Transact(t.Context(), func(tx pgx.Tx) error { return tx.QueryRow(t.Context(), statement, 1).Scan(&text) })
			return text, err
		},
	} {
		pool := open(t, db.Auth)
		fill(t, pool, 12, statement)
		change(50 + len(what))
		for range 12 {
			if text, err := read(pool); err != nil || text != "one" {
				t.Errorf("%s = %q, %v", what, text, err)
			}
		}
		// They are released in the background.
		eventually(t, 20*time.Second, what+" gives its connections back", func() error {
			if n := pool.Stat().AcquiredConns(); n != 0 {
				return fmt.Errorf("%d are in use", n)
			}
			return nil
		})
	}
}

func TestAnAbortedTransactionIsRetried(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	exec(t, db.Owner, "CREATE TABLE auth.counters (id int, n int)", "GRANT ALL ON auth.counters TO PUBLIC", "INSERT INTO auth.counters VALUES (1, 0), (2, 0)")
	pool := open(t, db.Auth)
	var tries atomic.Int64
	var group, locked sync.WaitGroup
	// Each locks one row before either locks the other's. Postgres takes a second to
	// notice a deadlock, so there is only one.
	locked.Add(2)
	for i := range 2 {
		first, second := 1+i, 2-i
		group.Go(func() {
			bothLocked := sync.OnceFunc(func() { locked.Done(); locked.Wait() }) // not in a retry
			err := pool.Transact(t.Context(), func(tx pgx.Tx) error {
				tries.Add(1)
				const increment = "UPDATE auth.counters SET n = n + 1 WHERE id = $1"
				_, err := tx.Exec(t.Context(), increment, first)
				bothLocked()
				if err == nil {
					_, err = tx.Exec(t.Context(), increment, second)
				}
				return err
			})
			if err != nil {
				t.Errorf("Transact: %v", err)
			}
		})
	}
	group.Wait()
	var one, two int
	err := pool.QueryRow(t.Context(), "SELECT min(n), max(n) FROM auth.counters").Scan(&one, &two)
	if err != nil || one != 2 || two != 2 {
		t.Errorf("counters = %d and %d, %v; want 2 each", one, two, err)
	}
	if tries.Load() <= 2 {
		t.Error("no transaction was aborted, so nothing was tested")
	}
}

func TestACallWaitsWhilePostgresHasTooManyConnections(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	config, err := pgx.ParseConfig(db.Auth)
	if err != nil {
		t.Fatal(err)
	}
	pool := open(t, db.Auth)
	exec(t, db.Owner, "ALTER ROLE "+config.User+" CONNECTION LIMIT 2")
	var group sync.WaitGroup
	for range 12 {
		group.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			if _, err := pool.Exec(ctx, "SELECT pg_sleep($1)", 0.05); err != nil {
				t.Errorf("Exec: %v", err)
			}
			err := pool.Transact(ctx, func(tx pgx.Tx) error {
				_, err := tx.Exec(ctx, "SELECT pg_sleep($1)", 0.05)
				return err
			})
			if err != nil {
				t.Errorf("Transact: %v", err)
			}
		})
	}
	group.Wait()
	// Until its deadline.
	exec(t, db.Owner, "ALTER ROLE "+config.User+" CONNECTION LIMIT 0")
	pool.Reset()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := pool.QueryRow(ctx, "SELECT 1").Scan(new(int)); err == nil {
		t.Error("Acquire returned a connection")
	}
	if ctx.Err() == nil {
		t.Error("the call failed before its deadline")
	}
}

func TestADatabaseOfAnotherEncodingIsRefused(t *testing.T) {
	t.Parallel()
	url := pgtest.EmptyAs(t, "ENCODING 'LATIN1' LOCALE 'C'")
	_, err := database.Open(t.Context(), url, "auth")
	for _, part := range []string{name(t, url), "LATIN1", "createdb --encoding=UTF8"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("Open = %v, want an error with %q", err, part)
		}
	}
}

func TestASingleConnectionAcceptsAPoolsURL(t *testing.T) {
	t.Parallel()
	config, err := database.ParseConfig(withParameter(pgtest.Empty(t), "pool_max_conns=4"))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	defer conn.Close(t.Context())
	if n, err := database.MaxConns(withParameter("postgres://localhost/x", "pool_max_conns=4")); n != 4 || err != nil {
		t.Errorf("MaxConns = %d, %v; want 4", n, err)
	}
}

// Not parallel: it sets the environment.
func TestTheEnvironmentDoesNotOverrideAURL(t *testing.T) {
	db := pgtest.New(t)
	for name, value := range map[string]string{
		"PGSERVICE": "elsewhere", "PGOPTIONS": "-c search_path=nowhere", "PGTARGETSESSIONATTRS": "standby", "PGTZ": "Mars/Base",
		"PGAPPNAME": "stray", "PGCONNECT_TIMEOUT": "soon", "PGHOST": "db.invalid", "PGPORT": "1", "PGUSER": "nobody", "PGDATABASE": "none",
		"PGSSLMODE": "verify-full", "PGSSLROOTCERT": "/nowhere/ca.pem", "PGREQUIREAUTH": "none", "PGCHANNELBINDING": "require",
		"PGSSLNEGOTIATION": "direct", "PGMINPROTOCOLVERSION": "9",
	} {
		t.Setenv(name, value)
	}
	pool := open(t, db.Auth)
	var application string
	if err := pool.QueryRow(t.Context(), "SELECT current_setting('application_name')").Scan(&application); err != nil || application != "gatehouse auth" {
		t.Errorf("application_name = %q, %v", application, err)
	}
	if _, err := database.ParseConfig(db.Owner); err != nil {
		t.Errorf("ParseConfig: %v", err)
	}
}
