// Package lifecycle keeps a service's data in step with the accounts of auth: it reads
// auth's account log and applies each change once.
//
// A Reader keeps its cursor in the service's own schema, in the transaction that
// applies the changes before it, so that whatever is killed in between, nothing is
// lost and nothing is applied twice. An event that cannot be applied keeps only those of
// its own account waiting (stuck.go). The next read reports the committed cursor,
// which confirms the changes to auth. All copies of a service read; the first that
// locks the cursor applies the changes, and the others, which find another cursor or
// the lock, read again. So no change waits for a copy that was killed.
//
// When auth refuses the cursor, because it is too old or because one of the databases
// was restored, the reader reads the log from its beginning and then erases what the
// service has of accounts that auth does not have.
//
// A service has the table account_cursor in its schema:
//
//	CREATE TABLE orders.account_cursor (
//	    cursor  text    NOT NULL DEFAULT '',
//	    sweep   boolean NOT NULL DEFAULT false
//	);
//	CREATE UNIQUE INDEX account_cursor_one_row ON orders.account_cursor ((true));
//
// and, unless it keeps tombstones of its own as users does, the table tombstones; see
// [Eraser].
package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/durationpb"

	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/crashpoint"
	"gatehouse/internal/database"
	"gatehouse/internal/fault"
	"gatehouse/internal/outage"
)

const (
	// wait is how long a read waits for a change.
	wait = 3 * time.Second
	// readLimit bounds a read with its wait.
	readLimit = wait + 10*time.Second
	// gather lets changes that are near each other be read together.
	gather     = 50 * time.Millisecond
	minBackoff = 100 * time.Millisecond
	maxBackoff = 2 * time.Second
)

// Config says who reads, and what for.
type Config struct {
	// Service is the name of the service, of its role and of its Postgres schema.
	Service string
	// DB logs in as the role of the service.
	DB *database.Pool
	// Feed is auth.
	Feed authv1.AccountFeedServiceClient
	// DeletionsOnly reads only deletions.
	DeletionsOnly bool
	// Apply applies an event in the transaction that commits the cursor. It ignores
	// events that are not newer than what the service has. If it fails again and again,
	// the events of other accounts are applied without it, and it is retried (stuck.go).
	Apply func(ctx context.Context, tx pgx.Tx, event *authv1.AccountEvent) error
	// List returns, in ascending order, up to most ids of accounts of which the
	// service has data, greater than after, which is "" at first.
	List   func(ctx context.Context, after string, most int) ([]string, error)
	Logger *slog.Logger
}

// Reader reads the account log for one copy of a service.
type Reader struct {
	Config
	sql       statements
	nextSweep time.Time
	failed    int      // batches in a row that could not be applied
	ahead     *advance // nil while the cursor says what has been applied
}

// statements are those of one schema.
type statements struct{ read, lock, advance, expire, swept string }

// New returns a reader. Run reads for it.
func New(config Config) *Reader {
	table := pgx.Identifier{config.Service, "account_cursor"}.Sanitize()
	return &Reader{Config: config, sql: statements{
		read: `
			WITH made AS (INSERT INTO ` + table + ` DEFAULT VALUES ON CONFLICT ((true)) DO NOTHING RETURNING cursor, sweep)
			SELECT cursor, sweep FROM ` + table + ` UNION ALL SELECT cursor, sweep FROM made`,
		lock:    `SELECT cursor FROM ` + table + ` FOR UPDATE SKIP LOCKED`,
		advance: `UPDATE ` + table + ` SET cursor = @cursor`,
		expire:  `UPDATE ` + table + ` SET cursor = '', sweep = true WHERE cursor = @cursor`,
		swept:   `UPDATE ` + table + ` SET sweep = false`,
	}}
}

// Run reads until ctx ends.
func (r *Reader) Run(ctx context.Context) {
	failures := outage.Log{
		Logger: r.Logger, Failed: "lifecycle: account events not applied, retrying", Recovered: "lifecycle: recovered",
	}
	backoff := minBackoff
	r.measure(ctx)
	for ctx.Err() == nil {
		next, err := r.step(ctx)
		if ctx.Err() != nil {
			return
		}
		failures.Note(ctx, err)
		if err != nil {
			next, backoff = backoff, min(2*backoff, maxBackoff)
		} else {
			backoff = minBackoff
		}
		select {
		case <-ctx.Done():
		case <-time.After(next):
		}
	}
}

