package feed_test

import (
	"context"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"gatehouse/internal/feed"
	"gatehouse/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// instances are two instances of a feed on one database.
type instances struct {
	db   *pgxpool.Pool
	one  *feed.Tags
	two  *feed.Tags
	stop context.CancelFunc
}

func start(t *testing.T) *instances {
	t.Helper()
	db := pgtest.Pool(t, pgtest.New(t).Users)
	logger := slog.New(slog.DiscardHandler)
	c := &instances{db: db, one: feed.NewTags(db, "users.changes", logger), two: feed.NewTags(db, "users.changes", logger)}
	ctx, stop := context.WithCancel(context.Background())
	c.stop = stop
	for _, f := range []*feed.Tags{c.one, c.two} {
		done := make(chan struct{})
		go func() { defer close(done); f.Run(ctx) }()
		t.Cleanup(func() { stop(); <-done })
	}
	return c
}

func (c *instances) note(t *testing.T, tags ...string) {
	t.Helper()
	if err := feed.Note(t.Context(), c.db, "users.changes", tags...); err != nil {
		t.Fatal(err)
	}
}

// watch returns the messages of a watcher. The end of the test ends the watch.
func watch(t *testing.T, f *feed.Tags, cursor string) <-chan feed.TagNews {
	t.Helper()
	news := make(chan feed.TagNews, 1000)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = f.WatchTags(ctx, cursor, func(one feed.TagNews) error { news <- one; return nil })
	}()
	t.Cleanup(func() { stop(); <-done })
	return news
}

// until reads messages until one has the tag, and returns all messages read.
func until(t *testing.T, news <-chan feed.TagNews, tag string) []feed.TagNews {
	t.Helper()
	var read []feed.TagNews
	deadline := time.After(30 * time.Second)
	for {
		select {
		case one := <-news:
			if read = append(read, one); slices.Contains(one.Tags, tag) {
				return read
			}
		case <-deadline:
			t.Fatalf("%s was not received within 30 s; received %v", tag, read)
		}
	}
}

func first(t *testing.T, news <-chan feed.TagNews) feed.TagNews {
	t.Helper()
	select {
	case one := <-news:
		return one
	case <-time.After(30 * time.Second):
		t.Fatal("no message within 30 s")
		return feed.TagNews{}
	}
}

func TestEveryInstanceSendsTheTags(t *testing.T) {
	t.Parallel()
	c := start(t)
	for _, f := range []*feed.Tags{c.one, c.two} {
		news := watch(t, f, "")
		if begins := first(t, news); !begins.Complete || len(begins.Tags) > 0 {
			t.Errorf("the first message is %v, want it complete and without tags", begins)
		}
		c.note(t, "profile/a", "profile/b", "profile/a")
		messages := until(t, news, "profile/a")
		last := messages[len(messages)-1]
		if want := []string{"profile/a", "profile/b"}; !slices.Equal(last.Tags, want) {
			t.Errorf("got the tags %v, want %v", last.Tags, want)
		}
		for i, one := range messages {
			if one.AskedAfter < 0 || i > 0 && one.AskedAfter <= messages[i-1].AskedAfter {
				t.Errorf("message %d: AskedAfter is %s, and that of the message before it %s", i, one.AskedAfter, messages[max(0, i-1)].AskedAfter)
			}
		}
	}
}

// A watcher receives the rows of a transaction that began before a poll and committed
// after it, even though it has received the rows of later transactions.
func TestALateCommitIsSent(t *testing.T) {
	t.Parallel()
	c := start(t)
	news := watch(t, c.one, "")
	first(t, news)
	late, err := c.db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = late.Rollback(context.Background()) }()
	if err := feed.Note(t.Context(), late, "users.changes", "profile/late"); err != nil {
		t.Fatal(err)
	}
	c.note(t, "profile/early")
	for _, one := range until(t, news, "profile/early") {
		if slices.Contains(one.Tags, "profile/late") {
			t.Error("the watcher received an uncommitted row")
		}
	}
	if err := late.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, news, "profile/late")
}

