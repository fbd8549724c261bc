// Package accountlog is the durable log of account events: one row for each account,
// with the version of its latest change, which other services read by a cursor.
//
// A trigger on auth.accounts writes the log (internal/schema), so no change is missed,
// whichever version of auth makes it. A row carries the ID of the transaction
// that wrote it. A cursor is the snapshot of the previous read, so that the next one
// finds exactly the rows that were not visible then (cursor.go): unlike with a
// sequence, a transaction that commits late is not missed, and one that stays open
// delays nothing.
//
// A read returns an account's current state, so one row serves any number of
// changes. The cursor that a reader has committed confirms everything before it
// (readers.go).
package accountlog

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/database"
)

// Users is the service that stores the initial profile of an account.
const Users = "users"

// Profile is the profile that a new account starts with.
type Profile struct {
	FirstName string `json:"first_name"`
	LastName  string `json:"last_name"`
	Locale    string `json:"locale"`
}

const setProfile = `UPDATE auth.account_log SET profile = @profile WHERE account_id = @account_id`

// SetProfile writes the profile that a new account starts with, in the transaction
// that creates the account.
func SetProfile(ctx context.Context, tx database.Execer, account string, profile Profile) error {
	encoded, err := json.Marshal(profile)
	if err != nil {
		return fmt.Errorf("encode the profile: %w", err)
	}
	if _, err := tx.Exec(ctx, setProfile, pgx.NamedArgs{"account_id": account, "profile": encoded}); err != nil {
		return fmt.Errorf("write the account log: %w", err)
	}
	return nil
}

// An older auth may have stored the initial profile there.
const eraseOutbox = `DELETE FROM auth.account_outbox WHERE account_id = @account_id`

// Erase deletes what remains of an account besides its row of the log, in the
// transaction that deletes the account.
func Erase(ctx context.Context, tx pgx.Tx, account string) error {
	if _, err := tx.Exec(ctx, eraseOutbox, pgx.NamedArgs{"account_id": account}); err != nil {
		return fmt.Errorf("erase the outbox row: %w", err)
	}
	return nil
}

// Log reads the account log.
type Log struct {
	db     *database.Pool
	logger *slog.Logger

	mu      sync.Mutex
	changed chan struct{} // closed at the next change
	stopped bool
}

// New returns the log. Run prunes it.
func New(db *database.Pool, logger *slog.Logger) *Log {
	return &Log{db: db, logger: logger, changed: make(chan struct{})}
}

// Soon wakes the readers that wait at this copy of auth.
func (l *Log) Soon() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.stopped {
		close(l.changed)
		l.changed = make(chan struct{})
	}
}

// stop wakes the readers. Later ones do not wait.
func (l *Log) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.stopped {
		l.stopped = true
		close(l.changed)
	}
}

func (l *Log) change() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

// poll is how often a waiting reader looks for the changes of other copies.
const poll = 250 * time.Millisecond

// A row is unseen if its transaction was running when the snapshot was taken, or began later.
// The two kinds are looked up apart, each by the index, so that a long transaction does not
// make a reader pass all rows that were written since it began. Ordered, the second is served
// by the index though Postgres expects a third of all rows; an EXISTS would lose the order.
const existsChange = `
	SELECT coalesce((
		SELECT true FROM ` + running + ofRunning + `
		WHERE deleted OR NOT @deletions_only::boolean
		LIMIT 1), (
		SELECT true FROM auth.account_log
		WHERE xid >= pg_snapshot_xmax(@seen::text::pg_snapshot) AND (deleted OR NOT @deletions_only::boolean)
		ORDER BY xid LIMIT 1), false)`

// running are the transactions that ran when the snapshot was taken, and ofRunning the rows of
// each. The pair of comparisons is an equality for which Postgres uses the index even if one
// transaction wrote most of the table; OFFSET keeps it apart.
const (
	running   = `unnest(ARRAY(SELECT pg_snapshot_xip(@seen::text::pg_snapshot))) AS running (since)`
	ofRunning = ` CROSS JOIN LATERAL (SELECT * FROM auth.account_log WHERE xid >= since AND xid <= since OFFSET 0) AS l`
)

// Wait returns when there is a change after the position, or the time has passed.
func (l *Log) Wait(ctx context.Context, p Position, reader Reader, limit time.Duration) error {
	over := time.NewTimer(limit)
	defer over.Stop()
	ticker := time.NewTicker(poll)
	defer ticker.Stop()
	for {
		changed := l.change()
		var exists bool
		err := l.db.QueryRow(ctx, existsChange, pgx.NamedArgs{"seen": p.seen, "deletions_only": reader.DeletionsOnly}).Scan(&exists)
		if err != nil {
			return fmt.Errorf("look for changes: %w", err)
		}
		if exists {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-over.C:
			return nil
		case <-ticker.C:
		case <-changed:
			if l.hasStopped() {
				return nil
			}
		}
	}
}

func (l *Log) hasStopped() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stopped
}

// Batch is what a read found.
type Batch struct {
	Events []*authv1.AccountEvent
	// Next is the position after the events.
	Next Position
	// More says that the log has further changes.
	More bool
}

