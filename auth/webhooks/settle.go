package webhooks

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"gatehouse/auth/audit"
	"gatehouse/auth/outbox"
	"gatehouse/internal/crashpoint"
	"gatehouse/internal/database"
)

const (
	// breakerFailures is after how many failures in a row the circuit breaker of an endpoint
	// opens: for firstPause, twice that after each further failure, up to maxPause. Then one
	// attempt decides.
	breakerFailures = 5
	// countedAttempts are the attempts of a delivery that count as failures while the circuit
	// breaker is closed. Later ones say that the endpoint refuses this event, and must not
	// delay those of other accounts.
	countedAttempts = 2
	firstPause      = 10 * time.Second
	maxPause        = 5 * time.Minute
	// failingLimit is after which time without a success an endpoint is disabled.
	failingLimit = 5 * 24 * time.Hour
	// alertInterval is how often administrators get a mail about an endpoint.
	alertInterval = 24 * time.Hour
)

// settle records the result of an attempt.
func (s *Service) settle(ctx context.Context, row lease, to endpoint, r result) error {
	err := s.db.Transact(ctx, func(tx pgx.Tx) (err error) {
		switch {
		case r.ok():
			err = s.succeed(ctx, tx, row, to, r)
		case r.stopped:
			_, err = tx.Exec(ctx, giveBack, pgx.NamedArgs{"id": row.ID, "lease_time": row.LeaseTime})
		default:
			err = s.fail(ctx, tx, row, r)
		}
		crashpoint.Reach("auth: before a delivery is recorded")
		return err
	})
	crashpoint.Reach("auth: after a delivery is recorded")
	return err
}

// stillLeased is the condition of a delivery whose lease is still that of this attempt. After its
// end another copy may hold the delivery, or may have ended it: it is left alone. Attempts
// are no condition, because a retry by an administrator begins with the first again.
const stillLeased = `lease_time = @lease_time AND sent_time IS NULL AND fail_time IS NULL`

const (
	// The endpoint has the event, even if another copy has leased it meanwhile.
	markSent = `
		UPDATE auth.deliveries SET sent_time = now(), fail_time = NULL, lease_time = NULL, last_status = @status, last_error = '', last_milliseconds = @milliseconds
		WHERE id = @id AND sent_time IS NULL`
	releaseNext = `
		UPDATE auth.deliveries SET next_attempt_time = least(next_attempt_time, now())
		WHERE lease_time IS NULL AND attempts = 0 AND id = (
			SELECT d.id FROM auth.deliveries d
			WHERE d.webhook_id = @webhook_id AND d.account_id = @account_id AND ` + pending + `
			ORDER BY d.event_time, d.id LIMIT 1)`
	markHealthy = `
		UPDATE auth.webhooks SET failures = 0, fail_since_time = NULL, resume_time = NULL
		WHERE id = @webhook_id AND (failures > 0 OR fail_since_time IS NOT NULL OR resume_time IS NOT NULL)`
	// What waits for a further attempt has it once the circuit breaker closes or the endpoint
	// is enabled. What was never attempted and waits for an earlier event of its account is not
	// written: the end of that one releases it.
	releaseAll = `
		UPDATE auth.deliveries SET next_attempt_time = now()
		WHERE id IN (
			SELECT d.id FROM auth.deliveries d
			WHERE d.webhook_id = @webhook_id AND ` + pending + ` AND (d.lease_time IS NULL OR d.lease_time <= now()) AND d.next_attempt_time > now()
				AND (d.attempts > 0 OR NOT EXISTS (` + before + `))
			FOR NO KEY UPDATE OF d SKIP LOCKED)`
	giveBack = `
		UPDATE auth.deliveries SET attempts = attempts - 1, lease_time = NULL, next_attempt_time = now()
		WHERE id = @id AND ` + stillLeased
)

func (s *Service) succeed(ctx context.Context, tx pgx.Tx, row lease, to endpoint, r result) error {
	args := pgx.NamedArgs{
		"id": row.ID, "webhook_id": row.WebhookID, "account_id": row.AccountID, "status": r.status, "milliseconds": r.duration.Milliseconds(),
	}
	statements := []string{markSent, markHealthy}
	if row.AccountID != nil {
		statements = append(statements, releaseNext)
	}
	if to.failures >= breakerFailures {
		statements = append(statements, releaseAll)
	}
	for _, statement := range statements {
		if _, err := tx.Exec(ctx, statement, args); err != nil {
			return fmt.Errorf("record that the event was sent: %w", err)
		}
	}
	return nil
}

