package database_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"gatehouse/internal/database"
	"gatehouse/internal/pgtest"
)

func TestABatchIsOneTransaction(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	exec(t, db.Owner, "CREATE TABLE auth.written (n int CONSTRAINT small CHECK (n < 10))", "GRANT ALL ON auth.written TO PUBLIC")
	pool := open(t, db.Auth)
	write := func(numbers ...int) error {
		return pool.TransactBatch(t.Context(), func(batch *pgx.Batch) error {
			for _, n := range numbers {
				batch.Queue("INSERT INTO auth.written VALUES ($1)", n)
			}
			return nil
		})
	}
	for range 2 { // the second time with prepared statements
		if err := write(1, 2); err != nil {
			t.Fatal(err)
		}
		if err := write(3, 11, 4); !database.Violates(err, "small") {
			t.Errorf("TransactBatch = %v, want the constraint's error", err)
		}
	}
	var rows int
	if err := pool.QueryRow(t.Context(), "SELECT count(*) FROM auth.written WHERE n < 3").Scan(&rows); err != nil || rows != 4 {
		t.Errorf("%d rows, %v; want 4", rows, err)
	}
	if err := pool.QueryRow(t.Context(), "SELECT count(*) FROM auth.written WHERE n >= 3").Scan(&rows); err != nil || rows != 0 {
		t.Errorf("%d rows of batches that failed, %v; want none", rows, err)
	}
}

func TestAnAbortedBatchIsRetried(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	exec(t, db.Owner, "CREATE TABLE auth.counters (id int, n int)", "GRANT ALL ON auth.counters TO PUBLIC", "INSERT INTO auth.counters VALUES (1, 0), (2, 0)")
	pool := open(t, db.Auth)
	var tries atomic.Int64
	var group sync.WaitGroup
	// Each batch locks one row, and then waits until both have. Postgres takes a second
	// to notice the deadlock, so there is only one.
	gate := pgtest.Connect(t, db.Owner)
	if _, err := gate.Exec(t.Context(), "SELECT pg_advisory_lock(1)"); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		group.Go(func() {
			err := pool.TransactBatch(t.Context(), func(batch *pgx.Batch) error {
				tries.Add(1)
				const increment = "UPDATE auth.counters SET n = n + 1 WHERE id = $1"
				batch.Queue(increment, 1+i)
				batch.Queue("SELECT pg_advisory_xact_lock_shared(1)")
				batch.Queue(increment, 2-i)
				return nil
			})
			if err != nil {
				t.Errorf("TransactBatch: %v", err)
			}
		})
	}
	const waitingForGate = `
		SELECT count(*) FROM pg_locks
		WHERE locktype = 'advisory' AND NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`
	eventually(t, 30*time.Second, "both batches hold a row", func() error {
		var waiting int
		if err := gate.QueryRow(t.Context(), waitingForGate).Scan(&waiting); err != nil || waiting != 2 {
			return fmt.Errorf("%d batches wait, %v; want 2", waiting, err)
		}
		return nil
	})
	if _, err := gate.Exec(t.Context(), "SELECT pg_advisory_unlock(1)"); err != nil {
		t.Fatal(err)
	}
	group.Wait()
	var one, two int
	err := pool.QueryRow(t.Context(), "SELECT min(n), max(n) FROM auth.counters").Scan(&one, &two)
	if err != nil || one != 2 || two != 2 {
		t.Errorf("counters = %d and %d, %v; want 2 each", one, two, err)
	}
	if tries.Load() <= 2 {
		t.Error("no batch was aborted, so nothing was tested")
	}
}
