package audit

import (
	"context"
	"strings"
	"time"

	"gatehouse/auth/throttle"
	"gatehouse/internal/database"
	"gatehouse/internal/fault"
)

// Log writes refusals and lists events. Refusals of one event, for one reason and one account or
// network, are one row a minute with a count. The row's other columns are those
// of the first.
type Log struct {
	db       *database.Pool
	throttle *throttle.Throttle
	life     time.Duration
}

// NewLog returns a log that lists events for life, at least 30 days. The throttle's keys name
// what refusals are aggregated by.
func NewLog(db *database.Pool, throttle *throttle.Throttle, life time.Duration) *Log {
	return &Log{db: db, throttle: throttle, life: life}
}

// Refuse writes that an event was refused, for the error's reason, and returns
// the error. An error without a reason is a fault of the system, not a refusal, and so is
// one that asks for another attempt because something is unavailable.
func (l *Log) Refuse(ctx context.Context, row Row, err error) error {
	reason := fault.Reason(err)
	if reason == "" || reason == fault.ReasonUnavailable {
		return err
	}
	row.Outcome, row.Reason = Refused, reason
	if failure := l.WriteRefusal(ctx, l.db, row); failure != nil {
		return failure
	}
	return err
}

// WriteRefusal writes a refusal, or counts it if this minute already has a row for it.
func (l *Log) WriteRefusal(ctx context.Context, db database.Execer, row Row) error {
	subject := row.Subject
	switch {
	case subject != "":
	case row.Origin.GetAccountId() != "":
		subject = "account:" + row.Origin.GetAccountId()
	case row.Account != "":
		subject = "account:" + row.Account
	default:
		subject = "network:" + throttle.Network(row.Origin.GetIpAddress())
	}
	return write(ctx, db, row, l.throttle.Key("refusal", strings.Join([]string{string(row.Event), row.Reason, subject}, "\n")))
}

const insertRefusal = `
	WITH now AS MATERIALIZED (
		SELECT date_trunc('minute', clock_timestamp()) AS minute
	), written AS (
		INSERT INTO auth.audit_events
			(id, create_time, event, outcome, reason, account_id, actor_id, session_id, ip_address, user_agent, request_id,
			target_id, refusal_key, refusal_minute)
		SELECT @id, @create_time, @event, @outcome, @reason, @account_id, @actor_id, @session_id, @ip_address, @user_agent, @request_id,
			@target_id, @refusal_key, now.minute
		FROM now
		ON CONFLICT (refusal_key, refusal_minute) WHERE refusal_key IS NOT NULL DO NOTHING
		RETURNING id
	)
	SELECT auth.count_refusal(@refusal_key, now.minute) FROM now WHERE NOT EXISTS (SELECT FROM written)`
