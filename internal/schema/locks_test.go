package schema_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"gatehouse/internal/pgtest"
	"gatehouse/internal/schema"
)

const lockedTables = `
CREATE TABLE auth.owners (id integer NOT NULL, CONSTRAINT owners_pkey PRIMARY KEY (id));
CREATE TABLE auth.notes (id integer NOT NULL, owner integer, body varchar(20), price numeric(10, 2), seen boolean, CONSTRAINT notes_price_positive CHECK (price > 0));
CREATE INDEX notes_seen_idx ON auth.notes (seen);`

// withRows returns the configuration for a database whose tables auth.notes and auth.owners
// have rows, and are large.
func withRows(t *testing.T) schema.Config {
	t.Helper()
	cfg := with(config(t), 1001, lockedTables)
	cfg.DevURL = pgtest.Empty(t) // faster than a scratch database
	cfg.LargeTable = 1
	apply(t, cfg)
	exec(t, cfg.DatabaseURL, `INSERT INTO auth.owners SELECT generate_series(1, 100)`,
		`INSERT INTO auth.notes SELECT i, 1, 'a note', i, true FROM generate_series(1, 100) AS i`)
	return cfg
}

// held returns the strongest mode of lock that a transaction holds on auth.notes.
const held = `
SELECT coalesce((
	SELECT upper(regexp_replace(regexp_replace(mode, 'Lock$', ''), '(?<=[a-z])(?=[A-Z])', ' ', 'g'))
	FROM pg_locks
	WHERE pid = pg_backend_pid() AND relation = 'auth.notes'::regclass
	ORDER BY array_position(ARRAY['AccessExclusiveLock', 'ExclusiveLock', 'ShareRowExclusiveLock', 'ShareLock', 'ShareUpdateExclusiveLock'], mode)
	LIMIT 1), '')`

const storedIn = `SELECT pg_relation_filenode('auth.notes')`

