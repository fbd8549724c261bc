package auth

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/rpc"
)

// verifyTries is how often an account may come or go under a VerifyEmail.
const verifyTries = 3

// VerifyEmail implements authv1.LinkServiceHandler. A link of a disabled account
// stays open, for when it is enabled.
func (s *Service) VerifyEmail(ctx context.Context, req *authv1.VerifyEmailRequest) (*authv1.VerifyEmailResponse, error) {
	call := s.keyed(req.GetIdempotencyKey(), req.GetOrigin(), req.GetToken())
	row := audited{event: eventLinkVerify, origin: req.GetOrigin()}
	return once(ctx, s, call, row, func() (*authv1.VerifyEmailResponse, error) {
		return s.verifyEmail(ctx, req, call, row)
	}, func(made string) (*authv1.VerifyEmailResponse, error) {
		login, err := s.signInAgain(ctx, made, req.GetPassword(), row)
		return &authv1.VerifyEmailResponse{Account: login.GetAccount(), Tokens: login.GetTokens(), DeviceToken: login.GetDeviceToken()}, err
	})
}

func (s *Service) verifyEmail(ctx context.Context, req *authv1.VerifyEmailRequest, call *keyedCall, row audited) (*authv1.VerifyEmailResponse, error) {
	seen, err := readLink(ctx, s.db, selectLink, req.GetToken(), linkRegister, linkVerify, linkInvite)
	row.account = seen.account
	if err == nil {
		err = s.checkNewPassword("password", req.GetPassword(), seen.email)
	}
	if err != nil {
		return nil, s.refuse(ctx, row, err)
	}
	hash, err := s.passwords.Hash(ctx, linkHolder(req.GetOrigin()), req.GetPassword())
	if err != nil {
		return nil, err
	}
	var response *authv1.VerifyEmailResponse
	for range verifyTries {
		err = s.transact(ctx, func(tx pgx.Tx) (err error) {
			if err := call.claim(ctx, tx); err != nil {
				return err
			}
			if response, err = s.verified(ctx, tx, req, hash, &row); err != nil {
				return err
			}
			return call.made(ctx, tx, response.GetAccount().GetId())
		})
		if !errors.Is(err, errMeanwhile) {
			break
		}
	}
	if err != nil {
		return nil, s.refuse(ctx, row, fmt.Errorf("verify an email: %w", err))
	}
	s.revocations.Soon()
	s.tell(ctx, response.GetAccount().GetId())
	return response, nil
}

// verified makes the link's account, or gives the one that is there its
// password, and begins a session.
func (s *Service) verified(ctx context.Context, tx pgx.Tx, req *authv1.VerifyEmailRequest, hash string, row *audited) (*authv1.VerifyEmailResponse, error) {
	link, account, err := lockLink(ctx, tx, req.GetToken(), linkRegister, linkVerify, linkInvite)
	if err != nil {
		return nil, err
	}
	if account == nil {
		account, err = s.createVerified(ctx, tx, link, req, hash)
	} else {
		err = s.givePassword(ctx, tx, account, hash, req.GetOrigin())
	}
	if err != nil {
		return nil, err
	}
	row.account = account.GetId()
	if err := redeem(ctx, tx, link, account); err != nil {
		return nil, err
	}
	if _, err := tx.Exec(ctx, noteSignIn, pgx.NamedArgs{"id": account.GetId()}); err != nil {
		return nil, fmt.Errorf("note the sign-in: %w", err)
	}
	if account, err = accountByID(ctx, tx, account.GetId()); err != nil {
		return nil, err
	}
	begun, err := s.beginSession(ctx, tx, account, "", req.GetOrigin())
	if err != nil {
		return nil, err
	}
	done := *row
	done.outcome = succeeded
	if err := audit(ctx, tx, done); err != nil {
		return nil, err
	}
	return &authv1.VerifyEmailResponse{Account: account, Tokens: begun.tokens, DeviceToken: begun.deviceToken}, nil
}

const noteSignIn = `UPDATE auth.accounts SET last_sign_in_time = clock_timestamp() WHERE id = @id`

