// Package audit records sign-ins, changes of accounts, and refused attempts at either.
//
// An event is written in the transaction of its change, so that both exist or
// neither does. Repeated refusals are aggregated into one row a minute, so that
// a caller who repeats a refused call adds no rows.
package audit

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"gatehouse/auth/changes"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/database"
	"gatehouse/internal/telemetry"
)

// Event is a kind of audit event.
type Event string

const (
	AccountCreate    Event = "account.create"            // An account is created: by its owner, an administrator, an import or the first start.
	AccountDelete    Event = "account.delete"            // An account is deleted, by its owner or an administrator.
	AccountDisable   Event = "account.disable"           // An account is disabled, which ends its sessions.
	AccountEnable    Event = "account.enable"            // A disabled account is enabled.
	AccountExport    Event = "account.export"            // A person exports the data of their account.
	EmailChange      Event = "account.email.change"      // An account's email is changed, by its owner or an administrator.
	RolesChange      Event = "account.roles.change"      // An account's roles are changed.
	AttributesChange Event = "account.attributes.change" // A person's attributes are changed, by themselves or an administrator.
	PasswordChange   Event = "account.password.change"   // A password is replaced, by its owner or an operator.
	PasswordForce    Event = "account.password.force"    // An administrator removes a password: a mailed link sets the next one.
	LinkRequest      Event = "link.request"              // A link is requested. The answer does not reveal whether the account exists.
	LinkSend         Event = "link.send"                 // A link that was requested without signing in is sent to the account's address.
	LinkVerify       Event = "link.verify"               // The link of a registration or an invitation is used.
	LinkReset        Event = "link.reset"                // A password reset link is used.
	LinkEmail        Event = "link.email"                // The link that confirms a new email is used.
	Login            Event = "session.login"             // Somebody signs in, with a password or in another way.
	CodeRequest      Event = "code.request"              // A code to sign in with is requested. The answer does not reveal whether the account exists.
	Challenge        Event = "session.challenge"         // Somebody gives the right password, or a mailed code, of an account that has a second factor.
	Reauthenticate   Event = "session.reauthenticate"    // A signed-in person confirms their password, and the second factor if they have one.
	Logout           Event = "session.logout"            // A session is ended by its holder.
	SessionRevoke    Event = "session.revoke"            // One or more sessions are revoked from another session, or by an administrator.
	Refresh          Event = "session.refresh"           // A refresh token is refused. Accepted ones are not audited.
	RefreshReuse     Event = "session.refresh.reuse"     // A refresh token is reused after it was replaced: its session is ended.
	KeyRotate        Event = "key.rotate"                // An operator makes the next signing key sign.
	KeyReplace       Event = "key.replace"               // An operator replaces all signing keys at once, which ends every session.
	MailFail         Event = "mail.fail"                 // A mail becomes a dead letter: it could not be delivered.
	MailRetry        Event = "mail.retry"                // An administrator retries a mail that became a dead letter.
	FactorAdd        Event = "factor.add"                // A second factor is added to an account, or replaced by another of its kind.
	FactorRemove     Event = "factor.remove"             // A second factor is removed by its owner.
	FactorReset      Event = "factor.reset"              // All second factors of an account are removed, by an administrator or an operator.
	FactorRecover    Event = "factor.recover"            // A recovery code is used as the second factor, or the codes are replaced.
	IdentityLink     Event = "identity.link"             // An identity at another provider is linked to an account.
	IdentityUnlink   Event = "identity.unlink"           // An identity at another provider is removed by its owner.
	DeviceRemember   Event = "device.remember"           // A device is remembered: the second factor is not asked there.
	DeviceForget     Event = "device.forget"             // One or all remembered devices of an account are forgotten.
	RefreshRecover   Event = "session.refresh.recovered" // A refresh token newer than its session's row is accepted: the database lost its last transactions.

	APIKeyCreate Event = "apikey.create" // An API key is created by its owner.
	APIKeyRevoke Event = "apikey.revoke" // An API key is revoked by its owner, an administrator, or somebody who found it.
	APIKeyRefuse Event = "apikey.refuse" // A revoked or expired API key is used, or one whose owner is disabled.

	WebhookCreate  Event = "webhook.create"  // An administrator creates a webhook.
	WebhookUpdate  Event = "webhook.update"  // An administrator changes a webhook.
	WebhookDelete  Event = "webhook.delete"  // An administrator deletes a webhook.
	WebhookRotate  Event = "webhook.rotate"  // An administrator gives a webhook a new secret.
	WebhookReplay  Event = "webhook.replay"  // An administrator sends a webhook a test event, or stored events again.
	WebhookRetry   Event = "webhook.retry"   // An administrator retries a delivery.
	WebhookListen  Event = "webhook.listen"  // An administrator begins to listen to events by a stream.
	WebhookDisable Event = "webhook.disable" // A webhook is disabled, because it is gone or has failed for five days.
	WebhookFail    Event = "webhook.fail"    // A delivery becomes a dead letter: the webhook did not accept it.

	PasskeyBlock        Event = "passkey.block"           // A passkey that may have been copied is used: it is blocked.
	PasskeyBackupChange Event = "passkey.backup_change"   // A passkey becomes eligible for backup, or ceases to be.
	PasswordRemove      Event = "account.password.remove" // A password is removed by its owner, who signs in with passkeys.
)