func TestAPlanNamesTheLockOfEachStatement(t *testing.T) {
	t.Parallel()
	cfg := withRows(t)
	for _, test := range []struct{ change, mode, work string }{
		{"ALTER TABLE auth.notes ADD COLUMN extra text NOT NULL DEFAULT 'none';", "ACCESS EXCLUSIVE", ""},
		{"ALTER TABLE auth.notes ADD COLUMN made timestamptz NOT NULL DEFAULT now();", "ACCESS EXCLUSIVE", ""},
		{"ALTER TABLE auth.notes ADD COLUMN token uuid NOT NULL DEFAULT gen_random_uuid();", "ACCESS EXCLUSIVE", "rewrites every row"},
		{"ALTER TABLE auth.notes ADD COLUMN made timestamptz NOT NULL DEFAULT clock_timestamp();", "ACCESS EXCLUSIVE", "rewrites every row"},
		{"ALTER TABLE auth.notes ADD COLUMN nr bigint GENERATED ALWAYS AS IDENTITY;", "ACCESS EXCLUSIVE", "rewrites every row"},
		{"ALTER TABLE auth.notes ADD COLUMN twice integer GENERATED ALWAYS AS (id * 2) STORED;", "ACCESS EXCLUSIVE", "rewrites every row"},
		{"ALTER TABLE auth.notes ALTER id TYPE bigint;", "ACCESS EXCLUSIVE", "rewrites every row"},
		{"ALTER TABLE auth.notes ALTER price TYPE numeric(12, 3);", "ACCESS EXCLUSIVE", "rewrites every row"},
		{"ALTER TABLE auth.notes ALTER price TYPE numeric(12, 2);", "ACCESS EXCLUSIVE", ""},
		{"ALTER TABLE auth.notes ALTER body TYPE text;", "ACCESS EXCLUSIVE", ""},
		{"ALTER TABLE auth.notes ALTER owner SET NOT NULL;", "ACCESS EXCLUSIVE", "reads every row"},
		{"ALTER TABLE auth.notes ALTER id DROP NOT NULL;", "ACCESS EXCLUSIVE", ""},
		{"ALTER TABLE auth.notes ALTER body SET DEFAULT 'a';", "ACCESS EXCLUSIVE", ""},
		{"ALTER TABLE auth.notes ADD CONSTRAINT notes_body_known CHECK (body <> '');", "ACCESS EXCLUSIVE", "reads every row"},
		{"ALTER TABLE auth.notes DROP CONSTRAINT notes_price_positive;", "ACCESS EXCLUSIVE", ""},
		{"ALTER TABLE auth.notes ADD CONSTRAINT notes_owner FOREIGN KEY (owner) REFERENCES auth.owners (id);", "SHARE ROW EXCLUSIVE", "reads every row"},
		{"ALTER TABLE auth.notes ADD CONSTRAINT notes_pkey PRIMARY KEY (id);", "ACCESS EXCLUSIVE", "builds an index"},
		{"ALTER TABLE auth.notes ADD CONSTRAINT notes_once UNIQUE (id);", "ACCESS EXCLUSIVE", "builds an index"},
		{"DROP INDEX auth.notes_seen_idx;", "ACCESS EXCLUSIVE", ""},
		{"COMMENT ON TABLE auth.notes IS 'of people';", "SHARE UPDATE EXCLUSIVE", ""},
		{"ALTER TABLE auth.notes SET (fillfactor = 70);", "SHARE UPDATE EXCLUSIVE", ""},
		{"DROP TABLE auth.notes;", "ACCESS EXCLUSIVE", ""},
	} {
		proposal := plan(t, with(cfg, 1002, test.change))
		if len(proposal.Statements) != 1 || len(proposal.Locks) != 1 || proposal.Locks[0] == nil {
			t.Errorf("%s: Plan = %q with the locks %v, want one statement with one lock", test.change, proposal.Statements, proposal.Locks)
			continue
		}
		lock := *proposal.Locks[0]
		if lock.Table != "auth.notes" || lock.Mode != test.mode || lock.Work != test.work || !lock.Large {
			t.Errorf("%s: lock = %+v, want %s on the large auth.notes, work %q", test.change, lock, test.mode, test.work)
		}
		if refused := len(proposal.Locking) == 1; refused != (test.work != "") {
			t.Errorf("%s: Locking = %q, want it refused only for work on every row", test.change, proposal.Locking)
		}
		wantLockOfPostgres(t, cfg, proposal.Statements[0], lock)
	}
}

// wantLockOfPostgres executes a statement in a transaction that it rolls back, and compares
// the lock that Postgres takes and whether it rewrites the table.
func wantLockOfPostgres(t *testing.T, cfg schema.Config, statement string, want schema.Lock) {
	t.Helper()
	conn := pgtest.Connect(t, cfg.DatabaseURL)
	defer conn.Close(t.Context())
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(t.Context())
	var before, after uint32
	var mode string
	table := want.Table == "auth.notes" && !strings.HasPrefix(statement, "DROP TABLE")
	if table {
		err = tx.QueryRow(t.Context(), storedIn).Scan(&before)
	}
	if err == nil {
		_, err = tx.Exec(t.Context(), statement)
	}
	if err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
	if !table {
		return
	}
	if err := tx.QueryRow(t.Context(), held).Scan(&mode); err != nil {
		t.Fatal(err)
	}
	if err := tx.QueryRow(t.Context(), storedIn).Scan(&after); err != nil {
		t.Fatal(err)
	}
	if mode != want.Mode {
		t.Errorf("%s: Postgres holds %q, the plan says %q", statement, mode, want.Mode)
	}
	if rewritten := before != after; rewritten != (want.Work == "rewrites every row") {
		t.Errorf("%s: rewritten is %v, the plan says %q", statement, rewritten, want.Work)
	}
}

