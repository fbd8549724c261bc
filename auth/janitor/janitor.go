// Package janitor deletes auth's rows whose retention has ended.
package janitor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"gatehouse/auth/apikeys"
	"gatehouse/auth/audit"
	"gatehouse/auth/challenge"
	"gatehouse/auth/links"
	"gatehouse/auth/throttle"
	"gatehouse/internal/database"
	"gatehouse/internal/once"
)

const (
	pruneInterval = time.Hour
	most          = 10_000 // rows that a statement prunes; prune_audit's limit too
	// SessionRetention is how long a session is kept after its end: for its
	// owner's export, and far longer than its revocation matters.
	SessionRetention = 30 * 24 * time.Hour
)

// Janitor prunes every hour.
type Janitor struct {
	db             *database.Pool
	auditRetention time.Duration
	logger         *slog.Logger
}

// New returns a janitor. Audit events are kept for auditRetention.
func New(db *database.Pool, auditRetention time.Duration, logger *slog.Logger) *Janitor {
	return &Janitor{db: db, auditRetention: auditRetention, logger: logger}
}

// Run prunes every hour, until ctx ends.
func (j *Janitor) Run(ctx context.Context) {
	ticker := time.NewTicker(pruneInterval)
	defer ticker.Stop()
	for {
		if err := j.Prune(ctx); err != nil && ctx.Err() == nil {
			j.logger.LogAttrs(ctx, slog.LevelWarn, "janitor: pruning failed", slog.String("cause", err.Error()))
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

const (
	// One replica at a time is enough. The name stays: earlier versions use it too.
	tryPruneLock = "SELECT pg_try_advisory_xact_lock(hashtextextended('gatehouse let go', 0))"

	pruneAudit = `SELECT auth.prune_audit(@keep::interval)`

	// An event that was written concurrently with the deletion of its account may
	// not have been erased with it.
	eraseAuditAgain = `
		SELECT coalesce(sum(auth.erase_audit(account_id)), 0) FROM auth.audit_events
		WHERE event = 'account.delete' AND outcome = 'succeeded' AND id >= @since AND account_id IS NOT NULL`

	pruneIdempotencyKeys = `
		WITH gone AS (
			DELETE FROM auth.idempotency_keys WHERE name IN (
				SELECT name FROM auth.idempotency_keys WHERE create_time < now() - @life::interval ORDER BY create_time LIMIT @most)
			RETURNING name)
		SELECT count(*) FROM gone`

	pruneLinks = `
		WITH gone AS (
			DELETE FROM auth.links WHERE token_hash = ANY (ARRAY(
				SELECT token_hash FROM auth.links WHERE expire_time < now() - @kept::interval ORDER BY expire_time LIMIT @most))
			RETURNING token_hash)
		SELECT count(*) FROM gone`

	pruneChallenges = `
		WITH gone AS (
			DELETE FROM auth.challenges WHERE token_hash = ANY (ARRAY(
				SELECT token_hash FROM auth.challenges WHERE expire_time < now() - @kept::interval ORDER BY expire_time LIMIT @most))
			RETURNING account_id IS NOT NULL AND purpose IN ('sign_in', 'step_up') AND end_time IS NULL AS expired)
		SELECT count(*), count(*) FILTER (WHERE expired) FROM gone`

	pruneDevices = `
		WITH gone AS (
			DELETE FROM auth.remembered_devices WHERE device_id = ANY (ARRAY(
				SELECT device_id FROM auth.remembered_devices WHERE expire_time < now() ORDER BY expire_time LIMIT @most))
			RETURNING device_id)
		SELECT count(*) FROM gone`

	pruneKeys = `
		WITH gone AS (
			DELETE FROM auth.api_keys WHERE id = ANY (
				ARRAY(SELECT id FROM auth.api_keys WHERE expire_time < now() - @kept::interval ORDER BY expire_time LIMIT @most)
				|| ARRAY(SELECT id FROM auth.api_keys WHERE revoke_time < now() - @kept::interval ORDER BY revoke_time LIMIT @most))
			RETURNING id)
		SELECT count(*) FROM gone`

	// Keys that were attached before the email was verified, by a binary older than schema
	// number 9. They may be valid, and then the event of each takes the lock of its account
	// until the commit: in the order of the accounts, and few, because Postgres' table of locks
	// has about 6,400 places.
	pruneAttachedKeys = `
		WITH gone AS (
			DELETE FROM auth.api_keys WHERE id = ANY (ARRAY(
				SELECT k.id FROM auth.api_keys k JOIN auth.accounts a ON a.id = k.account_id
				WHERE k.attached_unverified AND a.email_verified ORDER BY k.account_id LIMIT @most))
			RETURNING account_id)
		SELECT count(*) FROM gone`

	// The condition is repeated: a failure that is counted meanwhile renews its row.
	pruneThrottles = `
		WITH gone AS (
			DELETE FROM auth.throttles WHERE update_time < now() - @age::interval AND key = ANY (ARRAY(
				SELECT key FROM auth.throttles WHERE update_time < now() - @age::interval ORDER BY update_time LIMIT @most))
			RETURNING key)
		SELECT count(*) FROM gone`

	// A session that is due but not ended, because it was used, gets a later day.
	// Rows that others hold are skipped until the next hour, so that a refresh and
	// this don't wait for each other.
	pruneSessions = `
		WITH due AS (
			SELECT id, expire_time + @kept::interval AS until FROM auth.sessions
			WHERE prune_date <= now()::date
				AND (expire_time + @kept::interval < now() OR (expire_time + @kept::interval)::date > now()::date)
			ORDER BY prune_date LIMIT @most FOR UPDATE SKIP LOCKED
		), later AS (
			UPDATE auth.sessions s SET prune_date = due.until::date
			FROM due WHERE s.id = due.id AND due.until >= now()
			RETURNING s.id
		), gone AS (
			DELETE FROM auth.sessions s USING due WHERE s.id = due.id AND due.until < now()
			RETURNING s.id)
		SELECT (SELECT count(*) FROM later) + (SELECT count(*) FROM gone)`

	pruneRevokedSessions = `
		WITH gone AS (
			DELETE FROM auth.sessions WHERE id = ANY (ARRAY(
				SELECT id FROM auth.sessions WHERE revoke_time < now() - @kept::interval ORDER BY revoke_time LIMIT @most))
			RETURNING id)
		SELECT count(*) FROM gone`
)

// Prune closes the audit log's table of an earlier month, and deletes audit events, sessions, links, challenges, idempotency keys and failures whose
// retention has ended, in batches that hold no lock for long. It does nothing
// while another replica prunes. What fails does not keep it from the rest.
func (j *Janitor) Prune(ctx context.Context) error {
	if err := j.closeAudit(ctx); err != nil && ctx.Err() == nil {
		j.logger.LogAttrs(ctx, slog.LevelWarn, "janitor: closing the audit log failed, retrying in an hour", slog.String("cause", err.Error()))
	}
	var failed []error
	const mostAttached = 500
	for _, work := range []struct {
		what      string
		statement string
		args      pgx.NamedArgs
		// count counts the second column of the result, if there is one.
		count func(context.Context, int64)
	}{
		{"erase from the audit", eraseAuditAgain, pgx.NamedArgs{"since": audit.LeastID(time.Now().Add(-2 * pruneInterval))}, nil},
		{"prune the audit", pruneAudit, pgx.NamedArgs{"keep": j.auditRetention}, nil},
		{"prune the idempotency keys", pruneIdempotencyKeys, pgx.NamedArgs{"life": once.Life, "most": most}, nil},
		{"prune the links", pruneLinks, pgx.NamedArgs{"kept": links.Retention, "most": most}, nil},
		{"prune the challenges", pruneChallenges, pgx.NamedArgs{"kept": challenge.Retention, "most": most}, countExpired},
		{"prune the remembered devices", pruneDevices, pgx.NamedArgs{"most": most}, nil},
		{"prune the API keys", pruneKeys, pgx.NamedArgs{"kept": apikeys.Retention, "most": most}, nil},
		{"prune the attached API keys", pruneAttachedKeys, pgx.NamedArgs{"most": mostAttached}, nil},
		{"prune the throttles", pruneThrottles, pgx.NamedArgs{"age": throttle.Retention, "most": most}, nil},
		{"prune the sessions", pruneSessions, pgx.NamedArgs{"kept": SessionRetention, "most": most}, nil},
		{"prune the revoked sessions", pruneRevokedSessions, pgx.NamedArgs{"kept": SessionRetention, "most": most}, nil},
	} {
		if err := j.pruneAll(ctx, work.statement, work.args, work.count); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", work.what, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(failed...)
}

// pruneAll repeats a statement until it has pruned fewer rows than its limit.
func (j *Janitor) pruneAll(ctx context.Context, statement string, args pgx.NamedArgs, count func(context.Context, int64)) error {
	batch := int64(most)
	if given, ok := args["most"].(int); ok {
		batch = int64(given)
	}
	for done := batch; done >= batch; {
		var counted int64
		err := j.db.Transact(ctx, func(tx pgx.Tx) error {
			var locked bool
			counted = 0
			if err := tx.QueryRow(ctx, tryPruneLock).Scan(&locked); err != nil || !locked {
				done = 0
				return err
			}
			columns := []any{&done}
			if count != nil {
				columns = append(columns, &counted)
			}
			return tx.QueryRow(ctx, statement, args).Scan(columns...)
		})
		if err != nil {
			return err
		}
		if counted > 0 {
			count(ctx, counted)
		}
	}
	return nil
}

// countExpired counts challenges that nobody answered rightly in time. What they were
// offered is no longer known.
func countExpired(ctx context.Context, count int64) { challenge.Count(ctx, "expired", "none", count) }