func TestAWatcherResumesFromItsCursorAtAnotherInstance(t *testing.T) {
	t.Parallel()
	c := start(t)
	news := watch(t, c.one, "")
	first(t, news)
	c.note(t, "profile/received")
	messages := until(t, news, "profile/received")
	cursor := messages[len(messages)-1].Cursor
	c.note(t, "profile/missed")
	for name, f := range map[string]*feed.Tags{"the same instance": c.one, "another instance": c.two} {
		if again := first(t, watch(t, f, cursor)); again.Complete || !slices.Contains(again.Tags, "profile/missed") {
			t.Errorf("%s: got %v, want the missed tag", name, again)
		}
	}
}

// An instance without a watcher polls every five seconds, and at once for its first watcher.
func TestAnInstanceWithoutAWatcherRarelyPolls(t *testing.T) {
	t.Parallel()
	database := pgtest.New(t)
	logger := slog.New(slog.DiscardHandler)
	var polls atomic.Int64
	counted := pgtest.HookedPool(t, database.Users, pgtest.Hook{Batch: func() { polls.Add(1) }})
	idle, watched := feed.NewTags(counted, "users.changes", logger), feed.NewTags(pgtest.Pool(t, database.Users), "users.changes", logger)
	for _, f := range []*feed.Tags{idle, watched} {
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); f.Run(ctx) }()
		t.Cleanup(func() { stop(); <-done })
	}
	begun := time.Now()
	news := watch(t, watched, "")
	var cursor string
	for range 9 {
		cursor = first(t, news).Cursor
	}
	if got, most := polls.Load(), 2+int64(time.Since(begun)/(5*time.Second)); got > most {
		t.Errorf("while another instance polled nine times, the one without a watcher polled %d times, want at most %d", got, most)
	}
	if err := feed.Note(t.Context(), counted, "users.changes", "profile/unread"); err != nil {
		t.Fatal(err)
	}
	if got := first(t, watch(t, idle, cursor)); got.Complete || !slices.Contains(got.Tags, "profile/unread") {
		t.Errorf("the first watcher of an idle instance got %v, want the tag since its cursor", got)
	}
	before := polls.Load()
	for range 4 {
		first(t, news)
	}
	if polls.Load() == before {
		t.Error("an instance with a watcher does not poll")
	}
}

// The rows after an expired cursor may have been deleted.
func TestAnExpiredOrForeignCursorGetsACompleteMessage(t *testing.T) {
	t.Parallel()
	c := start(t)
	cursor := first(t, watch(t, c.one, "")).Cursor
	at := strings.LastIndex(cursor, ".") + 1
	given, err := strconv.Atoi(cursor[at:])
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		what     string
		cursor   string
		complete bool
	}{
		{"a cursor of now", cursor, false},
		{"20 s old", cursor[:at] + strconv.Itoa(given-20), false},
		{"two minutes old", cursor[:at] + strconv.Itoa(given-120), true},
		{"of tomorrow", cursor[:at] + strconv.Itoa(given+86400), true},
		{"without a time", cursor[:at-1], true},
		{"of another database", "1" + cursor, true},
		{"garbage", "garbage", true},
	} {
		if got := first(t, watch(t, c.one, test.cursor)); got.Complete != test.complete {
			t.Errorf("%s (%s): complete is %v, want %v", test.what, test.cursor, got.Complete, test.complete)
		}
	}
}