// Outcome says whether an event took place.
type Outcome string

const (
	Succeeded Outcome = "succeeded"
	Refused   Outcome = "refused"
)

// Row is one audit event. It holds ids only: never an email, a password or a
// token.
type Row struct {
	Event   Event
	Outcome Outcome
	Reason  string // why it was refused, as an error reason
	Account string // "" when there is none
	Session string // the session concerned; "" for that of the origin
	Target  string // the id of the webhook, its listener or the API key concerned; "" for none
	Subject string // what refusals are aggregated by; "" for the account or the network
	Origin  *authv1.Origin
}

// Every change of an account is audited in its transaction, so invalidating cache
// entries here misses none. Some events invalidate more than they change, which is
// harmless.
const insertAudit = `
	WITH written AS (
		INSERT INTO auth.audit_events
			(id, create_time, event, outcome, reason, account_id, actor_id, session_id, ip_address, user_agent, request_id, target_id)
		SELECT @id, @create_time, @event, @outcome, @reason, @account_id, @actor_id, @session_id, @ip_address, @user_agent, @request_id, @target_id
		WHERE %s
		RETURNING id)
	` + changes.Insert + `written`

var insertAuditAlways = fmt.Sprintf(insertAudit, "true")

// Write writes an event. In a transaction, the event exists only if the change
// does. The id contains the same time as create_time, so one index serves both
// the order and the time of a query.
func Write(ctx context.Context, db database.Execer, row Row) error {
	return write(ctx, db, row, nil)
}

// Queue adds the statement that writes an account's event to a batch. It writes the
// event only if the condition holds, in SQL with the arguments args, after the
// batch's earlier statements.
func Queue(ctx context.Context, batch *pgx.Batch, row Row, condition string, args pgx.NamedArgs) error {
	all, err := arguments(row)
	if err != nil {
		return err
	}
	maps.Copy(all, args)
	batch.Queue(fmt.Sprintf(insertAudit, condition), all).Exec(func(tag pgconn.CommandTag) error {
		if tag.RowsAffected() > 0 { // the event's tags
			countEvent(ctx, row)
		}
		return nil
	})
	return nil
}

// write writes an event; a refusal with a key may be counted instead.
func write(ctx context.Context, db database.Execer, row Row, refusalKey []byte) error {
	args, err := arguments(row)
	if err != nil {
		return err
	}
	statement := insertAuditAlways
	if refusalKey != nil {
		statement, args["refusal_key"] = insertRefusal, refusalKey
	}
	if _, err := db.Exec(ctx, statement, args); err != nil {
		return fmt.Errorf("audit %s: %w", row.Event, err)
	}
	countEvent(ctx, row)
	return nil
}

func arguments(row Row) (pgx.NamedArgs, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("make an id: %w", err)
	}
	if row.Session == "" {
		row.Session = row.Origin.GetSessionId()
	}
	tags := []string{}
	if row.Outcome == Succeeded && row.Account != "" {
		tags = changes.OfAccount(row.Account)
	}
	return pgx.NamedArgs{
		"id": id.String(), "create_time": time.Unix(id.Time().UnixTime()), "event": string(row.Event), "outcome": string(row.Outcome), "reason": row.Reason,
		"account_id": database.Optional(row.Account), "actor_id": database.Optional(row.Origin.GetAccountId()), "session_id": database.Optional(row.Session),
		"ip_address": row.Origin.GetIpAddress(), "user_agent": row.Origin.GetUserAgent(), "request_id": row.Origin.GetRequestId(),
		"target_id": database.Optional(row.Target), "tags": tags,
	}, nil
}

var events, _ = otel.Meter(telemetry.Scope).Int64Counter("gatehouse.auth.events", metric.WithUnit("{event}"),
	metric.WithDescription("Audit events: sign-ins, changes of accounts, and refused attempts at either."))

func countEvent(ctx context.Context, row Row) {
	events.Add(ctx, 1, metric.WithAttributes(
		attribute.String("event", string(row.Event)), attribute.String("outcome", string(row.Outcome)), attribute.String("reason", row.Reason),
	))
}
