package feed_test

import (
	"context"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"gatehouse/internal/database"
	"gatehouse/internal/feed"
	"gatehouse/internal/pgtest"
)

// run runs a feed until the end of the test.
func run(t *testing.T, f interface{ Run(ctx context.Context) }) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); f.Run(ctx) }()
	t.Cleanup(func() { stop(); <-done })
}

// A standby that has replayed the position of a message has its rows: the position is read
// after them. The query for the rows writes to the log here, so that it shows the order.
func TestThePositionIsReadAfterTheRows(t *testing.T) {
	t.Parallel()
	db := pgtest.Pool(t, pgtest.New(t).Owner)
	f := feed.New(feed.Config[string]{
		DB: db, Name: "rows", Prune: "SELECT 1", Logger: slog.New(slog.DiscardHandler), Position: "SELECT pg_current_wal_insert_lsn()::text",
		Queue: func(batch *pgx.Batch, _ string, found map[string]feed.Item[string]) {
			batch.Queue("SELECT pg_logical_emit_message(false, 'test', 'row')::text").QueryRow(func(row pgx.Row) error {
				var at string
				err := row.Scan(&at)
				found[at] = feed.Item[string]{Value: at}
				return err
			})
		},
	})
	run(t, f)
	messages := 0
	_ = f.Watch(t.Context(), "", func(news feed.News[string]) error {
		for _, row := range news.Items {
			var after bool
			if err := db.QueryRow(t.Context(), "SELECT $1::text::pg_lsn >= $2::text::pg_lsn", news.Position, row.Value).Scan(&after); err != nil || !after {
				t.Errorf("the position %q is before the row at %s, %v", news.Position, row.Value, err)
			}
		}
		if messages++; messages == 3 {
			return context.Canceled
		}
		return nil
	})
	if messages < 3 {
		t.Errorf("got %d messages, want 3", messages)
	}
}

// A poll with a position is one round trip.
func TestThePositionTakesNoRoundTripOfItsOwn(t *testing.T) {
	t.Parallel()
	var batches, others atomic.Int64
	db := pgtest.HookedPool(t, pgtest.New(t).Users, pgtest.Hook{Batch: func() { batches.Add(1) }, Before: func(string) { others.Add(1) }})
	f := feed.NewTags(db, "users.changes", slog.New(slog.DiscardHandler))
	f.TellPositions(database.SelectPosition)
	run(t, f)
	news := watch(t, f, "")
	for range 3 {
		if one := first(t, news); one.Position == "" {
			t.Error("a message has no position")
		}
	}
	if others.Load() != 0 || batches.Load() < 3 {
		t.Errorf("%d batches and %d other statements were sent for three polls", batches.Load(), others.Load())
	}
}

// Without a position, reads stay on the primary. The tags must arrive all the same.
func TestAPositionThatFailsDelaysNoTags(t *testing.T) {
	t.Parallel()
	c := pgtest.Pool(t, pgtest.New(t).Users)
	f := feed.NewTags(c, "users.changes", slog.New(slog.DiscardHandler))
	f.TellPositions("SELECT (1 / (SELECT 0))::text")
	run(t, f)
	news := watch(t, f, "")
	first(t, news)
	if err := feed.Note(t.Context(), c, "users.changes", "profile/a"); err != nil {
		t.Fatal(err)
	}
	for _, one := range until(t, news, "profile/a") {
		if one.Position != "" {
			t.Errorf("a message has the position %q, want none", one.Position)
		}
		if one.Complete && slices.Contains(one.Tags, "profile/a") {
			t.Error("the feed began again")
		}
	}
}
