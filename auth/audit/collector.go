package audit

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/jackc/pgx/v5"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/database"
	"gatehouse/internal/outage"
)

const (
	collectPoll  = time.Second
	collectBatch = 100
	collectLimit = 10 * time.Second
)

// Collector moves audit events from the outbox of users, where they were written with
// the change, to the log. An event is confirmed once it is stored; if the process stops
// in between, the next copy stores it again under the same id, which changes nothing.
type Collector struct {
	db     *database.Pool
	users  usersv1.AuditServiceClient
	logger *slog.Logger
}

// NewCollector returns a collector; without users it does nothing.
func NewCollector(db *database.Pool, users usersv1.AuditServiceClient, logger *slog.Logger) *Collector {
	return &Collector{db: db, users: users, logger: logger}
}

// Run collects until ctx ends.
func (c *Collector) Run(ctx context.Context) {
	if c.users == nil {
		return
	}
	ticker := time.NewTicker(collectPoll)
	defer ticker.Stop()
	failures := outage.Log{Logger: c.logger, Failed: "audit: collecting events of users failed, retrying", Recovered: "audit: collecting events of users recovered"}
	for {
		collected, err := c.collect(ctx)
		if ctx.Err() != nil {
			return
		}
		if connect.CodeOf(err) == connect.CodeUnimplemented { // a users service of the previous version
			err = nil
		}
		failures.Note(ctx, err)
		if err == nil && collected == collectBatch {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// The account may have been deleted since: then the names of its attributes, and the
// IP address and user agent of a deleted actor, are left out, as in auth.erase_audit. The
// constraint belongs to the open table: an event that was stored before that was closed is
// found by its id.
const insertCollected = `
	INSERT INTO auth.audit_events
		(id, create_time, event, outcome, account_id, actor_id, session_id, ip_address, user_agent, request_id, changed)
	SELECT @id, @create_time, @event, @outcome, @account_id, @actor_id, @session_id,
		CASE WHEN acting THEN @ip_address ELSE '' END, CASE WHEN acting THEN @user_agent ELSE '' END, @request_id,
		CASE WHEN there THEN @changed::text[] ELSE '{}' END
	FROM (SELECT EXISTS (SELECT FROM auth.accounts WHERE id = @account_id) AS there,
		EXISTS (SELECT FROM auth.accounts WHERE id = @actor_id) AS acting) AS known
	WHERE NOT EXISTS (SELECT FROM auth.audit_events WHERE id = @id)
	ON CONFLICT ON CONSTRAINT audit_events_pkey DO NOTHING`

// collect stores and confirms one batch, and returns its size.
func (c *Collector) collect(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, collectLimit)
	defer cancel()
	pending, err := c.users.ListPendingEvents(ctx, &usersv1.ListPendingEventsRequest{PageSize: collectBatch})
	if err != nil || len(pending.GetEvents()) == 0 {
		return 0, err
	}
	var ids []string
	for _, event := range pending.GetEvents() {
		tag, err := c.db.Exec(ctx, insertCollected, pgx.NamedArgs{
			"id": event.GetId(), "create_time": event.GetCreateTime().AsTime(), "event": string(AttributesChange), "outcome": string(Succeeded),
			"account_id": event.GetAccountId(), "actor_id": database.Optional(event.GetActor().GetAccountId()),
			"session_id": database.Optional(event.GetActor().GetSessionId()), "ip_address": event.GetActor().GetIpAddress(),
			"user_agent": event.GetActor().GetUserAgent(), "request_id": event.GetActor().GetRequestId(), "changed": event.GetChanged(),
		})
		if err != nil {
			return 0, fmt.Errorf("store an audit event of users: %w", err)
		}
		if tag.RowsAffected() > 0 {
			events.Add(ctx, 1, metric.WithAttributes(
				attribute.String("event", string(AttributesChange)), attribute.String("outcome", string(Succeeded)), attribute.String("reason", "")))
		}
		ids = append(ids, event.GetId())
	}
	if _, err := c.users.ConfirmEvents(ctx, &usersv1.ConfirmEventsRequest{Ids: ids}); err != nil {
		return 0, fmt.Errorf("confirm audit events of users: %w", err)
	}
	return len(ids), nil
}
