package auth

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/rpc"
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
	eventPasswordForce  event = "account.password.force"
	eventLinkRequest    event = "link.request" // a link was asked for
	eventLinkSend       event = "link.send"    // one that somebody not signed in asked for goes to the account's address
	eventLinkVerify     event = "link.verify"
	eventLinkReset      event = "link.reset"
	eventLinkEmail      event = "link.email"
	eventLogin          event = "session.login"
	eventReauthenticate event = "session.reauthenticate"
	eventLogout         event = "session.logout"
	eventSessionRevoke  event = "session.revoke"
	eventRefresh        event = "session.refresh" // only refusals
	eventRefreshReuse   event = "session.refresh.reuse"
	eventAccountExport  event = "account.export"
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
		(id, create_time, event, outcome, reason, account_id, actor_id, session_id, ip_address, user_agent, request_id)
	VALUES
		(@id, @create_time, @event, @outcome, @reason, @account_id, @actor_id, @session_id, @ip_address, @user_agent, @request_id)`

// execer is a pool or a transaction.
type execer interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// audit writes the row. In a transaction it stands or falls with the change. The
// id tells the same time as create_time, so that one index serves both the order
// and the time of a query.
func audit(ctx context.Context, db execer, row audited) error {
	id, err := uuid.NewV7()
	if err != nil {
		return fmt.Errorf("make an id: %w", err)
	}
	if row.session == "" {
		row.session = row.origin.GetSessionId()
	}
	_, err = db.Exec(ctx, insertAudit, pgx.NamedArgs{
		"id": id.String(), "create_time": time.Unix(id.Time().UnixTime()), "event": string(row.event), "outcome": string(row.outcome), "reason": row.reason,
		"account_id": optional(row.account), "actor_id": optional(row.origin.GetAccountId()), "session_id": optional(row.session),
		"ip_address": row.origin.GetIpAddress(), "user_agent": row.origin.GetUserAgent(), "request_id": row.origin.GetRequestId(),
	})
	if err != nil {
		return fmt.Errorf("audit %s: %w", row.event, err)
	}
	countEvent(ctx, row)
	return noteChange(ctx, db, row)
}

// refuse audits that something was refused, for the error's reason, and returns
// the error. A fault of ours has no reason and is no refusal.
func (s *Service) refuse(ctx context.Context, row audited, err error) error {
	reason := rpc.Reason(err)
	if reason == "" {
		return err
	}
	row.outcome, row.reason = refused, reason
	if failure := audit(ctx, s.db, row); failure != nil {
		return failure
	}
	return err
}

// optional makes an empty text NULL.
func optional(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}
