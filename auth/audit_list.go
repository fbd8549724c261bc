package auth

import (
	"context"
	"fmt"
	"regexp"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/fault"
	"gatehouse/internal/page"
)

const defaultAuditPage = 25

// Among an account's events, or all, there are few kinds. The list walks the
// kinds by an index, from each to the next, takes the newest events of each kind
// that is asked for, and of these the newest. So no filter makes it read what it
// doesn't return, however much there is. Compared and ordered as rows, a kind's
// events can't be looked for among all by the primary key, which Postgres would
// think cheaper where it takes a rare kind for a common one.
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
			SELECT e.id FROM auth.audit_events e
			WHERE %[2]s AND (e.event, e.outcome, e.id) >= (k.event, k.outcome, @from)
				AND (e.event, e.outcome, e.id) < (k.event, k.outcome, @before)
			ORDER BY e.event DESC, e.outcome DESC, e.id DESC LIMIT @limit) AS found
		WHERE (@event = '' OR k.event = @event OR right(@event, 1) = '.' AND starts_with(k.event, @event))
			AND @outcome IN ('', k.outcome)
		ORDER BY found.id DESC LIMIT @limit
	)
	SELECT ` + auditColumns + ` FROM newest JOIN auth.audit_events e USING (id) ORDER BY id DESC`

	// Without a filter the primary key's order is all it takes.
	listWholeAudit = `
	SELECT ` + auditColumns + ` FROM auth.audit_events e
	WHERE id >= @from AND id < @before
	ORDER BY id DESC LIMIT @limit`

	auditColumns = `id, e.create_time, e.event, e.outcome, e.reason, coalesce(e.account_id::text, ''), coalesce(e.actor_id::text, ''),
		coalesce(e.session_id::text, ''), e.ip_address, e.user_agent, e.request_id, e.count`
)

var (
	eventName       = regexp.MustCompile(`^[a-z_.]*$`)
	errEventUnknown = fault.Invalid(fault.ReasonInvalid, "event", "name an event such as session.login, or the beginning of some up to a dot, such as session.")
)

// ListAuditEvents implements authv1.AuditServiceHandler. Walking the pages meets
// every event once that was there at the first; what happens meanwhile is newer.
func (s *Service) ListAuditEvents(ctx context.Context, req *authv1.ListAuditEventsRequest) (*authv1.ListAuditEventsResponse, error) {
	if !eventName.MatchString(req.GetEvent()) {
		return nil, errEventUnknown
	}
	query := auditQuery{
		account: req.GetAccountId(), actor: req.GetActorId(), event: req.GetEvent(), outcome: req.GetOutcome(),
		from: uuid.Nil, before: uuid.Max,
	}
	if req.GetStartTime() != nil {
		query.from = leastID(req.GetStartTime().AsTime())
	}
	if req.GetEndTime() != nil {
		query.before = leastID(req.GetEndTime().AsTime())
	}
	rest := query
	if req.GetPageToken() != "" {
		var ok bool
		if rest.before, ok = query.parse(req.GetPageToken()); !ok {
			return nil, page.ErrToken
		}
	}
	size := int(req.GetPageSize())
	if size == 0 {
		size = defaultAuditPage
	}
	found, err := s.auditEvents(ctx, rest, size+1) // one more shows that another page follows
	if err != nil {
		return nil, err
	}
	response := &authv1.ListAuditEventsResponse{Events: found}
	if len(found) > size {
		response.Events = found[:size]
		last, err := uuid.Parse(found[size-1].GetId())
		if err != nil {
			return nil, fmt.Errorf("read an event's id: %w", err)
		}
		response.NextPageToken = query.token(last)
	}
	return response, nil
}

// auditQuery says which events are asked for.
type auditQuery struct {
	account, actor string
	event, outcome string
	from, before   uuid.UUID
}

func (q auditQuery) statement() string {
	const ofAccount, ofActor = `e.account_id = @account_id`, `e.actor_id = @actor_id`
	switch {
	case q.account != "" && q.actor != "":
		// Of the kinds that the actor's are. No index serves the second condition
		// as it is written: an actor may have done the like to a hundred thousand.
		return fmt.Sprintf(listAudit, ofActor, ofAccount+" AND e.actor_id IS NOT DISTINCT FROM @actor_id")
	case q.account != "":
		return fmt.Sprintf(listAudit, ofAccount, ofAccount)
	case q.actor != "":
		return fmt.Sprintf(listAudit, ofActor, ofActor)
	case q.event != "" || q.outcome != "":
		return fmt.Sprintf(listAudit, `true`, `true`)
	default:
		return listWholeAudit
	}
}

// auditEvents returns the newest events of a query.
func (s *Service) auditEvents(ctx context.Context, q auditQuery, limit int) ([]*authv1.AuditEvent, error) {
	rows, err := s.db.Query(ctx, q.statement(), pgx.NamedArgs{
		"account_id": optional(q.account), "actor_id": optional(q.actor), "event": q.event, "outcome": q.outcome,
		"from": q.from.String(), "before": q.before.String(), "limit": limit,
	})
	if err != nil {
		return nil, fmt.Errorf("list audit events: %w", err)
	}
	events, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*authv1.AuditEvent, error) {
		var found authv1.AuditEvent
		var happened time.Time
		err := row.Scan(&found.Id, &happened, &found.Event, &found.Outcome, &found.Reason, &found.AccountId, &found.ActorId,
			&found.SessionId, &found.IpAddress, &found.UserAgent, &found.RequestId, &found.Count)
		found.CreateTime = timestamppb.New(happened)
		return &found, err
	})
	if err != nil {
		return nil, fmt.Errorf("list audit events: %w", err)
	}
	return events, nil
}
