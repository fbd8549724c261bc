package users

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/database"
)

// maxChanged is how many names an audit event has.
const maxChanged = 50

const insertAuditEvent = `
	INSERT INTO users.audit_outbox (id, profile_id, changed, actor_id, session_id, ip_address, user_agent, request_id)
	VALUES (@id, @profile_id, @changed, @actor_id, @session_id, @ip_address, @user_agent, @request_id)`

// writeAuditEvent records a change of attributes, in the transaction of the change.
func writeAuditEvent(ctx context.Context, tx pgx.Tx, profile any, changed []string, actor *usersv1.Actor) error {
	if len(changed) == 0 {
		return nil
	}
	id, err := uuid.NewV7()
	if err != nil {
		return fmt.Errorf("make an id: %w", err)
	}
	_, err = tx.Exec(ctx, insertAuditEvent, pgx.NamedArgs{
		"id": id.String(), "profile_id": profile, "changed": changed[:min(len(changed), maxChanged)],
		"actor_id": database.Optional(actor.GetAccountId()), "session_id": database.Optional(actor.GetSessionId()),
		"ip_address": actor.GetIpAddress(), "user_agent": actor.GetUserAgent(), "request_id": actor.GetRequestId(),
	})
	if err != nil {
		return fmt.Errorf("write an audit event: %w", err)
	}
	return nil
}

const listPendingEvents = `
	SELECT id, create_time, profile_id, changed, coalesce(actor_id::text, ''), coalesce(session_id::text, ''), ip_address, user_agent, request_id
	FROM users.audit_outbox
	ORDER BY id
	LIMIT @most`

// ListPendingEvents implements usersv1.AuditServiceHandler.
func (s *Service) ListPendingEvents(ctx context.Context, req *usersv1.ListPendingEventsRequest) (*usersv1.ListPendingEventsResponse, error) {
	most := int(req.GetPageSize())
	if most == 0 {
		most = defaultPageSize
	}
	rows, err := s.db.Query(ctx, listPendingEvents, pgx.NamedArgs{"most": most})
	if err != nil {
		return nil, fmt.Errorf("list pending audit events: %w", err)
	}
	found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*usersv1.AttributesChanged, error) {
		var id, profile uuid.UUID
		var happened time.Time
		event := &usersv1.AttributesChanged{Actor: &usersv1.Actor{}}
		actor := event.GetActor()
		err := row.Scan(&id, &happened, &profile, &event.Changed, &actor.AccountId, &actor.SessionId, &actor.IpAddress, &actor.UserAgent, &actor.RequestId)
		event.Id, event.AccountId, event.CreateTime = id.String(), profile.String(), timestamppb.New(happened)
		return event, err
	})
	if err != nil {
		return nil, fmt.Errorf("list pending audit events: %w", err)
	}
	return &usersv1.ListPendingEventsResponse{Events: found}, nil
}

const confirmEvents = `DELETE FROM users.audit_outbox WHERE id = ANY (@ids::uuid[])`

// ConfirmEvents implements usersv1.AuditServiceHandler.
func (s *Service) ConfirmEvents(ctx context.Context, req *usersv1.ConfirmEventsRequest) (*usersv1.ConfirmEventsResponse, error) {
	if _, err := s.db.Exec(ctx, confirmEvents, pgx.NamedArgs{"ids": req.GetIds()}); err != nil {
		return nil, fmt.Errorf("confirm audit events: %w", err)
	}
	return &usersv1.ConfirmEventsResponse{}, nil
}
