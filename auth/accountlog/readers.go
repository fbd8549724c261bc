package accountlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"gatehouse/internal/database"
)

// Reader is a service that reads the log.
type Reader struct {
	Service string
	// DeletionsOnly says that the service reads only deletions.
	DeletionsOnly bool
}

// reportInterval is how often a read without changes is stored.
const reportInterval = 10 * time.Second

// pushAfter is the time without a read after which auth delivers to users. A users
// service that reads does so at least every reportInterval.
const pushAfter = 30 * time.Second

const confirm = `
	INSERT INTO auth.account_readers (service, cursor, seen, deletions_only, report_time)
	VALUES (@service, @cursor, @seen, @deletions_only, now())
	ON CONFLICT ON CONSTRAINT account_readers_pkey DO UPDATE
	SET cursor = excluded.cursor, seen = excluded.seen, deletions_only = excluded.deletions_only, report_time = excluded.report_time
	WHERE account_readers.cursor <> excluded.cursor OR account_readers.deletions_only <> excluded.deletions_only
		OR account_readers.report_time < now() - @report_interval::interval`

// Confirm records that a service has committed everything before the position.
func (l *Log) Confirm(ctx context.Context, reader Reader, p Position) error {
	_, err := l.db.Exec(ctx, confirm, pgx.NamedArgs{
		"service": reader.Service, "cursor": p.Cursor(), "seen": p.seen, "deletions_only": reader.DeletionsOnly,
		"report_interval": reportInterval,
	})
	if err != nil {
		return fmt.Errorf("record the reader's position: %w", err)
	}
	return nil
}

const register = `
	INSERT INTO auth.account_readers (service, deletions_only, report_time)
	SELECT service, deletions_only, '-infinity' FROM unnest(@services::text[], @deletions::boolean[]) AS e (service, deletions_only)
	ON CONFLICT ON CONSTRAINT account_readers_pkey DO NOTHING`

// Register makes readers known that have not read yet.
func (l *Log) Register(ctx context.Context, readers []Reader) error {
	services, deletionsOnly := columns(readers)
	if _, err := l.db.Exec(ctx, register, pgx.NamedArgs{"services": services, "deletions": deletionsOnly}); err != nil {
		return fmt.Errorf("register the readers: %w", err)
	}
	return nil
}

const noteRead = `UPDATE auth.account_readers SET report_time = now() WHERE service = @service`

// NoteRead records that a service has read. Once that is committed, Postgres does not
// give a transaction ID again that the read has seen, even after a crash.
func (l *Log) NoteRead(ctx context.Context, reader Reader) error {
	if _, err := l.db.Exec(ctx, noteRead, pgx.NamedArgs{"service": reader.Service}); err != nil {
		return fmt.Errorf("record the read: %w", err)
	}
	return nil
}

const (
	// A users service that reads by itself needs no delivery.
	selectPush = `
		SELECT NOT EXISTS (SELECT FROM auth.account_readers WHERE service = @service)
			OR EXISTS (
				SELECT FROM auth.account_readers r
				WHERE r.service = @service AND r.report_time < now() - @push_after::interval AND r.lease_time < now()
					AND coalesce((
						SELECT true FROM pg_snapshot_xip(r.seen::pg_snapshot) AS since` + ofRunning + ` LIMIT 1), (
						SELECT true FROM auth.account_log l
						WHERE l.xid >= pg_snapshot_xmax(r.seen::pg_snapshot) ORDER BY l.xid LIMIT 1)))`
	leasePush = `
		INSERT INTO auth.account_readers (service, report_time, lease_time)
		VALUES (@service, '-infinity', now() + @lease::interval)
		ON CONFLICT ON CONSTRAINT account_readers_pkey DO UPDATE SET lease_time = excluded.lease_time
		WHERE account_readers.report_time < now() - @push_after::interval AND account_readers.lease_time < now()
		RETURNING cursor`
	endPush = `
		UPDATE auth.account_readers SET cursor = @cursor, seen = @seen, lease_time = '-infinity'
		WHERE service = @service AND report_time < now() - @push_after::interval`
)

