package auth

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	authv1 "gatehouse/gen/auth/v1"
)

// RequestPasswordReset implements authv1.LinkServiceHandler. It doesn't look
// whether the email has an account: that is settled when the mail is sent, by
// addressed, so that neither the answer nor its time tells.
func (s *Service) RequestPasswordReset(ctx context.Context, req *authv1.RequestPasswordResetRequest) (*authv1.RequestPasswordResetResponse, error) {
	row := audited{event: eventLinkRequest, origin: req.GetOrigin()}
	if !s.sendsMail() {
		return nil, s.refuse(ctx, row, errMailUnavailable)
	}
	email := strings.TrimSpace(req.GetEmail())
	asked, err := s.countMail(ctx, linkReset, email, req.GetOrigin())
	if err != nil {
		return nil, err
	}
	err = s.transact(ctx, func(tx pgx.Tx) error {
		sent, err := s.sendCounted(ctx, tx, asked, linkReset, email, func(tx pgx.Tx) error {
			return s.sendUnaddressed(ctx, tx, mailResetPassword, link{kind: linkReset, email: email}, newLinkToken(), req.GetOrigin())
		})
		if err != nil {
			return err
		}
		return s.auditRequest(ctx, tx, row, sent)
	})
	if err := s.uncountMail(ctx, asked, err); err != nil {
		return nil, fmt.Errorf("request a password reset: %w", err)
	}
	return &authv1.RequestPasswordResetResponse{}, nil
}

// sendUnaddressed sends a link to an email, without a look whether it has an
// account.
func (s *Service) sendUnaddressed(ctx context.Context, tx pgx.Tx, kind mailKind, l link, token string, origin *authv1.Origin) error {
	if err := writeLink(ctx, tx, l, token); err != nil {
		return err
	}
	values := circumstances(origin)
	values[valueRequest] = origin.GetRequestId()
	return s.enqueueMail(ctx, tx, mail{kind: kind, to: l.email, locale: origin.GetLocale(), token: token, values: values})
}

// ResetPassword implements authv1.LinkServiceHandler.
func (s *Service) ResetPassword(ctx context.Context, req *authv1.ResetPasswordRequest) (*authv1.ResetPasswordResponse, error) {
	row := audited{event: eventLinkReset, origin: req.GetOrigin()}
	seen, err := readLink(ctx, s.db, selectLink, req.GetToken(), linkReset)
	row.account = seen.account
	if err == nil {
		err = s.checkNewPassword("new_password", req.GetNewPassword(), seen.email)
	}
	if err != nil {
		return nil, s.refuse(ctx, row, err)
	}
	hash, err := s.passwords.Hash(ctx, linkHolder(req.GetOrigin()), req.GetNewPassword())
	if err != nil {
		return nil, err
	}
	err = s.transact(ctx, func(tx pgx.Tx) error {
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
		done.outcome = succeeded
		return audit(ctx, tx, done)
	})
	if err != nil {
		return nil, s.refuse(ctx, row, fmt.Errorf("reset a password: %w", err))
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
func (s *Service) ForcePasswordReset(ctx context.Context, req *authv1.ForcePasswordResetRequest) (*authv1.ForcePasswordResetResponse, error) {
	origin := req.GetOrigin()
	if !s.sendsMail() {
		return nil, s.refuse(ctx, audited{event: eventPasswordForce, account: req.GetAccountId(), origin: origin}, errMailUnavailable)
	}
	account, err := s.change(ctx, req.GetAccountId(), eventPasswordForce, origin, func(tx pgx.Tx, before *authv1.Account) (bool, error) {
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
		kind, purpose := mailResetPassword, linkReset
		if invited {
			kind, purpose = mailInvitation, linkInvite
		}
		return true, s.sendOwnersLink(ctx, tx, kind, purpose, before, localeOf(origin, before.GetId()))
	})
	if err != nil {
		return nil, err
	}
	return &authv1.ForcePasswordResetResponse{Account: account}, nil
}

// sendOwnersLink sends an account's owner a link that an administrator asked
// for.
func (s *Service) sendOwnersLink(ctx context.Context, tx pgx.Tx, kind mailKind, purpose linkKind, account *authv1.Account, locale string) error {
	token, err := issueLink(ctx, tx, link{kind: purpose, email: account.GetEmail(), account: account.GetId()})
	if err != nil {
		return err
	}
	// Where the administrator sits is nothing to its reader.
	return s.enqueueMail(ctx, tx, mail{kind: kind, to: account.GetEmail(), account: account.GetId(), locale: locale, token: token})
}
