package database_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"gatehouse/internal/batch"
	"gatehouse/internal/database"
	"gatehouse/internal/pgtest"
)

// roundTrips records the statements of each round trip.
type roundTrips struct {
	mu   sync.Mutex
	sent [][]string
}

func (r *roundTrips) add(statements ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	slices.Sort(statements)
	r.sent = append(r.sent, statements)
}

func (r *roundTrips) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	r.add(data.SQL)
	return ctx
}
func (r *roundTrips) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}
func (r *roundTrips) TraceBatchStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceBatchStartData) context.Context {
	var statements []string
	for _, query := range data.Batch.QueuedQueries {
		statements = append(statements, query.SQL)
	}
	r.add(statements...)
	return ctx
}
func (r *roundTrips) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}
func (r *roundTrips) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData)     {}

func tracedPool(t *testing.T, url string) (*database.Pool, *roundTrips) {
	t.Helper()
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	trips := &roundTrips{}
	config.ConnConfig.Tracer = trips
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return database.Retrying(pool), trips
}

// inRound runs work as the members of one round.
func inRound(ctx context.Context, work ...func(context.Context)) {
	var r batch.Round
	members := make([]batch.Member, len(work))
	for i := range members {
		r.Add(&members[i], ctx, 0)
	}
	var running sync.WaitGroup
	for i := range work {
		running.Go(func() {
			defer members[i].Leave()
			work[i](&members[i])
		})
	}
	running.Wait()
}

const (
	selectOne   = "SELECT 1, NULL::text, 'one'::text, ARRAY['a','b'], '2026-01-02T03:04:05Z'::timestamptz, true"
	selectMany  = "SELECT n::text AS text FROM generate_series(1, $1::int) n"
	selectNone  = "SELECT 1 WHERE false"
	selectError = "SELECT 1 / (1 - $1::int)"
)

// A batched query has the same results as a single one: all types of values, many rows, no
// rows, and its own errors.
func TestTheFirstQueriesOfARoundShareARoundTrip(t *testing.T) {
	t.Parallel()
	pool, trips := tracedPool(t, pgtest.New(t).Auth)
	one := func(ctx context.Context) {
		var number int
		var null *string
		var text string
		var list []string
		var at time.Time
		var yes bool
		err := pool.QueryRow(ctx, selectOne).Scan(&number, &null, &text, &list, &at, &yes)
		if err != nil || number != 1 || null != nil || text != "one" || !slices.Equal(list, []string{"a", "b"}) || at.Year() != 2026 || !yes {
			t.Errorf("got %d, %v, %q, %q, %s, %v; %v", number, null, text, list, at, yes, err)
		}
	}
	many := func(ctx context.Context) {
		rows, err := pool.Query(ctx, selectMany, 3)
		if err != nil {
			t.Errorf("Query: %v", err)
			return
		}
		type row struct{ Text string }
		found, err := pgx.CollectRows(rows, pgx.RowToStructByName[row])
		if err != nil || !slices.Equal(found, []row{{"1"}, {"2"}, {"3"}}) {
			t.Errorf("got %v, %v; want three rows", found, err)
		}
	}
	none := func(ctx context.Context) {
		if err := pool.QueryRow(ctx, selectNone).Scan(new(int)); !errors.Is(err, pgx.ErrNoRows) {
			t.Errorf("got %v, want no rows", err)
		}
	}
	wantSent := func(what string, want ...[]string) {
		t.Helper()
		if !slices.EqualFunc(trips.sent, want, slices.Equal) {
			t.Errorf("%s: sent %q, want %q", what, trips.sent, want)
		}
		trips.sent = nil
	}
	inRound(t.Context(), one, many, none)
	wantSent("three members", []string{selectNone, selectOne, selectMany})

	inRound(t.Context(), one, func(context.Context) {})
	wantSent("a member without a query", []string{selectOne})

	inRound(t.Context(), func(ctx context.Context) { one(ctx); one(ctx) }, none)
	wantSent("a second query of a member", []string{selectNone, selectOne}, []string{selectOne})
}

// A transaction or a failing query does not affect the other members.
func TestTransactionsAndFailedBatchesAreSentAlone(t *testing.T) {
	t.Parallel()
	pool, trips := tracedPool(t, pgtest.New(t).Auth)
	one := func(ctx context.Context) {
		var count int
		if err := pool.QueryRow(ctx, "SELECT count(*) FROM generate_series(1, 3)").Scan(&count); err != nil || count != 3 {
			t.Errorf("got %d, %v; want 3", count, err)
		}
	}
	inRound(t.Context(), one, func(ctx context.Context) {
		err := pool.Transact(ctx, func(tx pgx.Tx) error {
			return tx.QueryRow(ctx, selectNone).Scan(new(int))
		})
		if !errors.Is(err, pgx.ErrNoRows) {
			t.Errorf("got %v, want no rows", err)
		}
	})
	if len(trips.sent) != 4 { // with begin and rollback
		t.Errorf("a transaction: sent %q, want each query alone", trips.sent)
	}
	trips.sent = nil

	inRound(t.Context(), one, func(ctx context.Context) {
		if err := pool.QueryRow(ctx, selectError, 1).Scan(new(int)); err == nil {
			t.Error("got no error of a division by zero")
		}
	})
	if len(trips.sent) != 3 || len(trips.sent[0]) != 2 {
		t.Errorf("an error: sent %q, want a batch and then each query alone", trips.sent)
	}
	if n := pool.Stat().AcquiredConns(); n != 0 {
		t.Errorf("%d connections were not released", n)
	}
}

// A stale prepared statement fails the whole batch. Each query is then sent alone, with
// retries.
func TestAStalePlanInABatchIsRetried(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	exec(t, db.Owner, "CREATE TABLE auth.things (n int, text text)", "GRANT ALL ON auth.things TO PUBLIC", "INSERT INTO auth.things VALUES (1, 'one')")
	pool := open(t, db.Auth)
	read := func(ctx context.Context) {
		var text string
		if err := pool.QueryRow(ctx, "SELECT text FROM auth.things WHERE n = $1", 1).Scan(&text); err != nil || text != "one" {
			t.Errorf("got %q, %v", text, err)
		}
	}
	inRound(t.Context(), read, read)
	for _, kind := range []string{"varchar(50)", "varchar(60)"} {
		exec(t, db.Owner, "ALTER TABLE auth.things ALTER COLUMN text TYPE "+kind)
		inRound(t.Context(), read, read)
	}
}