// Rows are kept for as long as a valid cursor may need them.
func TestOldChangesArePruned(t *testing.T) {
	t.Parallel()
	db := pgtest.Pool(t, pgtest.New(t).Users)
	f := feed.NewTags(db, "users.changes", slog.New(slog.DiscardHandler))
	for _, age := range []string{"0 seconds", "70 seconds", "130 seconds", "200 seconds"} {
		if _, err := db.Exec(t.Context(), "INSERT INTO users.changes (tag, create_time) VALUES ('profile/' || $1::text, now() - $1::interval)", age); err != nil {
			t.Fatal(err)
		}
	}
	if _, found, err := f.Poll(t.Context(), ""); err != nil || found != 2 {
		t.Errorf("a poll found %d rows, %v; want the 2 of the last two minutes", found, err)
	}
	if err := f.Prune(t.Context()); err != nil {
		t.Fatal(err)
	}
	var left int
	if err := db.QueryRow(t.Context(), "SELECT count(*) FROM users.changes").Scan(&left); err != nil || left != 3 {
		t.Errorf("%d rows remain, %v; want the 3 of the last three minutes", left, err)
	}
}

func TestAPollUsesTheIndex(t *testing.T) {
	t.Parallel()
	database := pgtest.New(t)
	db := pgtest.Pool(t, database.Users)
	f := feed.NewTags(db, "users.changes", slog.New(slog.DiscardHandler))
	if _, err := db.Exec(t.Context(), "INSERT INTO users.changes (tag) SELECT 'profile/' || n FROM generate_series(1, 50000) n"); err != nil {
		t.Fatal(err)
	}
	if _, err := pgtest.Connect(t, database.Owner).Exec(t.Context(), "ANALYZE users.changes"); err != nil {
		t.Fatal(err)
	}
	seen, found, err := f.Poll(t.Context(), "")
	if err != nil || found != 50_000 {
		t.Fatalf("the first poll found %d, %v", found, err)
	}
	rows, err := db.Query(t.Context(), "EXPLAIN "+strings.ReplaceAll(f.SelectForTest(), "@seen", "'"+seen+"'"))
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var plan strings.Builder
	for rows.Next() {
		var step string
		if err := rows.Scan(&step); err != nil {
			t.Fatal(err)
		}
		plan.WriteString(step + "\n")
	}
	if !strings.Contains(plan.String(), "changes_xid_idx") || strings.Contains(plan.String(), "Seq Scan") {
		t.Errorf("the plan is\n%s", plan.String())
	}
}

// While a transaction runs, anywhere on the server, a poll reads what is new, and not again
// what was written since that transaction began.
func TestAPollIsBoundedWhileATransactionRuns(t *testing.T) {
	t.Parallel()
	database := pgtest.New(t)
	db := pgtest.Pool(t, database.Users)
	f := feed.NewTags(db, "users.changes", slog.New(slog.DiscardHandler))
	long, err := db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer long.Rollback(t.Context())
	if _, err := long.Exec(t.Context(), "INSERT INTO users.changes (tag) VALUES ('profile/late')"); err != nil {
		t.Fatal(err)
	}
	owner := pgtest.Connect(t, database.Owner)
	for _, statement := range []string{"INSERT INTO users.changes (tag) SELECT 'profile/' || n FROM generate_series(1, 20000) n", "ANALYZE users.changes"} {
		if _, err := owner.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	seen, found, err := f.Poll(t.Context(), "")
	if err != nil || found != 20_000 {
		t.Fatalf("the first poll found %d, %v", found, err)
	}
	for _, plan := range pgtest.Explain(t, owner, pgx.TraceQueryStartData{SQL: f.SelectForTest(), Args: []any{pgx.NamedArgs{"seen": seen}}})[:1] {
		if rows := plan.Rows(); rows > 10 {
			t.Errorf("a poll reads %d rows while nothing is new:\n%s", rows, plan)
		}
	}
	if _, found, err := f.Poll(t.Context(), seen); err != nil || found != 0 {
		t.Errorf("a poll found %d, %v; want nothing new", found, err)
	}
	if err := long.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, found, err := f.Poll(t.Context(), seen); err != nil || found != 1 {
		t.Errorf("a poll after the commit found %d, %v; want the late row", found, err)
	}
}