// MaxEvents is how many events one read returns.
const MaxEvents = 200

const (
	eventColumns = `
		l.account_id::text, l.xid::text, l.version, l.deleted OR a.id IS NULL, a.status, a.email, a.create_time,
		CASE WHEN @profiles THEN coalesce(l.profile, o.profile) END`
	eventTables = `
		FROM auth.account_log l` + eventJoins
	eventJoins = `
		LEFT JOIN auth.accounts a ON a.id = l.account_id
		LEFT JOIN auth.account_outbox o ON o.account_id = l.account_id`
	beginChanges = `
		WITH unseen AS (
			(SELECT l.* FROM ` + running + ofRunning + ` WHERE true` + inRead
	nextChanges = inOrder + `)
			UNION ALL
			(SELECT * FROM auth.account_log WHERE xid >= pg_snapshot_xmax(@seen::text::pg_snapshot)` + inRead
	endChanges = inOrder + `))
		SELECT ` + eventColumns + ` FROM unseen l` + eventJoins + `
		ORDER BY l.xid, l.account_id LIMIT @most`
	inRead = ` AND (xid, account_id) > (@after_xid::text::xid8, @after_id::uuid)
				AND pg_visible_in_snapshot(xid, @target::text::pg_snapshot)`
	inOrder         = ` ORDER BY xid, account_id LIMIT @most`
	selectChanges   = beginChanges + nextChanges + endChanges
	selectDeletions = beginChanges + ` AND deleted` + nextChanges + ` AND deleted` + endChanges
)

// Read returns the changes after a position.
func (l *Log) Read(ctx context.Context, p Position, reader Reader, most int) (Batch, error) {
	now, err := l.now(ctx)
	if err != nil {
		return Batch{}, err
	}
	p = p.until(now)
	statement := selectChanges
	if reader.DeletionsOnly {
		statement = selectDeletions
	}
	rows, err := l.db.Query(ctx, statement, pgx.NamedArgs{
		"after_xid": p.afterXID, "after_id": p.afterID, "seen": p.seen, "target": p.target, "profiles": reader.Service == Users, "most": most,
	})
	if err != nil {
		return Batch{}, fmt.Errorf("read the account log: %w", err)
	}
	var batch Batch
	last := p
	batch.Events, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (*authv1.AccountEvent, error) {
		event, xid, err := scanEvent(row)
		last.afterXID, last.afterID = xid, event.GetAccountId()
		return event, err
	})
	if err != nil {
		return Batch{}, fmt.Errorf("read the account log: %w", err)
	}
	if batch.More = len(batch.Events) == most; batch.More {
		batch.Next = last
	} else {
		batch.Next = p.reached()
	}
	return batch, nil
}

func scanEvent(row pgx.CollectableRow) (*authv1.AccountEvent, string, error) {
	event := &authv1.AccountEvent{}
	var xid string
	var status, email *string
	var created *time.Time
	var profile []byte
	if err := row.Scan(&event.AccountId, &xid, &event.Version, &event.Deleted, &status, &email, &created, &profile); err != nil {
		return event, "", err
	}
	if event.GetDeleted() {
		return event, xid, nil
	}
	event.Email, event.CreateTime = *email, timestamppb.New(*created)
	event.Status = authv1.AccountStatus_ACCOUNT_STATUS_DISABLED
	if *status == "active" {
		event.Status = authv1.AccountStatus_ACCOUNT_STATUS_ACTIVE
	}
	if len(profile) > 0 {
		var seed Profile
		if err := json.Unmarshal(profile, &seed); err != nil {
			return event, "", fmt.Errorf("decode the profile: %w", err)
		}
		event.Profile = &authv1.ProfileSeed{FirstName: seed.FirstName, LastName: seed.LastName, Locale: seed.Locale}
	}
	return event, xid, nil
}

const selectEvent = `SELECT ` + eventColumns + eventTables + ` WHERE l.account_id = @account_id`

// One returns the current state of one account, with its profile; nil if the log has
// none.
func (l *Log) One(ctx context.Context, account string) (*authv1.AccountEvent, error) {
	rows, err := l.db.Query(ctx, selectEvent, pgx.NamedArgs{"account_id": account, "profiles": true})
	if err != nil {
		return nil, fmt.Errorf("read the account log: %w", err)
	}
	event, err := pgx.CollectExactlyOneRow(rows, func(row pgx.CollectableRow) (*authv1.AccountEvent, error) {
		event, _, err := scanEvent(row)
		return event, err
	})
	if database.Missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the account log: %w", err)
	}
	return event, nil
}

const selectMissing = `
	SELECT asked.id::text FROM unnest(@ids::uuid[]) AS asked (id)
	WHERE NOT EXISTS (SELECT FROM auth.accounts a WHERE a.id = asked.id)`

// Missing returns those of the accounts that do not exist.
func (l *Log) Missing(ctx context.Context, ids []string) ([]string, error) {
	rows, err := l.db.Query(ctx, selectMissing, pgx.NamedArgs{"ids": ids})
	if err != nil {
		return nil, fmt.Errorf("look for accounts: %w", err)
	}
	missing, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("look for accounts: %w", err)
	}
	return missing, nil
}
