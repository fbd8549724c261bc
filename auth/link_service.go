package auth

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"gatehouse/auth/accounts"
	"gatehouse/auth/audit"
	"gatehouse/auth/factors"
	"gatehouse/auth/idempotency"
	"gatehouse/auth/links"
	"gatehouse/auth/outbox"
	"gatehouse/auth/passwords"
	"gatehouse/auth/relay"
	"gatehouse/auth/revocations"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/database"
	"gatehouse/internal/fault"
)

// linkService implements authv1.LinkServiceHandler.
type linkService struct {
	db          *database.Pool
	accounts    *accounts.Store
	passwords   *passwords.Checker
	sessions    *sessions
	links       *links.Sender
	calls       *idempotency.Keys
	log         *audit.Log
	mails       *outbox.Outbox
	relay       *relay.Relay
	revocations *revocations.Feed
	factors     *factors.Service
}

// RequestPasswordReset implements authv1.LinkServiceHandler. It doesn't check
// whether the email has an account: links.Address does when the mail is sent, so
// that neither the answer nor its timing reveals it.
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

// RequestEmailChange implements authv1.LinkServiceHandler. As with a reset, whether
// another account has the new email is checked when the mail is sent.
func (s *linkService) RequestEmailChange(ctx context.Context, req *authv1.RequestEmailChangeRequest) (*authv1.RequestEmailChangeResponse, error) {
	origin := req.GetOrigin()
	row := audit.Row{Event: audit.LinkRequest, Account: origin.GetAccountId(), Origin: origin}
	if !s.mails.Enabled() {
		return nil, s.log.Refuse(ctx, row, outbox.ErrUnavailable)
	}
	email := strings.TrimSpace(req.GetNewEmail())
	asked, err := s.links.CountOwn(ctx, links.EmailChange, origin.GetAccountId())
	if err != nil {
		return nil, s.log.Refuse(ctx, row, err)
	}
	err = s.db.Transact(ctx, func(tx pgx.Tx) error {
		if err := s.sendEmailChange(ctx, tx, email, origin); err != nil {
			return err
		}
		done := row
		done.Outcome = audit.Succeeded
		return audit.Write(ctx, tx, done)
	})
	if err := s.links.Uncount(ctx, asked, err); err != nil {
		return nil, s.log.Refuse(ctx, row, fmt.Errorf("request a change of email: %w", err))
	}
	return &authv1.RequestEmailChangeResponse{}, nil
}

// sendEmailChange sends a link to the new address and a notice to the old one. An
// earlier link of the kind ends: only the latest address counts.
func (s *linkService) sendEmailChange(ctx context.Context, tx pgx.Tx, email string, origin *authv1.Origin) error {
	if origin.GetAccountId() == "" {
		return accounts.ErrNotFound
	}
	account, err := accounts.Lock(ctx, tx, origin.GetAccountId())
	if err != nil {
		return err
	}
	if err := accounts.RequireRecentSignIn(ctx, tx, origin); err != nil {
		return err
	}
	if err := s.factors.RequireBeforeNewEmail(ctx, tx, account); err != nil {
		return err
	}
	_, err = tx.Exec(ctx, links.SupersedeKind, pgx.NamedArgs{"account_id": account.GetId(), "kind": string(links.EmailChange)})
	if err != nil {
		return fmt.Errorf("end the earlier links: %w", err)
	}
	token, err := links.Issue(ctx, tx, links.Link{Kind: links.EmailChange, Email: email, Account: account.GetId()})
	if err != nil {
		return err
	}
	values := outbox.Circumstances(origin)
	// Without the old one: the new address may belong to somebody else.
	values["new_email"] = email
	m := outbox.Mail{Kind: outbox.ConfirmEmail, To: email, Account: account.GetId(), Locale: origin.GetLocale(), Token: token, Values: values}
	if err := s.mails.Enqueue(ctx, tx, m); err != nil {
		return err
	}
	m.Kind, m.To, m.Token = outbox.EmailRequested, account.GetEmail(), ""
	return s.mails.Enqueue(ctx, tx, m)
}

const updateProvenEmail = `UPDATE auth.accounts SET email = @email, email_verified = true WHERE id = @id`

// ConfirmEmailChange implements authv1.LinkServiceHandler.
func (s *linkService) ConfirmEmailChange(ctx context.Context, req *authv1.ConfirmEmailChangeRequest) (*authv1.ConfirmEmailChangeResponse, error) {
	row := audit.Row{Event: audit.LinkEmail, Origin: req.GetOrigin()}
	seen, err := links.Read(ctx, s.db, links.Select, req.GetToken(), links.EmailChange)
	row.Account = seen.Account
	if err != nil {
		return nil, s.log.Refuse(ctx, row, err)
	}
	account, err := s.accounts.Change(ctx, seen.Account, audit.EmailChange, req.GetOrigin(), func(tx pgx.Tx, before *authv1.Account) (bool, error) {
		link, _, err := links.Lock(ctx, tx, req.GetToken(), links.EmailChange)
		if err != nil {
			return false, err
		}
		if err := s.factors.RequireBeforeNewEmail(ctx, tx, before); err != nil { // a role came after the request
			return false, err
		}
		if err := links.Redeem(ctx, tx, link, before); err != nil {
			return false, err
		}
		if err := s.accounts.ReplaceEmail(ctx, tx, updateProvenEmail, before, link.Email, req.GetOrigin()); err != nil {
			return false, err
		}
		done := row
		done.Outcome = audit.Succeeded
		return true, audit.Write(ctx, tx, done)
	})
	if fault.Reason(err) == fault.Reason(accounts.ErrNotFound) {
		err = links.ErrInvalid // the link is gone with it
	}
	if err != nil {
		return nil, s.log.Refuse(ctx, row, err)
	}
	return &authv1.ConfirmEmailChangeResponse{Account: account}, nil
}