// createVerified makes the account that a registration asked for.
func (s *Service) createVerified(ctx context.Context, tx pgx.Tx, l link, req *authv1.VerifyEmailRequest, hash string) (*authv1.Account, error) {
	if s.registration == RegistrationClosed {
		return nil, errRegistrationClosed
	}
	profile, err := seedOf(l)
	if err != nil {
		return nil, err
	}
	account, err := s.writeAccount(ctx, tx, newAccount{
		id: req.GetAccountId(), email: l.email, hash: hash, profile: profile, signIn: true, verified: true, origin: req.GetOrigin(),
	})
	if rpc.Reason(err) == rpc.Reason(errEmailTaken) {
		return nil, fmt.Errorf("%w: %w", errMeanwhile, err) // by another link of theirs
	}
	return account, err
}

const updateProvenPassword = `
	UPDATE auth.accounts
	SET password_hash = @hash, email_verified = true,
		password_change_time = clock_timestamp(), update_time = clock_timestamp()
	WHERE id = @id`

// givePassword sets the password of an account whose owner has shown that the
// email is theirs. No session from before counts any more: whoever began it may
// not have been the owner.
func (s *Service) givePassword(ctx context.Context, tx pgx.Tx, account *authv1.Account, hash string, origin *authv1.Origin) error {
	var invited bool
	if err := tx.QueryRow(ctx, selectInvited, pgx.NamedArgs{"id": account.GetId()}).Scan(&invited); err != nil {
		return fmt.Errorf("look at the password: %w", err)
	}
	if _, err := tx.Exec(ctx, updateProvenPassword, pgx.NamedArgs{"id": account.GetId(), "hash": hash}); err != nil {
		return fmt.Errorf("write the password: %w", err)
	}
	if _, err := revokeSessions(ctx, tx, account.GetId(), "", "password reset"); err != nil {
		return err
	}
	err := audit(ctx, tx, audited{event: eventPasswordChange, outcome: succeeded, account: account.GetId(), origin: origin})
	if err != nil || invited {
		return err
	}
	return s.enqueueMail(ctx, tx, mail{
		kind: mailPasswordChanged, to: account.GetEmail(), account: account.GetId(),
		locale: localeOf(origin, account.GetId()), values: circumstances(origin),
	})
}

// SendVerification implements authv1.LinkServiceHandler.
func (s *Service) SendVerification(ctx context.Context, req *authv1.SendVerificationRequest) (*authv1.SendVerificationResponse, error) {
	origin := req.GetOrigin()
	row := audited{event: eventLinkRequest, account: origin.GetAccountId(), origin: origin}
	if !s.sendsMail() {
		return nil, s.refuse(ctx, row, errMailUnavailable)
	}
	account, err := scanAccount(s.db.QueryRow(ctx, selectAccount, pgx.NamedArgs{"id": optional(origin.GetAccountId())}))
	if missing(err) {
		return nil, errUserNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("read the account: %w", err)
	}
	if account.GetEmailVerified() {
		return &authv1.SendVerificationResponse{}, nil
	}
	asked, err := s.countOwnMail(ctx, linkVerify, account.GetId())
	if err != nil {
		return nil, s.refuse(ctx, row, err)
	}
	err = s.transact(ctx, func(tx pgx.Tx) error {
		account, err := lockedAccount(ctx, tx, account.GetId())
		if err != nil {
			return err
		}
		if err := s.sendVerifyLink(ctx, tx, account, origin); err != nil {
			return err
		}
		row.outcome = succeeded
		return audit(ctx, tx, row)
	})
	if err := s.uncountMail(ctx, asked, err); err != nil {
		return nil, fmt.Errorf("send a verification: %w", err)
	}
	return &authv1.SendVerificationResponse{}, nil
}

// sendVerifyLink sends an account's owner a link by which they show that the
// email is theirs.
func (s *Service) sendVerifyLink(ctx context.Context, tx pgx.Tx, account *authv1.Account, origin *authv1.Origin) error {
	token, err := issueLink(ctx, tx, link{kind: linkVerify, email: account.GetEmail(), account: account.GetId()})
	if err != nil {
		return err
	}
	return s.enqueueMail(ctx, tx, mail{
		kind: mailVerifyEmail, to: account.GetEmail(), account: account.GetId(),
		locale: localeOf(origin, account.GetId()), token: token, values: circumstances(origin),
	})
}