// Lease leases the delivery to a users service that does not read by itself, and
// returns the position from which to deliver. ok is false if there is nothing to
// deliver, or another copy of auth does.
func (l *Log) Lease(ctx context.Context, lease time.Duration) (p Position, ok bool, err error) {
	args := pgx.NamedArgs{"service": Users, "push_after": pushAfter, "lease": lease}
	if err := l.db.QueryRow(ctx, selectPush, args).Scan(&ok); err != nil || !ok {
		return Position{}, false, err
	}
	var cursor string
	err = l.db.QueryRow(ctx, leasePush, args).Scan(&cursor)
	if database.Missing(err) {
		return Position{}, false, nil
	}
	if err != nil {
		return Position{}, false, fmt.Errorf("lease the delivery: %w", err)
	}
	if p, err = l.Open(ctx, cursor); errors.Is(err, ErrExpired) {
		p, err = Position{seen: nothing}, nil
	}
	return p, err == nil, err
}

// Unlease ends the lease, with the position up to which users has everything.
func (l *Log) Unlease(ctx context.Context, p Position) error {
	_, err := l.db.Exec(ctx, endPush, pgx.NamedArgs{"service": Users, "cursor": p.Cursor(), "seen": p.seen, "push_after": pushAfter})
	if err != nil {
		return fmt.Errorf("end the lease of the delivery: %w", err)
	}
	return nil
}

// maintenance deletes rows that are no longer needed, in batches.
var maintenance = []struct{ what, statement string }{
	{"delete initial profiles", `
		WITH confirmed AS (
			SELECT l.account_id FROM auth.account_log l, auth.account_readers r
			WHERE r.service = 'users' AND l.profile IS NOT NULL AND pg_visible_in_snapshot(l.xid, r.seen::pg_snapshot)
			LIMIT @most FOR UPDATE OF l SKIP LOCKED
		), done AS (
			UPDATE auth.account_log l SET profile = NULL FROM confirmed c WHERE l.account_id = c.account_id RETURNING l.account_id)
		SELECT count(*) FROM done`},
	{"delete the outbox rows of an older version", `
		WITH confirmed AS (
			SELECT o.account_id, o.version FROM auth.account_outbox o, auth.account_readers r
			WHERE r.service = 'users' AND (
				SELECT o.version <= l.version AND pg_visible_in_snapshot(l.xid, r.seen::pg_snapshot)
				FROM auth.account_log l WHERE l.account_id = o.account_id)
			LIMIT @most FOR UPDATE OF o SKIP LOCKED
		), done AS (
			DELETE FROM auth.account_outbox o USING confirmed c WHERE o.account_id = c.account_id AND o.version = c.version RETURNING o.account_id)
		SELECT count(*) FROM done`},
	// A cursor that is older is refused.
	{"prune the account log", `
		WITH done AS (
			DELETE FROM auth.account_log WHERE account_id IN (
				SELECT account_id FROM auth.account_log WHERE deleted AND change_time < now() - @retention::interval - interval '1 day'
				ORDER BY change_time LIMIT @most FOR UPDATE SKIP LOCKED)
			RETURNING account_id)
		SELECT count(*) FROM done`},
	// A database that was restored into another server has transaction IDs of the
	// former one, which may be in this one's future.
	{"renumber the account log", `
		WITH done AS (
			UPDATE auth.account_log SET xid = pg_current_xact_id()
			WHERE xid > pg_snapshot_xmax(pg_current_snapshot()) RETURNING account_id)
		SELECT count(*) FROM done`},
}

const maintenanceInterval = 2 * time.Second

// Maintain deletes initial profiles and old outbox rows that users has confirmed, and
// deletions whose retention has ended.
func (l *Log) Maintain(ctx context.Context) error {
	const most = 2000
	for _, work := range maintenance {
		for done := most; done == most; {
			if err := l.db.QueryRow(ctx, work.statement, pgx.NamedArgs{"most": most, "retention": Retention}).Scan(&done); err != nil {
				return fmt.Errorf("%s: %w", work.what, err)
			}
		}
	}
	return nil
}

// Run maintains the log until ctx ends. Then no reader waits any longer.
func (l *Log) Run(ctx context.Context) {
	defer l.stop()
	ticker := time.NewTicker(maintenanceInterval)
	defer ticker.Stop()
	for {
		if err := l.Maintain(ctx); err != nil && ctx.Err() == nil {
			l.logger.LogAttrs(ctx, slog.LevelWarn, "account log: maintenance failed", slog.String("cause", err.Error()))
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}
