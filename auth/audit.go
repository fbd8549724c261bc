package auth

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	authv1 "gatehouse/gen/auth/v1"
)

// An event is something that changed or tried an identity.
type event string

const (
	eventAccountCreate  event = "account.create"          // An account is made: by its owner, an administrator, an import or a first start.
	eventAccountDelete  event = "account.delete"          // An account is deleted, by its owner or an administrator.
	eventAccountDisable event = "account.disable"         // An account is disabled, which ends its sessions.
	eventAccountEnable  event = "account.enable"          // A disabled account may sign in again.
	eventAccountExport  event = "account.export"          // A person has taken out what is kept about them.
	eventEmailChange    event = "account.email.change"    // An administrator has changed an account's email.
	eventRolesChange    event = "account.roles.change"    // An account has other roles.
	eventPasswordChange event = "account.password.change" // A password is replaced, by its owner or an operator.
	eventPasswordForce  event = "account.password.force"  // An administrator has taken a password away: a mailed link sets the next one.
	eventLinkRequest    event = "link.request"            // A link was asked for; nothing tells whether there is an account.
	eventLinkSend       event = "link.send"               // A link that somebody not signed in asked for goes to the account's address.
	eventLinkVerify     event = "link.verify"             // The link of a registration or an invitation is used.
	eventLinkReset      event = "link.reset"              // The link for another password is used.
	eventLinkEmail      event = "link.email"              // The link that proves a new email is used.
	eventLogin          event = "session.login"           // Somebody signs in with a password.
	eventReauthenticate event = "session.reauthenticate"  // Somebody signed in gives their password once more.
	eventLogout         event = "session.logout"          // A session is ended by its holder.
	eventSessionRevoke  event = "session.revoke"          // One session or more are ended from another, or by an administrator.
	eventRefresh        event = "session.refresh"         // A refresh token is refused. One that is accepted isn't audited.
	eventRefreshReuse   event = "session.refresh.reuse"   // A refresh token is used again after its time: its session is ended.
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
	subject string // what refusals are counted for; "" for the account or the network
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
	return writeAudit(ctx, db, row, nil)
}

// writeAudit is audit; a refusal with a key may be counted instead.
func writeAudit(ctx context.Context, db execer, row audited, refusalKey []byte) error {
	id, err := uuid.NewV7()
	if err != nil {
		return fmt.Errorf("make an id: %w", err)
	}
	if row.session == "" {
		row.session = row.origin.GetSessionId()
	}
	statement, args := auditStatement(pgx.NamedArgs{
		"id": id.String(), "create_time": time.Unix(id.Time().UnixTime()), "event": string(row.event), "outcome": string(row.outcome), "reason": row.reason,
		"account_id": optional(row.account), "actor_id": optional(row.origin.GetAccountId()), "session_id": optional(row.session),
		"ip_address": row.origin.GetIpAddress(), "user_agent": row.origin.GetUserAgent(), "request_id": row.origin.GetRequestId(),
	}, refusalKey)
	if _, err := db.Exec(ctx, statement, args); err != nil {
		return fmt.Errorf("audit %s: %w", row.event, err)
	}
	countEvent(ctx, row)
	return noteChange(ctx, db, row)
}

// optional makes an empty text NULL.
func optional(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}
