package auth

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	letGoPeriod = time.Hour
	// sessionsKept is for how long a session is kept after its end: for its
	// owner's export, and far longer than a revocation of it matters.
	sessionsKept = 30 * 24 * time.Hour
)

// letGo deletes what is old every hour, until ctx ends.
func (s *Service) letGo(ctx context.Context) {
	ticker := time.NewTicker(letGoPeriod)
	defer ticker.Stop()
	for {
		if err := s.LetGo(ctx); err != nil && ctx.Err() == nil {
			s.logger.LogAttrs(ctx, slog.LevelWarn, "what is old stays for now", slog.String("cause", err.Error()))
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

const (
	// One copy at a time is enough.
	tryLetGoLock = "SELECT pg_try_advisory_xact_lock(hashtextextended('gatehouse let go', 0))"

	pruneAudit = `SELECT auth.prune_audit(@keep::interval)`

	// What was being written about an account while it was deleted may have
	// missed being erased with it.
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

	// A failure that is counted meanwhile makes its row new: it is looked at again.
	pruneThrottles = `
		WITH gone AS (
			DELETE FROM auth.throttles WHERE update_time < now() - @age::interval AND key = ANY (ARRAY(
				SELECT key FROM auth.throttles WHERE update_time < now() - @age::interval ORDER BY update_time LIMIT @most))
			RETURNING key)
		SELECT count(*) FROM gone`

	pruneSessions = `
		WITH gone AS (
			DELETE FROM auth.sessions WHERE id IN (
				(SELECT id FROM auth.sessions WHERE expire_time < now() - @kept::interval ORDER BY expire_time LIMIT @most)
				UNION
				(SELECT id FROM auth.sessions WHERE revoke_time < now() - @kept::interval ORDER BY revoke_time LIMIT @most))
			RETURNING id)
		SELECT count(*) FROM gone`
)

// LetGo deletes audit events older than the setting says, sessions and links that
// ended long ago, and idempotency keys and failures that don't count any more, in
// steps that hold no lock for long. If another copy is at it, it does nothing.
func (s *Service) LetGo(ctx context.Context) error {
	const most = 10_000 // which is prune_audit's limit too
	for _, work := range []struct {
		what      string
		statement string
		args      pgx.NamedArgs
	}{
		{"erase from the audit", eraseAuditAgain, pgx.NamedArgs{"since": leastID(time.Now().Add(-2 * letGoPeriod))}},
		{"prune the audit", pruneAudit, pgx.NamedArgs{"keep": s.auditLife}},
		{"prune the idempotency keys", pruneIdempotencyKeys, pgx.NamedArgs{"life": idempotencyLife, "most": most}},
		{"prune the links", pruneLinks, pgx.NamedArgs{"kept": linksKept, "most": most}},
		{"prune the throttles", pruneThrottles, pgx.NamedArgs{"age": quiet + maxWait, "most": most}},
		{"prune the sessions", pruneSessions, pgx.NamedArgs{"kept": sessionsKept, "most": most}},
	} {
		for done := int64(most); done >= most; {
			err := s.transact(ctx, func(tx pgx.Tx) error {
				var ours bool
				if err := tx.QueryRow(ctx, tryLetGoLock).Scan(&ours); err != nil || !ours {
					done = 0
					return err
				}
				return tx.QueryRow(ctx, work.statement, work.args).Scan(&done)
			})
			if err != nil {
				return fmt.Errorf("%s: %w", work.what, err)
			}
		}
	}
	return nil
}
