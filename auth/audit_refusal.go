package auth

import (
	"context"
	"gatehouse/internal/fault"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Refusals of one event, for one reason and one account or network are one row
// a minute, with a count: whoever repeats a refused call adds no row. The row's
// other columns are those of the first.

// refuse audits that something was refused, for the error's reason, and returns
// the error. A fault of ours has no reason and is no refusal.
func (s *Service) refuse(ctx context.Context, row audited, err error) error {
	reason := fault.Reason(err)
	if reason == "" {
		return err
	}
	row.outcome, row.reason = refused, reason
	if failure := s.auditRefusal(ctx, s.db, row); failure != nil {
		return failure
	}
	return err
}

// auditRefusal writes the row of a refusal, or counts it where the minute has
// one already.
func (s *Service) auditRefusal(ctx context.Context, db execer, row audited) error {
	subject := row.subject
	switch {
	case subject != "":
	case row.origin.GetAccountId() != "":
		subject = "account:" + row.origin.GetAccountId()
	case row.account != "":
		subject = "account:" + row.account
	default:
		subject = "network:" + networkOf(row.origin.GetIpAddress())
	}
	return writeAudit(ctx, db, row, s.throttleKey("refusal", strings.Join([]string{string(row.event), row.reason, subject}, "\n")))
}

// heldRow is the row of a sign-in that was refused because failures have to
// wait: those of a network are one row, which names no account. Whether the
// email has an account makes no difference, or the time would tell.
func (s *Service) heldRow(try passwordTry, held hold) audited {
	row := try.row
	if address := s.addressKey(try.address); address != nil && string(held.key) == string(address) && row.origin.GetAccountId() == "" {
		row.account, row.subject = "", "network:"+networkOf(try.address)
	}
	return row
}

const insertRefusal = `
	WITH now AS MATERIALIZED (
		SELECT date_trunc('minute', clock_timestamp()) AS minute
	), written AS (
		INSERT INTO auth.audit_events
			(id, create_time, event, outcome, reason, account_id, actor_id, session_id, ip_address, user_agent, request_id,
			refusal_key, refusal_minute)
		SELECT @id, @create_time, @event, @outcome, @reason, @account_id, @actor_id, @session_id, @ip_address, @user_agent, @request_id,
			@refusal_key, now.minute
		FROM now
		ON CONFLICT (refusal_key, refusal_minute) WHERE refusal_key IS NOT NULL DO NOTHING
		RETURNING id
	)
	SELECT auth.count_refusal(@refusal_key, now.minute) FROM now WHERE NOT EXISTS (SELECT FROM written)`

// auditStatement is the statement for a row with its arguments.
func auditStatement(args pgx.NamedArgs, refusalKey []byte) (string, pgx.NamedArgs) {
	if refusalKey == nil {
		return insertAudit, args
	}
	args["refusal_key"] = refusalKey
	return insertRefusal, args
}
