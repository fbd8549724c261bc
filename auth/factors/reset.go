package factors

import (
	"context"
	"fmt"

	"connectrpc.com/connect/v2"
	"github.com/jackc/pgx/v5"

	"gatehouse/auth/accounts"
	"gatehouse/auth/apikeys"
	"gatehouse/auth/audit"
	"gatehouse/auth/links"
	"gatehouse/auth/outbox"
	"gatehouse/auth/revocations"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/fault"
)

var errOwnFactors = fault.New(connect.CodePermissionDenied, "OWN_FACTORS", "You can't reset your own second factors. Remove them one by one, or ask another administrator.")

// ResetFactors implements authv1.FactorServiceHandler.
func (s *Service) ResetFactors(ctx context.Context, req *authv1.ResetFactorsRequest) (*authv1.ResetFactorsResponse, error) {
	origin := req.GetOrigin()
	row := audit.Row{Event: audit.FactorReset, Account: req.GetAccountId(), Origin: origin}
	switch {
	case origin.GetAccountId() == req.GetAccountId():
		return nil, s.Log.Refuse(ctx, row, errOwnFactors)
	case req.GetForcePasswordReset() && !s.Mails.Enabled():
		return nil, s.Log.Refuse(ctx, row, outbox.ErrUnavailable)
	}
	account, err := s.Accounts.Change(ctx, req.GetAccountId(), audit.FactorReset, origin, func(tx pgx.Tx, before *authv1.Account) (bool, error) {
		if err := s.reset(ctx, tx, before, origin); err != nil {
			return false, err
		}
		if !req.GetForcePasswordReset() {
			return true, nil
		}
		return true, s.removePassword(ctx, tx, before, origin)
	})
	if err != nil {
		return nil, err
	}
	return &authv1.ResetFactorsResponse{Account: account}, nil
}

// ResetByOperator removes the second factors of the account with the email, and keeps its
// password, also for the last administrator. It reports whether the account has a
// password. Errors: not_found USER_NOT_FOUND.
func (s *Service) ResetByOperator(ctx context.Context, email string, operator *authv1.Origin) (hasPassword bool, err error) {
	row := audit.Row{Event: audit.FactorReset, Outcome: audit.Succeeded, Origin: operator}
	err = s.DB.Transact(ctx, func(tx pgx.Tx) error {
		account, err := accounts.LockByEmail(ctx, tx, email)
		if err != nil {
			return err
		}
		if account == nil {
			return accounts.ErrNotFound
		}
		if err := s.reset(ctx, tx, account, operator); err != nil {
			return err
		}
		if hasPassword, err = accounts.HasPassword(ctx, tx, account.GetId()); err != nil {
			return err
		}
		row.Account = account.GetId()
		return audit.Write(ctx, tx, row)
	})
	if err != nil {
		return false, fmt.Errorf("reset the factors: %w", err)
	}
	return hasPassword, nil
}

const (
	deleteFactors = `
		WITH apps AS (DELETE FROM auth.totp_factors WHERE account_id = @account_id),
			codes AS (DELETE FROM auth.recovery_codes WHERE account_id = @account_id)
		DELETE FROM auth.passkeys WHERE account_id = @account_id`
	hasNoOtherSignIn = `
		UPDATE auth.accounts a SET has_sign_in = EXISTS (SELECT FROM auth.identities WHERE account_id = a.id)
		WHERE a.id = @account_id AND a.has_sign_in`
)

// reset removes all second factors of an account, whose row is locked, ends its sessions,
// which forgets the remembered devices, and mails the owner.
func (s *Service) reset(ctx context.Context, tx pgx.Tx, account *authv1.Account, origin *authv1.Origin) error {
	args := pgx.NamedArgs{"account_id": account.GetId()}
	for _, statement := range []string{deleteFactors, hasNoOtherSignIn} {
		if _, err := tx.Exec(ctx, statement, args); err != nil {
			return fmt.Errorf("remove the second factors: %w", err)
		}
	}
	if err := accounts.SetSecondFactor(ctx, tx, account.GetId(), false); err != nil {
		return err
	}
	if _, err := revocations.RevokeSessions(ctx, tx, account.GetId(), "", "factors reset"); err != nil {
		return err
	}
	if err := apikeys.Lower(ctx, tx, account.GetId()); err != nil {
		return err
	}
	if err := revocations.RaiseVersion(ctx, tx, account.GetId()); err != nil {
		return err
	}
	// Without the administrator's address and user agent.
	values := map[string]string{"time": outbox.Circumstances(origin)["time"]}
	return s.Mails.Enqueue(ctx, tx, outbox.Mail{
		Kind: outbox.FactorsReset, To: account.GetEmail(), Account: account.GetId(),
		Locale: outbox.LocaleOf(origin, account.GetId()), Values: values,
	})
}

const removePassword = `UPDATE auth.accounts SET password_hash = '', factor_password_hash = '' WHERE id = @account_id`

// removePassword removes the password of an account and mails its owner a link to set
// another.
func (s *Service) removePassword(ctx context.Context, tx pgx.Tx, account *authv1.Account, origin *authv1.Origin) error {
	if _, err := tx.Exec(ctx, removePassword, pgx.NamedArgs{"account_id": account.GetId()}); err != nil {
		return fmt.Errorf("remove the password: %w", err)
	}
	if err := links.Supersede(ctx, tx, account); err != nil {
		return err
	}
	return s.Links.SendToOwner(ctx, tx, outbox.ResetPassword, links.Reset, account, outbox.LocaleOf(origin, account.GetId()))
}
