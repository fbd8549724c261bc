package pgtest

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Hook is called before and after each statement of a pool, on the goroutine that
// sends it. "begin" and "commit" are statements. Each function may be nil.
type Hook struct {
	Before, After func(sql string)
	Batch         func() // before a batch
}

// HookedPool opens a pool with a hook. It is closed at the end of the test.
func HookedPool(t testing.TB, databaseURL string, hook Hook) *pgxpool.Pool {
	t.Helper()
	config, err := pgxpool.ParseConfig(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	config.ConnConfig.Tracer = hook
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

type hookedStatement struct{}

// TraceQueryStart implements pgx.QueryTracer.
func (h Hook) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	if h.Before != nil {
		h.Before(data.SQL)
	}
	return context.WithValue(ctx, hookedStatement{}, data.SQL)
}

// TraceQueryEnd implements pgx.QueryTracer.
func (h Hook) TraceQueryEnd(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryEndData) {
	if sql, ok := ctx.Value(hookedStatement{}).(string); ok && h.After != nil {
		h.After(sql)
	}
}

// TraceBatchStart implements pgx.BatchTracer.
func (h Hook) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	if h.Batch != nil {
		h.Batch()
	}
	return ctx
}

// TraceBatchQuery implements pgx.BatchTracer.
func (h Hook) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}

// TraceBatchEnd implements pgx.BatchTracer.
func (h Hook) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData) {}
