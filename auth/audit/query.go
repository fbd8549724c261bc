package audit

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/database"
)

// The events have few kinds. The statement walks the kinds by an index, takes the
// newest events of each requested kind, and of these the newest. So no filter makes
// it read rows that it doesn't return. The row comparisons, which include the account or
// the actor, keep Postgres from scanning the primary key if it overestimates the number
// of events of a kind, and from sorting all events if it underestimates it. LIMIT keeps it from
// reading all closed tables to join them with the newest events. DISTINCT and LIMIT return an
// event once that an older binary copied again after its table was closed.
const (
	listAudit = `
	WITH RECURSIVE kinds (event, outcome) AS (
		(SELECT e.event, e.outcome FROM auth.audit_events e
		WHERE %[1]s
		ORDER BY e.event, e.outcome LIMIT 1)
		UNION ALL
		SELECT next.event, next.outcome FROM kinds k CROSS JOIN LATERAL (
			SELECT e.event, e.outcome FROM auth.audit_events e
			WHERE %[1]s AND (e.event, e.outcome) > (k.event, k.outcome)
			ORDER BY e.event, e.outcome LIMIT 1) AS next
	), newest AS (
		SELECT found.id FROM kinds k CROSS JOIN LATERAL (
			SELECT DISTINCT ON (%[2]se.event, e.outcome, e.id) e.id FROM auth.audit_events e
			WHERE (%[2]se.event, e.outcome, e.id) >= (%[3]sk.event, k.outcome, ` + first + `)
				AND (%[2]se.event, e.outcome, e.id) < (%[3]sk.event, k.outcome, @before) AND %[4]s
			ORDER BY %[5]se.event DESC, e.outcome DESC, e.id DESC LIMIT @limit) AS found
		WHERE (@event = '' OR k.event = @event OR right(@event, 1) = '.' AND starts_with(k.event, @event))
			AND @outcome IN ('', k.outcome)
		ORDER BY found.id DESC LIMIT @limit
	)
	SELECT ` + auditColumns + ` FROM newest CROSS JOIN LATERAL (SELECT * FROM auth.audit_events WHERE id = newest.id LIMIT 1) AS e ORDER BY e.id DESC`

	// Without a filter, the primary key's order suffices.
	listWholeAudit = `
	SELECT DISTINCT ON (e.id) ` + auditColumns + ` FROM auth.audit_events e
	WHERE id >= ` + first + ` AND id < @before
	ORDER BY e.id DESC LIMIT @limit`

	// first is the least id of a page. An event that is older than the retention may exist
	// until its table is dropped, but is not listed. Before the epoch an id has no time.
	first = `greatest(@from::uuid, (lpad(to_hex(floor(extract(epoch FROM greatest(now() - greatest(@life::interval, '30 days'), 'epoch'::timestamptz)) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid)`

	auditColumns = `e.id, e.create_time, e.event, e.outcome, e.reason, coalesce(e.account_id::text, ''), coalesce(e.actor_id::text, ''),
		coalesce(e.session_id::text, ''), e.ip_address, e.user_agent, e.request_id, e.count, e.changed, coalesce(e.target_id::text, '')`
)

// Query filters events. An empty field matches all.
type Query struct {
	Account, Actor string
	Event, Outcome string
	From, Before   uuid.UUID
}

func (q Query) statement() string {
	const ofAccount, ofActor = `e.account_id = @account_id`, `e.actor_id = @actor_id`
	switch {
	case q.Account != "" && q.Actor != "":
		// Of the kinds of the actor's events. The second condition is written so that
		// no index serves it: an actor may have changed a hundred thousand accounts.
		return fmt.Sprintf(listAudit, ofActor, `e.account_id, `, `@account_id, `, `e.actor_id IS NOT DISTINCT FROM @actor_id`, `e.account_id DESC, `)
	case q.Account != "":
		return fmt.Sprintf(listAudit, ofAccount, `e.account_id, `, `@account_id, `, `true`, `e.account_id DESC, `)
	case q.Actor != "":
		return fmt.Sprintf(listAudit, ofActor, `e.actor_id, `, `@actor_id, `, `true`, `e.actor_id DESC, `)
	case q.Event != "" || q.Outcome != "":
		return fmt.Sprintf(listAudit, `true`, ``, ``, `true`, ``)
	default:
		return listWholeAudit
	}
}

// List returns the newest events of a query that are not older than the retention.
func (l *Log) List(ctx context.Context, q Query, limit int) ([]*authv1.AuditEvent, error) {
	rows, err := l.db.Query(ctx, q.statement(), pgx.NamedArgs{
		"account_id": database.Optional(q.Account), "actor_id": database.Optional(q.Actor), "event": q.Event, "outcome": q.Outcome,
		"from": q.From.String(), "before": q.Before.String(), "limit": limit, "life": l.life,
	})
	if err != nil {
		return nil, fmt.Errorf("list audit events: %w", err)
	}
	events, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*authv1.AuditEvent, error) {
		var found authv1.AuditEvent
		var happened time.Time
		err := row.Scan(&found.Id, &happened, &found.Event, &found.Outcome, &found.Reason, &found.AccountId, &found.ActorId,
			&found.SessionId, &found.IpAddress, &found.UserAgent, &found.RequestId, &found.Count, &found.Changed, &found.TargetId)
		found.CreateTime = timestamppb.New(happened)
		return &found, err
	})
	if err != nil {
		return nil, fmt.Errorf("list audit events: %w", err)
	}
	return events, nil
}
