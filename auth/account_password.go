package auth

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"gatehouse/auth/accounts"
	"gatehouse/auth/audit"
	"gatehouse/auth/devices"
	"gatehouse/auth/links"
	"gatehouse/auth/outbox"
	"gatehouse/auth/passwords"
	"gatehouse/auth/revocations"
	"gatehouse/auth/throttle"
	authv1 "gatehouse/gen/auth/v1"
)

// It replaces only the password that was checked.
const updatePassword = `
	UPDATE auth.accounts a
	SET ` + accounts.SetPasswordHash + `, password_change_time = clock_timestamp(), update_time = clock_timestamp()
	WHERE id = @id AND ` + accounts.PasswordHash + ` = @known AND status = 'active'`

// ChangePassword implements authv1.AccountServiceHandler.
func (s *accountService) ChangePassword(ctx context.Context, req *authv1.ChangePasswordRequest) (*authv1.ChangePasswordResponse, error) {
	origin := req.GetOrigin()
	row := audit.Row{Event: audit.PasswordChange, Outcome: audit.Succeeded, Account: origin.GetAccountId(), Origin: origin}
	var known sessionCredentials
	err := s.db.Transact(ctx, func(tx pgx.Tx) (err error) {
		if known, err = credentialsOf(ctx, tx, origin); err != nil {
			return err
		}
		return accounts.RequireRecentSignIn(ctx, tx, origin)
	})
	if err != nil {
		return nil, err
	}
	if err := s.passwords.CheckNew("new_password", req.GetNewPassword(), known.email); err != nil {
		return nil, err
	}
	_, err = s.passwords.Try(ctx, passwords.Attempt{
		Client: throttle.Client{Email: accounts.FoldEmail(known.email), DeviceID: known.device, Address: origin.GetIpAddress()},
		Caller: passwords.SignedIn(origin.GetAccountId()), Password: req.GetCurrentPassword(), Hash: known.hash, Wrong: errPasswordWrong, Row: row,
	})
	if err != nil {
		return nil, err
	}
	newHash, err := s.passwords.Hasher.Hash(ctx, passwords.SignedIn(origin.GetAccountId()), req.GetNewPassword())
	if err != nil {
		return nil, err
	}
	err = s.db.Transact(ctx, func(tx pgx.Tx) error {
		args := accounts.PasswordArgs(newHash)
		args["id"], args["known"] = origin.GetAccountId(), known.hash
		tag, err := tx.Exec(ctx, updatePassword, args)
		if err != nil {
			return fmt.Errorf("write it: %w", err)
		}
		if tag.RowsAffected() == 0 {
			return errPasswordWrong // it was changed meanwhile
		}
		// A link that was sent before must not undo the change.
		if err := links.Supersede(ctx, tx, &authv1.Account{Id: origin.GetAccountId(), Email: known.email}); err != nil {
			return err
		}
		if _, err := revocations.RevokeSessions(ctx, tx, origin.GetAccountId(), origin.GetSessionId(), "password changed"); err != nil {
			return err
		}
		if _, err := devices.Forget(ctx, tx, origin.GetAccountId(), nil); err != nil {
			return err
		}
		if err := s.mails.Enqueue(ctx, tx, outbox.Mail{
			Kind: outbox.PasswordChanged, To: known.email, Account: origin.GetAccountId(), Locale: origin.GetLocale(), Values: outbox.Circumstances(origin),
		}); err != nil {
			return err
		}
		return audit.Write(ctx, tx, row)
	})
	if err != nil {
		return nil, fmt.Errorf("change the password: %w", err)
	}
	s.revocations.Soon()
	return &authv1.ChangePasswordResponse{}, nil
}

const (
	removePassword = `UPDATE auth.accounts SET password_hash = '', factor_password_hash = '' WHERE id = @id`
	// An invited account that nobody has used yet.
	selectInvited = `
		SELECT password_hash = '' AND last_sign_in_time IS NULL AND NOT email_verified FROM auth.accounts WHERE id = @id`
)

// ForcePasswordReset implements authv1.AccountServiceHandler. An invited
// account that nobody has used yet is invited again.
func (s *accountService) ForcePasswordReset(ctx context.Context, req *authv1.ForcePasswordResetRequest) (*authv1.ForcePasswordResetResponse, error) {
	origin := req.GetOrigin()
	if !s.mails.Enabled() {
		return nil, s.log.Refuse(ctx, audit.Row{Event: audit.PasswordForce, Account: req.GetAccountId(), Origin: origin}, outbox.ErrUnavailable)
	}
	account, err := s.accounts.Change(ctx, req.GetAccountId(), audit.PasswordForce, origin, func(tx pgx.Tx, before *authv1.Account) (bool, error) {
		args := pgx.NamedArgs{"id": before.GetId()}
		var invited bool
		if err := tx.QueryRow(ctx, selectInvited, args).Scan(&invited); err != nil {
			return false, fmt.Errorf("look at the password: %w", err)
		}
		if _, err := tx.Exec(ctx, removePassword, args); err != nil {
			return false, fmt.Errorf("remove the password: %w", err)
		}
		if _, err := revocations.RevokeSessions(ctx, tx, before.GetId(), "", "password reset"); err != nil {
			return false, err
		}
		if err := links.Supersede(ctx, tx, before); err != nil {
			return false, err
		}
		kind, purpose := outbox.ResetPassword, links.Reset
		if invited {
			kind, purpose = outbox.Invitation, links.Invite
		}
		return true, s.links.SendToOwner(ctx, tx, kind, purpose, before, outbox.LocaleOf(origin, before.GetId()))
	})
	if err != nil {
		return nil, err
	}
	return &authv1.ForcePasswordResetResponse{Account: account}, nil
}