func TestLockingALargeTableNeedsPermission(t *testing.T) {
	t.Parallel()
	cfg := withRows(t)
	next := with(cfg, 1002, `ALTER TABLE auth.notes ADD CONSTRAINT notes_body_known CHECK (body <> ''); CREATE TABLE auth.others (id integer);`)
	_, err := schema.Apply(t.Context(), next)
	if refused, ok := errors.AsType[*schema.LockingError](err); !ok || len(refused.Changes) != 1 {
		t.Fatalf("Apply = %v, want it to refuse one change", err)
	}
	wantError(t, err, "notes_body_known", "ACCESS EXCLUSIVE on auth.notes, which blocks reads and writes, while it reads every row", "--allow-locking")
	wantNothingPlanned(t, cfg)

	small := next
	small.LargeTable = 1 << 20
	if p := plan(t, small); len(p.Locking) != 0 {
		t.Errorf("a table below the limit: Locking = %q, want none", p.Locking)
	}
	next.AllowLocking = true
	if result := apply(t, next); result.Number != 1002 {
		t.Errorf("Apply with permission = number %d, want 1002", result.Number)
	}
	wantNothingPlanned(t, next)
}

// The rows of a large table can be written while its index is built, which a transaction that
// has written before holds up.
func TestAnIndexOfALargeTableBlocksNoWrites(t *testing.T) {
	t.Parallel()
	cfg := withRows(t)
	writer := pgtest.Connect(t, cfg.DatabaseURL)
	tx, err := writer.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `INSERT INTO auth.notes VALUES (1001, 1, 'before', 1, true)`); err != nil {
		t.Fatal(err)
	}
	next := with(cfg, 1002, `ALTER TABLE auth.notes ADD COLUMN extra text; CREATE INDEX notes_extra_idx ON auth.notes (extra, body);`)
	planned := plan(t, next)
	if last := planned.Statements[len(planned.Statements)-1]; !strings.HasPrefix(last, `CREATE INDEX CONCURRENTLY "notes_extra_idx"`) {
		t.Errorf("the plan ends with %q, want the concurrent index", last)
	}

	// The column needs the table for a moment, so the transaction ends first.
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	column := with(cfg, 1002, `ALTER TABLE auth.notes ADD COLUMN extra text;`)
	apply(t, column)
	next = with(cfg, 1003, `ALTER TABLE auth.notes ADD COLUMN extra text; CREATE INDEX notes_extra_idx ON auth.notes (extra, body);`)
	if tx, err = writer.Begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `INSERT INTO auth.notes VALUES (1002, 1, 'before', 1, true)`); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	var result schema.Result
	go func() {
		var err error
		result, err = schema.Apply(t.Context(), next)
		done <- err
	}()
	waitForQuery(t, cfg.DatabaseURL, `SELECT EXISTS (SELECT FROM pg_stat_progress_create_index WHERE datname = current_database() AND phase LIKE 'waiting%')`)
	exec(t, cfg.DatabaseURL, `SET statement_timeout = '20s'`, `INSERT INTO auth.notes VALUES (1003, 1, 'meanwhile', 1, true)`)
	if got := query[int](t, cfg.DatabaseURL, `SELECT number FROM auth.applied_schema`); got != 1002 {
		t.Errorf("the stored number is %d before the index is complete, want 1002", got)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatalf("Apply: %v", err)
	}
	if result.Number != 1003 || len(result.Statements) != 1 || !query[bool](t, cfg.DatabaseURL, `SELECT indisvalid FROM pg_index WHERE indexrelid = 'auth.notes_extra_idx'::regclass`) {
		t.Errorf("Apply = %+v, want number 1003 and a valid index", result)
	}
	wantNothingPlanned(t, next)
}

// waitForQuery waits until a query returns true.
func waitForQuery(t *testing.T, databaseURL, sql string) {
	t.Helper()
	conn := pgtest.Connect(t, databaseURL)
	defer conn.Close(context.WithoutCancel(t.Context()))
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		var ok bool
		if err := conn.QueryRow(t.Context(), sql).Scan(&ok); err != nil {
			t.Fatal(err)
		}
		if ok {
			return
		}
	}
	t.Fatalf("not true within a minute: %s", sql)
}

