package feed

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// poll is what a poll read.
type poll[T any] struct {
	asked, read time.Time
	database    string // which run of which server, and which database there
	clock       int64  // the database's, in seconds
	snapshot    string // what was visible: the next poll reads what wasn't
	horizon     uint64 // the oldest transaction that had not ended
	// Whether the database is another one than before, so that only this counts.
	anew  bool
	found map[string]Item[T]
}

// A cursor is the database, the horizon and the time of a poll: whatever its
// reader hasn't heard has this transaction's number or a larger one.
func (p poll[T]) cursor() string {
	return p.database + "." + strconv.FormatUint(p.horizon, 10) + "." + strconv.FormatInt(p.clock, 10)
}

// cursorSlack is how far a reader goes back. When Postgres crashes, numbers of
// transactions that left no trace are given again.
const cursorSlack = 1000

// resume returns the transaction from which a cursor's reader needs what is
// live, and whether the cursor is one of this database's that isn't too old.
func (p poll[T]) resume(cursor string, reach time.Duration) (uint64, bool) {
	database, rest, _ := strings.Cut(cursor, ".")
	text, clock, _ := strings.Cut(rest, ".")
	horizon, err1 := strconv.ParseUint(text, 10, 64)
	given, err2 := strconv.ParseInt(clock, 10, 64)
	if err1 != nil || err2 != nil || database != p.database || horizon > p.horizon || given > p.clock {
		return 0, false
	}
	if reach > 0 && p.clock-given > int64(reach/time.Second) {
		return 0, false
	}
	return horizon - min(horizon, cursorSlack), true
}

// nothing is a snapshot in which nothing is visible.
const nothing = "1:1:"

// A server that was restored or took another's place started at another time.
const selectPosition = `
	SELECT d.oid::text || '-' || extract(epoch FROM pg_postmaster_start_time())::text, extract(epoch FROM clock_timestamp())::bigint,
		s::text, pg_snapshot_xmin(s)::text
	FROM pg_catalog.pg_database d, pg_current_snapshot() s WHERE d.datname = current_database()`

// poll reads what was written, but for what was visible in the snapshot, in one
// round trip. Each statement sees at least what the one before it saw.
func (f *Feed[T]) poll(ctx context.Context, seen string) (poll[T], error) {
	limit := pollLimit
	if seen == nothing {
		limit = wholeLimit
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	p := poll[T]{asked: time.Now(), found: map[string]Item[T]{}}
	var batch pgx.Batch
	batch.Queue(selectPosition).QueryRow(func(row pgx.Row) error {
		var horizon string
		if err := row.Scan(&p.database, &p.clock, &p.snapshot, &horizon); err != nil {
			return err
		}
		p.database = strings.ReplaceAll(p.database, ".", "")
		var err error
		p.horizon, err = strconv.ParseUint(horizon, 10, 64)
		return err
	})
	f.config.Queue(&batch, seen, p.found)
	if err := f.config.DB.SendBatch(ctx, &batch).Close(); err != nil {
		return poll[T]{}, fmt.Errorf("poll the %s: %w", f.config.Name, err)
	}
	p.read = time.Now()
	return p, nil
}

// Poll polls from a snapshot, or from the beginning if that is empty. It returns
// the next snapshot and how many rows it found. It is for measurements: Run has
// its own.
func (f *Feed[T]) Poll(ctx context.Context, seen string) (snapshot string, found int, err error) {
	if seen == "" {
		seen = nothing
	}
	p, err := f.poll(ctx, seen)
	return p.snapshot, len(p.found), err
}
