package auth

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/fault"
)

// valueRequest is the value of a mail that holds the id of the request that
// asked for it.
const valueRequest = "request_id"

// addressed settles, just before a mail is sent, what could not be settled while
// somebody waited for an answer, whose time would have told: whether the email
// has an account, and so which mail it gets. It returns false when none is to be
// sent: to no account, to a disabled one, or with a link that has ended.
func (s *Service) addressed(ctx context.Context, m mail) (mail, bool, error) {
	if m.token == "" {
		return m, true, nil
	}
	var to mail
	var wanted bool
	err := s.transact(ctx, func(tx pgx.Tx) (err error) {
		to, wanted, err = address(ctx, tx, m)
		return err
	})
	if err != nil {
		return m, false, fmt.Errorf("address a mail: %w", err)
	}
	return to, wanted, nil
}

func address(ctx context.Context, tx pgx.Tx, m mail) (mail, bool, error) {
	l, err := readLink(ctx, tx, selectLink, m.token, linkRegister, linkVerify, linkInvite, linkReset, linkEmailChange)
	switch reason := fault.Reason(err); {
	case err != nil && reason == "":
		return m, false, err
	case err != nil && reason != fault.Reason(errLinkExpired): // which a late sender makes last anew
		return m, false, nil
	case l.kind == linkEmailChange:
		return addressNew(ctx, tx, m, l)
	}
	account, err := lockedAccountByEmail(ctx, tx, l.email)
	switch {
	case err != nil:
		return m, false, err
	case account == nil:
		return m, l.kind == linkRegister, nil
	case account.GetStatus() != authv1.AccountStatus_ACCOUNT_STATUS_ACTIVE:
		return m, false, nil
	case l.account != "" && l.account != account.GetId():
		return m, false, nil
	}
	if l.account == "" {
		if err := bindLink(ctx, tx, m, l, account); err != nil {
			return m, false, err
		}
	}
	if l.kind == linkRegister {
		m.kind = mailAccountExists
	}
	// As the account spells it: another spelling may be another's mailbox.
	m.to, m.account = account.GetEmail(), account.GetId()
	return m, true, nil
}

const updateLinkAccount = `
	UPDATE auth.links SET account_id = @account_id WHERE token_hash = @token_hash AND account_id IS NULL AND end_time IS NULL`

// bindLink notes whose link it is, which nobody knew when it was asked for, and
// shows the account's owner who asked.
func bindLink(ctx context.Context, tx pgx.Tx, m mail, l link, account *authv1.Account) error {
	if _, err := tx.Exec(ctx, updateLinkAccount, pgx.NamedArgs{"account_id": account.GetId(), "token_hash": l.hash[:]}); err != nil {
		return fmt.Errorf("bind the link: %w", err)
	}
	return audit(ctx, tx, audited{event: eventLinkSend, outcome: succeeded, account: account.GetId(), origin: &authv1.Origin{
		IpAddress: m.values["ip_address"], UserAgent: m.values["user_agent"], RequestId: m.values[valueRequest],
	}})
}

// addressNew decides what the new address of a change gets: a notice without a
// link where another account has it.
func addressNew(ctx context.Context, tx pgx.Tx, m mail, l link) (mail, bool, error) {
	other, err := lockedAccountByEmail(ctx, tx, l.email)
	if err != nil {
		return m, false, err
	}
	if other != nil && other.GetId() != l.account {
		m.kind, m.token, m.account = mailEmailInUse, "", other.GetId()
	}
	return m, true, nil
}
