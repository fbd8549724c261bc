package feed_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"gatehouse/internal/feed"
	"gatehouse/internal/pgtest"
)

const (
	// heldFor is how long the test holds its transaction open, beside 20,000 rows and one
	// write after the other.
	heldFor = time.Minute
	// spareRows are rows that a poll may read beside the new ones: those of the transactions
	// that ran during the poll before.
	spareRows = 20
)

// While a transaction is open for a minute, no poll reads again what was written since it
// began, and everything arrives once: what others write meanwhile, and at the end what the
// transaction wrote first and last.
func TestPollsAreBoundedWhileATransactionIsOpenForAMinute(t *testing.T) {
	t.Parallel()
	database := pgtest.New(t)
	db := pgtest.Pool(t, database.Users)
	f := feed.NewTags(db, "users.changes", slog.New(slog.DiscardHandler))
	run(t, f)
	news := watch(t, f, "")
	first(t, news)

	// As the owner, because the transactions of services end after ten seconds without a statement.
	long, err := pgtest.Connect(t, database.Owner).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = long.Rollback(context.Background()) }()
	if err := feed.Note(t.Context(), long, "users.changes", "profile/first"); err != nil {
		t.Fatal(err)
	}
	owner := pgtest.Connect(t, database.Owner)
	for _, statement := range []string{"INSERT INTO users.changes (tag) SELECT 'profile/before-' || n FROM generate_series(1, 20000) n", "ANALYZE users.changes"} {
		if _, err := owner.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	written := writeUntil(t, db, time.Now().Add(heldFor), func(seen string, isNew int) (string, int) {
		return pollOnce(t, f, owner, seen, isNew)
	})
	if err := feed.Note(t.Context(), long, "users.changes", "profile/last"); err != nil {
		t.Fatal(err)
	}
	if err := long.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	received := map[string]int{}
	for _, one := range until(t, news, "profile/last") {
		for _, tag := range one.Tags {
			received[tag]++
		}
	}
	for _, tag := range append(written, "profile/first", "profile/last") {
		if received[tag] != 1 {
			t.Errorf("%s was received %d times, want once", tag, received[tag])
		}
	}
	if want := 20_000 + len(written) + 2; len(received) != want {
		t.Errorf("%d tags were received, want %d", len(received), want)
	}
}

// writeUntil writes one tag after the other, each in a transaction of its own, and polls
// after every few. It returns the tags.
func writeUntil(t *testing.T, db *pgxpool.Pool, end time.Time, poll func(seen string, isNew int) (string, int)) []string {
	t.Helper()
	seen, _ := poll("", 0)
	var tags []string
	for time.Now().Before(end) {
		for range 5 {
			tag := fmt.Sprintf("profile/during-%d", len(tags))
			if err := feed.Note(t.Context(), db, "users.changes", tag); err != nil {
				t.Fatal(err)
			}
			tags = append(tags, tag)
		}
		var found int
		if seen, found = poll(seen, 5); found != 5 {
			t.Fatalf("after %d writes a poll found %d rows, want the 5 of the last writes", len(tags), found)
		}
		time.Sleep(50 * time.Millisecond)
	}
	return tags
}

// pollOnce polls from a snapshot, and fails if a poll from there reads more than is new.
func pollOnce(t *testing.T, f *feed.Tags, owner *pgx.Conn, seen string, isNew int) (next string, found int) {
	t.Helper()
	if seen != "" {
		plan := pgtest.Explain(t, owner, pgx.TraceQueryStartData{SQL: f.SelectForTest(), Args: []any{pgx.NamedArgs{"seen": seen}}})[0]
		if rows := plan.Rows(); rows < isNew || rows > isNew+spareRows {
			t.Fatalf("a poll reads %d rows while %d are new:\n%s", rows, isNew, plan)
		}
	}
	next, found, err := f.Poll(t.Context(), seen)
	if err != nil {
		t.Fatal(err)
	}
	return next, found
}