// step reads once, applies what it read, and returns the pause until the next step.
func (r *Reader) step(ctx context.Context) (next time.Duration, err error) {
	var cursor string
	var sweep bool
	if err := r.DB.QueryRow(ctx, r.sql.read).Scan(&cursor, &sweep); err != nil {
		return 0, fmt.Errorf("read the cursor: %w", err)
	}
	if r.ahead != nil && r.ahead.cursor != cursor { // another copy has moved it
		r.setAhead(ctx, nil)
	}
	if r.ahead != nil {
		if err := r.retry(ctx); err != nil || r.ahead == nil {
			return 0, err
		}
	}
	response, err := r.read(ctx, cursor)
	if connect.CodeOf(err) == connect.CodeFailedPrecondition && fault.Reason(err) == "CURSOR_EXPIRED" {
		r.Logger.LogAttrs(ctx, slog.LevelWarn, "lifecycle: cursor expired, reading the account log from the beginning")
		r.setAhead(ctx, nil)
		if _, err := r.DB.Exec(ctx, r.sql.expire, pgx.NamedArgs{"cursor": cursor}); err != nil {
			return 0, fmt.Errorf("reset the cursor: %w", err)
		}
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read the account log: %w", err)
	}
	next, err = r.take(ctx, cursor, response)
	if err != nil || response.GetMore() {
		return next, err
	}
	if sweep && time.Now().After(r.nextSweep) {
		r.nextSweep = time.Now().Add(sweepInterval)
		return next, r.sweep(ctx)
	}
	return next, nil
}

// take applies what was read, and returns the pause until the next step.
func (r *Reader) take(ctx context.Context, cursor string, response *authv1.WatchAccountsResponse) (next time.Duration, err error) {
	switch {
	case r.ahead != nil:
		next, err = aheadPause, r.applyApart(ctx, response)
	case response.GetCursor() != cursor:
		next, err = gather, r.apply(ctx, cursor, response)
		if errors.Is(err, errOvertaken) {
			return gather, nil
		}
		if err != nil && r.isStuck(err) {
			r.setAhead(ctx, &advance{cursor: cursor, stuck: map[string]*stuckEvent{}})
			next, err = aheadPause, r.applyApart(ctx, response)
		}
	default:
		next = gather
	}
	if err == nil && response.GetMore() {
		next = 0
	}
	return next, err
}

func (r *Reader) read(ctx context.Context, cursor string) (*authv1.WatchAccountsResponse, error) {
	request := &authv1.WatchAccountsRequest{Service: r.Service, Cursor: cursor, Wait: durationpb.New(wait), DeletionsOnly: r.DeletionsOnly}
	if r.ahead != nil {
		request.Position = r.ahead.position
	}
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	return r.Feed.WatchAccounts(ctx, request)
}

// errOvertaken says that another copy has moved the cursor, or is about to.
var errOvertaken = errors.New("another copy applies the events")

// apply applies events with the cursor after them.
func (r *Reader) apply(ctx context.Context, from string, response *authv1.WatchAccountsResponse) error {
	err := r.DB.Transact(ctx, func(tx pgx.Tx) error {
		var cursor string
		err := tx.QueryRow(ctx, r.sql.lock).Scan(&cursor)
		if database.Missing(err) || err == nil && cursor != from {
			return errOvertaken
		}
		if err != nil {
			return fmt.Errorf("lock the cursor: %w", err)
		}
		for _, event := range response.GetEvents() {
			crashpoint.Reach(r.Service + ": before an account event is applied")
			if err := r.Apply(ctx, tx, event); err != nil {
				return fmt.Errorf("apply the event of account %s: %w", event.GetAccountId(), err)
			}
		}
		if _, err := tx.Exec(ctx, r.sql.advance, pgx.NamedArgs{"cursor": response.GetCursor()}); err != nil {
			return fmt.Errorf("advance the cursor: %w", err)
		}
		if len(response.GetEvents()) > 0 {
			crashpoint.Reach(r.Service + ": before account events are committed")
		}
		return nil
	})
	if err == nil {
		r.failed = 0
	}
	if err == nil && len(response.GetEvents()) > 0 {
		crashpoint.Reach(r.Service + ": after account events are committed")
	}
	return err
}