func TestAnIndexThatFailedIsBuiltAgain(t *testing.T) {
	t.Parallel()
	cfg := withRows(t)
	exec(t, cfg.DatabaseURL, `UPDATE auth.notes SET owner = id`, `UPDATE auth.notes SET owner = 1 WHERE id = 2`)
	next := with(cfg, 1002, `CREATE UNIQUE INDEX notes_owner_key ON auth.notes (owner);`)
	_, err := schema.Apply(t.Context(), next)
	wantError(t, err, "notes_owner_key", "could not create unique index")
	if !query[bool](t, cfg.DatabaseURL, `SELECT NOT indisvalid FROM pg_index WHERE indexrelid = 'auth.notes_owner_key'::regclass`) {
		t.Fatal("no invalid index is left: the test needs one")
	}
	if state, err := schema.Status(t.Context(), next); err != nil || state.Stored != 1001 || len(state.Pending.Statements) != 2 {
		t.Errorf("Status = %+v, %v, want number 1001 and the statements that replace the index", state, err)
	}
	exec(t, cfg.DatabaseURL, `UPDATE auth.notes SET owner = 2 WHERE id = 2`)
	if result := apply(t, next); result.Number != 1002 {
		t.Errorf("Apply = number %d, want 1002", result.Number)
	}
	if !query[bool](t, cfg.DatabaseURL, `SELECT indisvalid AND indisunique FROM pg_index WHERE indexrelid = 'auth.notes_owner_key'::regclass`) {
		t.Error("the index isn't valid")
	}
	wantNothingPlanned(t, next)
}

// Between the drop of a unique index and the end of a concurrent build nothing would refuse
// duplicates.
func TestAUniqueIndexIsNotReplacedConcurrently(t *testing.T) {
	t.Parallel()
	cfg := withRows(t)
	first := with(cfg, 1002, `CREATE UNIQUE INDEX notes_id_key ON auth.notes (id);`)
	apply(t, first)
	next := with(cfg, 1003, `CREATE UNIQUE INDEX notes_id_key ON auth.notes (id, body);`)
	_, err := schema.Apply(t.Context(), next)
	if _, ok := errors.AsType[*schema.LockingError](err); !ok {
		t.Errorf("Apply = %v, want it refused", err)
	}
	next.AllowLocking = true
	apply(t, next)
	wantNothingPlanned(t, next)
}

func TestConcurrentAppliesOfAnIndex(t *testing.T) {
	t.Parallel()
	cfg := withRows(t)
	next := with(cfg, 1002, `CREATE INDEX notes_body_idx ON auth.notes (body); CREATE INDEX notes_price_idx ON auth.notes (price);`)
	next.DevURL = ""
	const processes = 4
	done := make(chan error, processes)
	for range processes {
		go func() {
			result, err := schema.Apply(t.Context(), next)
			if err == nil && result.Number != 1002 {
				err = fmt.Errorf("number %d", result.Number)
			}
			done <- err
		}()
	}
	for range processes {
		if err := <-done; err != nil {
			t.Errorf("Apply: %v", err)
		}
	}
	wantNothingPlanned(t, next)
}

// A statement waits briefly for a lock, so that callers of the table do not queue behind it,
// and the transaction is repeated.
func TestApplyRepeatsAfterALockTimeout(t *testing.T) {
	t.Parallel()
	cfg := withRows(t)
	reader := pgtest.Connect(t, cfg.DatabaseURL)
	tx, err := reader.BeginTx(t.Context(), pgx.TxOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `SELECT FROM auth.notes`); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := schema.Apply(t.Context(), with(cfg, 1002, `ALTER TABLE auth.notes ADD COLUMN extra text;`))
		done <- err
	}()
	const waiting = `EXISTS (SELECT FROM pg_locks WHERE relation = 'auth.notes'::regclass AND NOT granted)`
	for range 2 {
		waitForQuery(t, cfg.DatabaseURL, `SELECT `+waiting)
		waitForQuery(t, cfg.DatabaseURL, `SELECT NOT `+waiting)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("Apply = %v, want it to succeed once the lock is free", err)
	}
}
