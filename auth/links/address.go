package links

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"gatehouse/auth/accounts"
	"gatehouse/auth/audit"
	"gatehouse/auth/outbox"
	"gatehouse/auth/tokens"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/database"
	"gatehouse/internal/fault"
)

// valueRequest is the mail's value with the id of the request that caused it.
const valueRequest = "request_id"

// Address decides, just before a mail is sent, whether the email has an account, and
// so which mail it gets. The request did not decide it, because its duration would
// have revealed the answer. Address returns false when no mail is to be sent: without
// an account, to an email that may not register, to a disabled one, or with a link that has ended. It renews the link of
// a late mail.
func Address(ctx context.Context, db *database.Pool, signUps accounts.SignUps, m outbox.Mail, late bool) (outbox.Mail, bool, error) {
	var to outbox.Mail
	var wanted bool
	err := db.Transact(ctx, func(tx pgx.Tx) (err error) {
		to, wanted, err = address(ctx, tx, signUps, m)
		return err
	})
	if err != nil || !wanted {
		return m, false, err
	}
	if late && to.Kind.Page() != "" {
		return to, true, renewLink(ctx, db, to.Token)
	}
	return to, true, nil
}

const updateLinkExpiry = `
	UPDATE auth.links SET expire_time = now() + @life::interval
	WHERE token_hash = @token_hash AND end_time IS NULL`

// renewLink makes a link that was not sent in time work as long as any other, from
// now. Nobody has received it yet. Errors: outbox.ErrLinkEnded.
func renewLink(ctx context.Context, db *database.Pool, token string) error {
	hash := tokens.HashOf(token)
	tag, err := db.Exec(ctx, updateLinkExpiry, pgx.NamedArgs{"life": outbox.LinkLife, "token_hash": hash[:]})
	if err != nil {
		return fmt.Errorf("renew the link: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return outbox.ErrLinkEnded
	}
	return nil
}

func address(ctx context.Context, tx pgx.Tx, signUps accounts.SignUps, m outbox.Mail) (outbox.Mail, bool, error) {
	l, err := Read(ctx, tx, Select, m.Token, Register, Verify, Invite, Reset, EmailChange)
	switch reason := fault.Reason(err); {
	case err != nil && reason == "":
		return m, false, err
	case err != nil && reason != fault.Reason(errExpired): // Address renews it
		return m, false, nil
	case l.Kind == EmailChange:
		return addressNew(ctx, tx, m, l)
	}
	account, err := accounts.LockByEmail(ctx, tx, l.Email)
	switch {
	case err != nil:
		return m, false, err
	case account == nil:
		return m, l.Kind == Register && signUps.Check(l.Email) == nil, nil
	case account.GetStatus() != authv1.AccountStatus_ACCOUNT_STATUS_ACTIVE:
		return m, false, nil
	case l.Account != "" && l.Account != account.GetId():
		return m, false, nil
	}
	if l.Account == "" {
		if err := bindLink(ctx, tx, m, l, account); err != nil {
			return m, false, err
		}
	}
	if l.Kind == Register {
		m.Kind = outbox.AccountExists
	}
	// The account's spelling: another one may be another person's mailbox.
	m.To, m.Account = account.GetEmail(), account.GetId()
	return m, true, nil
}

const updateLinkAccount = `
	UPDATE auth.links SET account_id = @account_id WHERE token_hash = @token_hash AND account_id IS NULL AND end_time IS NULL`

// bindLink stores the link's account, which was unknown when it was requested, and
// audits the request for the account's owner.
func bindLink(ctx context.Context, tx pgx.Tx, m outbox.Mail, l Link, account *authv1.Account) error {
	if _, err := tx.Exec(ctx, updateLinkAccount, pgx.NamedArgs{"account_id": account.GetId(), "token_hash": l.hash[:]}); err != nil {
		return fmt.Errorf("bind the link: %w", err)
	}
	return audit.Write(ctx, tx, audit.Row{Event: audit.LinkSend, Outcome: audit.Succeeded, Account: account.GetId(), Origin: &authv1.Origin{
		IpAddress: m.Values["ip_address"], UserAgent: m.Values["user_agent"], RequestId: m.Values[valueRequest],
	}})
}

// addressNew decides which mail the new address of a change gets: a notice without
// a link where another account has it.
func addressNew(ctx context.Context, tx pgx.Tx, m outbox.Mail, l Link) (outbox.Mail, bool, error) {
	other, err := accounts.LockByEmail(ctx, tx, l.Email)
	if err != nil {
		return m, false, err
	}
	if other != nil && other.GetId() != l.Account {
		m.Kind, m.Token, m.Account = outbox.EmailInUse, "", other.GetId()
	}
	return m, true, nil
}
