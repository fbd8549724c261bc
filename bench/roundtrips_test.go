package main

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"gatehouse/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func TestTheProxyCountsRoundTrips(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	proxy, err := newCountingProxy(ctx, pgtest.Empty(t))
	if err != nil {
		t.Fatal(err)
	}
	defer proxy.close()
	settings, err := proxy.settings([]string{"OTHER=1", "AUTH_DATABASE_URL=" + pgtest.Empty(t)})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(ctx, strings.TrimPrefix(settings[1], "AUTH_DATABASE_URL="))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	for _, one := range []struct {
		name string
		work func() error
		want int64
	}{
		{"a statement", func() error {
			_, err := conn.Exec(ctx, "SELECT 1", pgx.QueryExecModeExec)
			return err
		}, 1},
		{"a transaction of two", func() error {
			return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
				_, err := tx.Exec(ctx, "SELECT 1", pgx.QueryExecModeExec)
				return err
			})
		}, 3},
		{"a batch of two", func() error {
			batch := &pgx.Batch{}
			batch.Queue("SELECT 1")
			batch.Queue("SELECT repeat('x', 1000000)")
			return conn.SendBatch(ctx, batch).Close()
		}, 2}, // the first describes the statements
	} {
		before := proxy.trips.Load()
		if err := one.work(); err != nil {
			t.Fatal(err)
		}
		if got := proxy.trips.Load() - before; got != one.want {
			t.Errorf("%s: %d round trips, want %d", one.name, got, one.want)
		}
	}
}
