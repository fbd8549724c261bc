package feed

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// poll is the result of one poll.
type poll[T any] struct {
	asked, read time.Time
	database    string // identifies the database and the start of its server
	clock       int64  // Postgres' clock, in seconds
	snapshot    string // the next poll reads the rows that are not visible in it
	horizon     uint64 // the ID of the oldest running transaction
	position    string // in the write-ahead log, from Config.Position
	positionErr error  // of Config.Position alone
	// databaseChanged reports that the database is not that of the previous poll: rows from
	// before are dropped.
	databaseChanged bool
	found           map[string]Item[T]
}

// cursor returns the database, the horizon and the time of the poll. The transactions that
// the poll did not see have the horizon as their ID, or a larger one.
func (p poll[T]) cursor() string {
	return p.database + "." + strconv.FormatUint(p.horizon, 10) + "." + strconv.FormatInt(p.clock, 10)
}

// cursorSlack is how many transaction IDs before its horizon a cursor resumes. A crash of
// Postgres can reuse the IDs of transactions that wrote nothing to disk.
const cursorSlack = 1000

// resume returns the ID of the transaction from which the reader of a cursor needs the live
// rows. It reports false if the cursor belongs to another database or is too old.
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

// emptySnapshot is a snapshot in which no transaction is visible.
const emptySnapshot = "1:1:"

// The start time distinguishes a server that was restored or replaced by another one.
const selectSnapshot = `
	SELECT d.oid::text || '-' || extract(epoch FROM pg_postmaster_start_time())::text, extract(epoch FROM clock_timestamp())::bigint,
		s::text, pg_snapshot_xmin(s)::text
	FROM pg_catalog.pg_database d, pg_current_snapshot() s WHERE d.datname = current_database()`

// poll reads, in one round trip, the rows that are not visible in the snapshot seen. The
// next snapshot is read first: each statement of the batch sees at least the rows that the
// statement before it saw, so the rows are never behind the snapshot. The position in the
// write-ahead log is read last: a standby that has replayed it has all the rows.
func (f *Feed[T]) poll(ctx context.Context, seen string) (poll[T], error) {
	limit := pollTimeout
	if seen == emptySnapshot {
		limit = fullPollTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	p := poll[T]{asked: time.Now(), found: map[string]Item[T]{}}
	var batch pgx.Batch
	batch.Queue(selectSnapshot).QueryRow(func(row pgx.Row) error {
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
	if f.config.Position != "" {
		batch.Queue(f.config.Position).QueryRow(func(row pgx.Row) error {
			p.positionErr = row.Scan(&p.position)
			return p.positionErr
		})
	}
	// If Postgres refuses the position alone, the rows have been read: the feed works without it.
	// After any other failure the next poll must begin again.
	err := f.config.DB.SendBatch(ctx, &batch).Close()
	var refused *pgconn.PgError
	if err != nil && (!errors.As(p.positionErr, &refused) || refused.SeverityUnlocalized != "ERROR" || ctx.Err() != nil) {
		return poll[T]{}, fmt.Errorf("poll the %s: %w", f.config.Name, err)
	}
	p.read = time.Now()
	return p, nil
}

// Poll polls once from a snapshot, or from the beginning if it is empty. It returns the
// next snapshot and the number of rows found. It is for measurements, and does not affect
// the polls of Run.
func (f *Feed[T]) Poll(ctx context.Context, seen string) (snapshot string, found int, err error) {
	if seen == "" {
		seen = emptySnapshot
	}
	p, err := f.poll(ctx, seen)
	return p.snapshot, len(p.found), err
}