const (
	postpone = `
		UPDATE auth.deliveries SET
			lease_time = NULL, last_status = @status, last_error = @text, last_milliseconds = @milliseconds,
			next_attempt_time = now() + @backoff::interval, fail_time = CASE WHEN @give_up::boolean THEN now() END
		WHERE id = @id AND ` + stillLeased + `
		RETURNING fail_time IS NOT NULL`
	// After a dead letter, an endpoint to which nothing else is to be sent is left unattempted:
	// a failure long after that is the first one of another time of failing.
	markFailing = `
		WITH was AS (
			SELECT enabled, least(failures + CASE WHEN @counts::boolean OR failures >= @breaker::integer THEN 1 ELSE 0 END, 1000000) AS failures
			FROM auth.webhooks WHERE id = @webhook_id FOR NO KEY UPDATE)
		UPDATE auth.webhooks w SET
			failures = was.failures,
			fail_since_time = CASE WHEN @dead::boolean AND NOT EXISTS (SELECT FROM auth.deliveries d WHERE d.webhook_id = w.id AND ` + pending + `)
				THEN NULL ELSE coalesce(fail_since_time, now()) END,
			resume_time = greatest(resume_time, CASE WHEN was.failures >= @breaker::integer OR @retry_after::interval > '0'
				THEN now() + greatest(@retry_after::interval, CASE WHEN was.failures >= @breaker::integer
					THEN least(@first_pause::interval * power(2, least(was.failures - @breaker::integer, 20)), @max_pause::interval) ELSE '0' END) END),
			enabled = w.enabled AND NOT (@gone::boolean OR coalesce(fail_since_time, now()) < now() - @failing::interval),
			disable_reason = CASE WHEN NOT w.enabled THEN disable_reason WHEN @gone::boolean THEN 'gone'
				WHEN coalesce(fail_since_time, now()) < now() - @failing::interval THEN 'failing' ELSE '' END
		FROM was WHERE w.id = @webhook_id
		RETURNING w.url, CASE WHEN was.enabled THEN w.disable_reason ELSE '' END`
	// Administrators get one mail a day about an endpoint, and one when it is disabled.
	noteAlert = `
		UPDATE auth.webhooks SET alert_time = now()
		WHERE id = @webhook_id AND (@disabled::boolean OR alert_time IS NULL OR alert_time < now() - @interval::interval)`
	selectAdministrators = `
		SELECT id::text, email FROM auth.accounts WHERE status = 'active' AND 'admin' = ANY (roles) AND (password_hash <> '' OR has_sign_in)
		ORDER BY id LIMIT 20`
)

func (s *Service) fail(ctx context.Context, tx pgx.Tx, row lease, r result) error {
	backoff, again := backoffAfter(row.Attempts)
	var dead bool
	err := tx.QueryRow(ctx, postpone, pgx.NamedArgs{
		"id": row.ID, "lease_time": row.LeaseTime, "status": r.status, "text": r.text, "milliseconds": r.duration.Milliseconds(),
		"backoff": max(backoff, r.retryAfter), "give_up": !again,
	}).Scan(&dead)
	if database.Missing(err) {
		s.logger.LogAttrs(ctx, slog.LevelWarn, "webhooks: lease lost before the result", slog.String("webhook_id", row.WebhookID), slog.String("delivery_id", row.ID))
		return nil
	}
	if err != nil {
		return fmt.Errorf("postpone the delivery: %w", err)
	}
	var url, disabled string
	err = tx.QueryRow(ctx, markFailing, pgx.NamedArgs{
		"webhook_id": row.WebhookID, "breaker": breakerFailures, "counts": row.Attempts <= countedAttempts, "first_pause": jittered(firstPause), "max_pause": maxPause,
		"retry_after": r.retryAfter, "gone": r.gone, "dead": dead, "failing": failingLimit,
	}).Scan(&url, &disabled)
	if err != nil {
		return fmt.Errorf("count the failure: %w", err)
	}
	if disabled != "" {
		s.logger.LogAttrs(ctx, slog.LevelError, "webhooks: endpoint disabled", slog.String("webhook_id", row.WebhookID), slog.String("reason", disabled))
		if err := audit.Write(ctx, tx, audit.Row{Event: audit.WebhookDisable, Outcome: audit.Succeeded, Target: row.WebhookID}); err != nil {
			return err
		}
	}
	if !dead {
		if disabled == "" {
			return nil
		}
		return s.alert(ctx, tx, row, url, disabled)
	}
	if row.AccountID != nil {
		if _, err := tx.Exec(ctx, releaseNext, pgx.NamedArgs{"webhook_id": row.WebhookID, "account_id": row.AccountID}); err != nil {
			return fmt.Errorf("release the next event: %w", err)
		}
	}
	failure := audit.Row{Event: audit.WebhookFail, Outcome: audit.Refused, Reason: "WEBHOOK_UNDELIVERED", Target: row.WebhookID}
	if row.AccountID != nil {
		failure.Account = *row.AccountID
	}
	if err := audit.Write(ctx, tx, failure); err != nil {
		return err
	}
	return s.alert(ctx, tx, row, url, disabled)
}

// alert mails administrators about an endpoint.
func (s *Service) alert(ctx context.Context, tx pgx.Tx, row lease, url, disabled string) error {
	if !s.mails.Enabled() {
		return nil
	}
	tag, err := tx.Exec(ctx, noteAlert, pgx.NamedArgs{"webhook_id": row.WebhookID, "disabled": disabled != "", "interval": alertInterval})
	if err != nil || tag.RowsAffected() == 0 {
		return err
	}
	rows, err := tx.Query(ctx, selectAdministrators)
	if err != nil {
		return fmt.Errorf("read the administrators: %w", err)
	}
	people, err := pgx.CollectRows(rows, pgx.RowToStructByPos[struct{ ID, Email string }])
	if err != nil {
		return fmt.Errorf("read the administrators: %w", err)
	}
	kind := outbox.WebhookFailed
	if disabled != "" {
		kind = outbox.WebhookDisabled
	}
	for _, person := range people {
		values := map[string]string{"webhook_url": url, "webhook_id": row.WebhookID, "time": time.Now().UTC().Format(time.RFC3339)}
		if err := s.mails.Enqueue(ctx, tx, outbox.Mail{Kind: kind, To: person.Email, Account: person.ID, Values: values}); err != nil {
			return err
		}
	}
	return nil
}
