package auth

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"gatehouse/auth/audit"
	"gatehouse/auth/links"
	"gatehouse/auth/outbox"
	"gatehouse/auth/passwords"
	"gatehouse/auth/revocations"
	authv1 "gatehouse/gen/auth/v1"
)

// RequestPasswordReset implements authv1.LinkServiceHandler. It doesn't look
// whether the email has an account: that is settled when the mail is sent, by
// addressed, so that neither the answer nor its time tells.
func (s *linkService) RequestPasswordReset(ctx context.Context, req *authv1.RequestPasswordResetRequest) (*authv1.RequestPasswordResetResponse, error) {
	row := audit.Row{Event: audit.LinkRequest, Origin: req.GetOrigin()}
	if !s.mails.Enabled() {
		return nil, s.log.Refuse(ctx, row, outbox.ErrUnavailable)
	}
	email := strings.TrimSpace(req.GetEmail())
	asked, err := s.links.Count(ctx, links.Reset, email, req.GetOrigin())
	if err != nil {
		return nil, err
	}
	err = s.db.Transact(ctx, func(tx pgx.Tx) error {
		sent, err := s.links.SendCounted(ctx, tx, asked, links.Reset, email, func(tx pgx.Tx) error {
			return s.links.SendUnaddressed(ctx, tx, outbox.ResetPassword, links.Link{Kind: links.Reset, Email: email}, links.NewToken(), req.GetOrigin())
		})
		if err != nil {
			return err
		}
		return s.links.AuditRequest(ctx, tx, row, sent)
	})
	if err := s.links.Uncount(ctx, asked, err); err != nil {
		return nil, fmt.Errorf("request a password reset: %w", err)
	}
	return &authv1.RequestPasswordResetResponse{}, nil
}

// ResetPassword implements authv1.LinkServiceHandler.
func (s *linkService) ResetPassword(ctx context.Context, req *authv1.ResetPasswordRequest) (*authv1.ResetPasswordResponse, error) {
	row := audit.Row{Event: audit.LinkReset, Origin: req.GetOrigin()}
	seen, err := links.Read(ctx, s.db, links.Select, req.GetToken(), links.Reset)
	row.Account = seen.Account
	if err == nil {
		err = s.passwords.CheckNew("new_password", req.GetNewPassword(), seen.Email)
	}
	if err != nil {
		return nil, s.log.Refuse(ctx, row, err)
	}
	hash, err := s.passwords.Hasher.Hash(ctx, passwords.LinkHolder(req.GetOrigin()), req.GetNewPassword())
	if err != nil {
		return nil, err
	}
	err = s.db.Transact(ctx, func(tx pgx.Tx) error {
		link, account, err := links.Lock(ctx, tx, req.GetToken(), links.Reset)
		if err != nil {
			return err
		}
		if err := s.givePassword(ctx, tx, account, hash, req.GetOrigin()); err != nil {
			return err
		}
		if err := links.Redeem(ctx, tx, link, account); err != nil {
			return err
		}
		done := row
		done.Outcome = audit.Succeeded
		return audit.Write(ctx, tx, done)
	})
	if err != nil {
		return nil, s.log.Refuse(ctx, row, fmt.Errorf("reset a password: %w", err))
	}
	s.revocations.Soon()
	return &authv1.ResetPasswordResponse{}, nil
}

const (
	takePassword = `UPDATE auth.accounts SET password_hash = '' WHERE id = @id`
	// An account that was invited and has yet to be taken up.
	selectInvited = `
		SELECT password_hash = '' AND last_sign_in_time IS NULL AND NOT email_verified FROM auth.accounts WHERE id = @id`
)

// ForcePasswordReset implements authv1.AccountServiceHandler. An account that
// nobody has taken up yet is invited again.
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
		if _, err := tx.Exec(ctx, takePassword, args); err != nil {
			return false, fmt.Errorf("take the password away: %w", err)
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
