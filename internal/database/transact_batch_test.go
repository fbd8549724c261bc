package database_test

import (
	"sync"
	"sync/atomic"
	"testing"

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
	for i := range 8 { // these deadlock
		first, second := 1+i%2, 2-i%2
		group.Go(func() {
			err := pool.TransactBatch(t.Context(), func(batch *pgx.Batch) error {
				tries.Add(1)
				for _, id := range []int{first, second} {
					batch.Queue("UPDATE auth.counters SET n = n + 1 WHERE id = $1", id)
					batch.Queue("SELECT pg_sleep(0.02)")
				}
				return nil
			})
			if err != nil {
				t.Errorf("TransactBatch: %v", err)
			}
		})
	}
	group.Wait()
	var one, two int
	err := pool.QueryRow(t.Context(), "SELECT min(n), max(n) FROM auth.counters").Scan(&one, &two)
	if err != nil || one != 8 || two != 8 {
		t.Errorf("counters = %d and %d, %v; want 8 each", one, two, err)
	}
	if tries.Load() <= 8 {
		t.Error("no batch was aborted, so nothing was tested")
	}
}
