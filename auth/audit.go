package auth

import (
	"context"
	"fmt"

	"connectrpc.com/connect/v2"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	authv1 "gatehouse/gen/auth/v1"
)

// An event is something that changed or tried an identity.
type event string

const (
	eventAccountCreate  event = "account.create"
	eventAccountDelete  event = "account.delete"
	eventAccountDisable event = "account.disable"
	eventAccountEnable  event = "account.enable"
	eventEmailChange    event = "account.email.change"
	eventRolesChange    event = "account.roles.change"
	eventPasswordChange event = "account.password.change"
	eventLogin          event = "session.login"
	eventReauthenticate event = "session.reauthenticate"
	eventLogout         event = "session.logout"
	eventSessionRevoke  event = "session.revoke"
	eventRefreshReuse   event = "session.refresh.reuse"
)

type outcome string

const (
	succeeded outcome = "succeeded"
	refused   outcome = "refused"
)

// audited is one row of the audit. It names ids alone: an email, a password or
// a token never stands in it.
type audited struct {
	event   event
	outcome outcome
	reason  string // why it was refused, as an error reason
	account string // "" when there is none
	session string // the session it concerns; "" for that of the origin
	origin  *authv1.Origin
}

const insertAudit = `
	INSERT INTO auth.audit_events
		(id, event, outcome, reason, account_id, actor_id, session_id, ip_address, user_agent, request_id)
	VALUES
		(@id, @event, @outcome, @reason, @account_id, @actor_id, @session_id, @ip_address, @user_agent, @request_id)`

// execer is a pool or a transaction.
type execer interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// audit writes the row. In a transaction it stands or falls with the change.
func audit(ctx context.Context, db execer, row audited) error {
	id, err := uuid.NewV7()
	if err != nil {
		return fmt.Errorf("make an id: %w", err)
	}
	if row.session == "" {
		row.session = row.origin.GetSessionId()
	}
	_, err = db.Exec(ctx, insertAudit, pgx.NamedArgs{
		"id": id.String(), "event": string(row.event), "outcome": string(row.outcome), "reason": row.reason,
		"account_id": optional(row.account), "actor_id": optional(row.origin.GetAccountId()), "session_id": optional(row.session),
		"ip_address": row.origin.GetIpAddress(), "user_agent": row.origin.GetUserAgent(), "request_id": row.origin.GetRequestId(),
	})
	if err != nil {
		return fmt.Errorf("audit %s: %w", row.event, err)
	}
	countEvent(ctx, row)
	return noteChange(ctx, db, row)
}

// ListAuditEvents implements authv1.AuditServiceHandler.
func (s *Service) ListAuditEvents(ctx context.Context, req *authv1.ListAuditEventsRequest) (*authv1.ListAuditEventsResponse, error) {
	return nil, connect.NewError(connect.CodeUnimplemented, "")
}

// optional makes an empty text NULL.
func optional(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}
