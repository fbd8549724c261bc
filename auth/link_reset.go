package auth

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"gatehouse/auth/audit"
	"gatehouse/auth/outbox"
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
	asked, err := s.links.countMail(ctx, linkReset, email, req.GetOrigin())
	if err != nil {
		return nil, err
	}
	err = s.db.Transact(ctx, func(tx pgx.Tx) error {
		sent, err := s.links.sendCounted(ctx, tx, asked, linkReset, email, func(tx pgx.Tx) error {
			return s.links.sendUnaddressed(ctx, tx, outbox.ResetPassword, link{kind: linkReset, email: email}, newLinkToken(), req.GetOrigin())
		})
		if err != nil {
			return err
		}
		return s.links.auditRequest(ctx, tx, row, sent)
	})
	if err := s.links.uncountMail(ctx, asked, err); err != nil {
		return nil, fmt.Errorf("request a password reset: %w", err)
	}
	return &authv1.RequestPasswordResetResponse{}, nil
}

// ResetPassword implements authv1.LinkServiceHandler.
func (s *linkService) ResetPassword(ctx context.Context, req *authv1.ResetPasswordRequest) (*authv1.ResetPasswordResponse, error) {
	row := audit.Row{Event: audit.LinkReset, Origin: req.GetOrigin()}
	seen, err := readLink(ctx, s.db, selectLink, req.GetToken(), linkReset)
	row.Account = seen.account
	if err == nil {
		err = s.passwords.checkNew("new_password", req.GetNewPassword(), seen.email)
	}
	if err != nil {
		return nil, s.log.Refuse(ctx, row, err)
	}
	hash, err := s.passwords.hasher.Hash(ctx, linkHolder(req.GetOrigin()), req.GetNewPassword())
	if err != nil {
		return nil, err
	}
	err = s.db.Transact(ctx, func(tx pgx.Tx) error {
		link, account, err := lockLink(ctx, tx, req.GetToken(), linkReset)
		if err != nil {
			return err
		}
		if err := s.givePassword(ctx, tx, account, hash, req.GetOrigin()); err != nil {
			return err
		}
		if err := redeem(ctx, tx, link, account); err != nil {
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
	account, err := s.accounts.change(ctx, req.GetAccountId(), audit.PasswordForce, origin, func(tx pgx.Tx, before *authv1.Account) (bool, error) {
		args := pgx.NamedArgs{"id": before.GetId()}
		var invited bool
		if err := tx.QueryRow(ctx, selectInvited, args).Scan(&invited); err != nil {
			return false, fmt.Errorf("look at the password: %w", err)
		}
		if _, err := tx.Exec(ctx, takePassword, args); err != nil {
			return false, fmt.Errorf("take the password away: %w", err)
		}
		if _, err := revokeSessions(ctx, tx, before.GetId(), "", "password reset"); err != nil {
			return false, err
		}
		if err := supersedeLinks(ctx, tx, before); err != nil {
			return false, err
		}
		kind, purpose := outbox.ResetPassword, linkReset
		if invited {
			kind, purpose = outbox.Invitation, linkInvite
		}
		return true, s.links.sendOwnersLink(ctx, tx, kind, purpose, before, localeOf(origin, before.GetId()))
	})
	if err != nil {
		return nil, err
	}
	return &authv1.ForcePasswordResetResponse{Account: account}, nil
}
