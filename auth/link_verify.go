package auth

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"gatehouse/auth/accounts"
	"gatehouse/auth/admission"
	"gatehouse/auth/audit"
	"gatehouse/auth/challenge"
	"gatehouse/auth/idempotency"
	"gatehouse/auth/links"
	"gatehouse/auth/outbox"
	"gatehouse/auth/passwords"
	"gatehouse/auth/purge"
	"gatehouse/auth/revocations"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/database"
	"gatehouse/internal/fault"
	"gatehouse/internal/once"
)

// verifyTries bounds the retries of a VerifyEmail whose account changes meanwhile.
const verifyTries = 3

// VerifyEmail implements authv1.LinkServiceHandler. A link of a disabled account
// stays open, for when it is enabled.
func (s *linkService) VerifyEmail(ctx context.Context, req *authv1.VerifyEmailRequest) (*authv1.VerifyEmailResponse, error) {
	call := s.calls.Call(req.GetIdempotencyKey(), req.GetOrigin(), req.GetToken())
	row := audit.Row{Event: audit.LinkVerify, Origin: req.GetOrigin()}
	return once.Do(ctx, call, func(err error) error { return s.log.Refuse(ctx, row, err) }, func() (*authv1.VerifyEmailResponse, error) {
		return s.verifyEmail(ctx, req, call, row)
	}, func(made string) (*authv1.VerifyEmailResponse, error) {
		if confirmsOnly(req, made) {
			account, err := accounts.Scan(s.db.QueryRow(ctx, accounts.Select, pgx.NamedArgs{"id": made}))
			if database.Missing(err) {
				return nil, s.log.Refuse(ctx, row, idempotency.ErrTargetGone)
			}
			return &authv1.VerifyEmailResponse{Account: account}, err
		}
		login, err := s.sessions.signInAgain(ctx, made, req.GetPassword(), req.GetAcceptsChallenge(), row)
		return &authv1.VerifyEmailResponse{Account: login.GetAccount(), Tokens: login.GetTokens(), DeviceToken: login.GetDeviceToken(), Challenge: login.GetChallenge()}, err
	})
}

// confirmsOnly reports whether the caller is signed in to the account and only
// verifies its email.
func confirmsOnly(req *authv1.VerifyEmailRequest, account string) bool {
	return req.GetPassword() == "" && account != "" && req.GetOrigin().GetAccountId() == account
}

func (s *linkService) verifyEmail(ctx context.Context, req *authv1.VerifyEmailRequest, call *once.Call, row audit.Row) (*authv1.VerifyEmailResponse, error) {
	seen, err := links.Read(ctx, s.db, links.Select, req.GetToken(), links.Register, links.Verify, links.Invite)
	row.Account = seen.Account
	if err != nil {
		return nil, s.log.Refuse(ctx, row, err)
	}
	var response *authv1.VerifyEmailResponse
	for range verifyTries {
		var proof ownerProof
		if proof, err = s.proveOwner(ctx, req, seen); err != nil {
			break
		}
		err = s.db.Transact(ctx, func(tx pgx.Tx) (err error) {
			if err := call.Claim(ctx, tx); err != nil {
				return err
			}
			if response, err = s.verified(ctx, tx, req, proof, &row); err != nil {
				return err
			}
			return call.Made(ctx, tx, response.GetAccount().GetId())
		})
		if !errors.Is(err, links.ErrChanged) {
			break
		}
	}
	if err != nil {
		return nil, s.log.Refuse(ctx, row, fmt.Errorf("verify an email: %w", err))
	}
	s.revocations.Soon()
	s.relay.Deliver(ctx, response.GetAccount().GetId())
	return response, s.sessions.Offer(ctx, challenge.SignIn, &admission.Outcome{Account: response.GetAccount(), Challenge: response.GetChallenge()})
}

// ownerProof is what a link's holder has proven in addition to the link.
type ownerProof struct {
	// signedIn is the account that they are signed in to, if they gave no password;
	// otherwise "".
	signedIn string
	// known is the stored hash that their password matches; "" if it matches none.
	known string
	// hash is that of the account's new password, if it matches none.
	hash string
}

// proveOwner checks the password of a link's holder. It holds no connection while
// the password is hashed. A wrong password is not counted as a failure: the link
// entitles its holder to choose another.
func (s *linkService) proveOwner(ctx context.Context, req *authv1.VerifyEmailRequest, l links.Link) (ownerProof, error) {
	found, err := readCredentials(ctx, s.db, selectCredentials, pgx.NamedArgs{"email": l.Email})
	if err != nil {
		return ownerProof{}, err
	}
	if confirmsOnly(req, found.id) {
		return ownerProof{signedIn: found.id}, nil
	}
	if found.hash != "" && req.GetPassword() != "" {
		right, _, err := s.passwords.Hasher.Check(ctx, passwords.LinkHolder(req.GetOrigin()), req.GetPassword(), found.hash)
		if err != nil {
			return ownerProof{}, err
		}
		if right {
			return ownerProof{known: found.hash}, nil
		}
	}
	if err := s.passwords.CheckNew("password", req.GetPassword(), l.Email); err != nil {
		return ownerProof{}, err
	}
	hash, err := s.passwords.Hasher.Hash(ctx, passwords.LinkHolder(req.GetOrigin()), req.GetPassword())
	return ownerProof{hash: hash}, err
}

// verified creates the link's account, or marks the email of the existing one as
// verified, and begins a session unless the caller has one.
func (s *linkService) verified(ctx context.Context, tx pgx.Tx, req *authv1.VerifyEmailRequest, proof ownerProof, row *audit.Row) (*authv1.VerifyEmailResponse, error) {
	link, account, err := links.Lock(ctx, tx, req.GetToken(), links.Register, links.Verify, links.Invite)
	if err != nil {
		return nil, err
	}
	if account == nil {
		account, err = s.createVerified(ctx, tx, link, req, proof)
	} else {
		err = s.takeOver(ctx, tx, account, proof, req.GetOrigin())
	}
	if err != nil {
		return nil, err
	}
	row.Account = account.GetId()
	if err := links.Redeem(ctx, tx, link, account); err != nil {
		return nil, err
	}
	response := &authv1.VerifyEmailResponse{}
	if proof.signedIn == "" {
		if response, err = s.beginVerified(ctx, tx, account, req, proof); err != nil {
			return nil, err
		}
	}
	if response.Account, err = accounts.ByID(ctx, tx, account.GetId()); err != nil {
		return nil, err
	}
	done := *row
	done.Outcome = audit.Succeeded
	return response, audit.Write(ctx, tx, done)
}

// beginVerified begins the session of a link's holder, or writes the challenge that they
// owe. The owner needs no mail about a sign-in by mail.
func (s *linkService) beginVerified(ctx context.Context, tx pgx.Tx, account *authv1.Account, req *authv1.VerifyEmailRequest, proof ownerProof) (*authv1.VerifyEmailResponse, error) {
	entry := admission.Entry{
		Account: account.GetId(), Proof: admission.Proof{Kind: admission.Link}, AcceptsChallenge: req.GetAcceptsChallenge(), Origin: req.GetOrigin(),
	}
	if proof.known != "" {
		entry.Proof.AMR = []string{"pwd"}
	}
	begun, err := s.sessions.Admit(ctx, tx, entry)
	if err != nil {
		return nil, err
	}
	return &authv1.VerifyEmailResponse{Tokens: begun.Tokens, DeviceToken: begun.DeviceToken, Challenge: begun.Challenge}, nil
}

const hasPassword = `SELECT ` + accounts.PasswordHash + ` = @hash FROM auth.accounts a WHERE id = @id`

// takeOver gives an account to the holder of its link. A holder who has proven to be
// its present owner keeps password and sessions. Otherwise both are replaced:
// somebody else may have registered the email before its owner did.
func (s *linkService) takeOver(ctx context.Context, tx pgx.Tx, account *authv1.Account, proof ownerProof, origin *authv1.Origin) error {
	switch {
	case proof.signedIn != "" && proof.signedIn != account.GetId():
		return links.ErrChanged
	case proof.known != "":
		var same bool
		if err := tx.QueryRow(ctx, hasPassword, pgx.NamedArgs{"id": account.GetId(), "hash": proof.known}).Scan(&same); err != nil {
			return fmt.Errorf("compare the password: %w", err)
		}
		if !same {
			return links.ErrChanged
		}
	case proof.signedIn == "":
		if err := s.replacePassword(ctx, tx, account, proof.hash, origin); err != nil || !account.GetEmailVerified() {
			return err
		}
		return s.mailPasswordChanged(ctx, tx, account, origin)
	}
	return accounts.SetVerified(ctx, tx, account.GetId())
}

// createVerified creates the account of a registration.
func (s *linkService) createVerified(ctx context.Context, tx pgx.Tx, l links.Link, req *authv1.VerifyEmailRequest, proof ownerProof) (*authv1.Account, error) {
	if proof.hash == "" {
		return nil, links.ErrChanged // the account was deleted
	}
	profile, err := links.ProfileFor(l, req)
	if err != nil {
		return nil, err
	}
	account, err := s.accounts.Write(ctx, tx, accounts.New{
		ID: req.GetAccountId(), Email: l.Email, Hash: proof.hash, Profile: profile, SignIn: true, Verified: true, Origin: req.GetOrigin(),
	})
	if fault.Reason(err) == fault.Reason(accounts.ErrEmailTaken) {
		return nil, fmt.Errorf("%w: %w", links.ErrChanged, err) // with another link for the email
	}
	return account, err
}

const updateProvenPassword = `
	UPDATE auth.accounts a
	SET ` + accounts.SetPasswordHash + `, email_verified = true,
		password_change_time = clock_timestamp(), update_time = clock_timestamp()
	WHERE id = @id`

// givePassword sets the password of an account whose owner has proven the email, and
// mails them.
func (s *linkService) givePassword(ctx context.Context, tx pgx.Tx, account *authv1.Account, hash string, origin *authv1.Origin) error {
	var invited bool
	if err := tx.QueryRow(ctx, selectInvited, pgx.NamedArgs{"id": account.GetId()}).Scan(&invited); err != nil {
		return fmt.Errorf("look at the password: %w", err)
	}
	if err := s.replacePassword(ctx, tx, account, hash, origin); err != nil || invited {
		return err
	}
	return s.mailPasswordChanged(ctx, tx, account, origin)
}

// replacePassword sets the password of an account whose owner has proven the email.
// It revokes all sessions, and if the email was not verified before, removes everything
// else that somebody else may have attached.
func (s *linkService) replacePassword(ctx context.Context, tx pgx.Tx, account *authv1.Account, hash string, origin *authv1.Origin) error {
	verified, err := accounts.IsVerified(ctx, tx, account.GetId())
	if err != nil {
		return err
	}
	if !verified {
		if err := purge.Unproven(ctx, tx, account); err != nil {
			return err
		}
	} else if _, err := revocations.RevokeSessions(ctx, tx, account.GetId(), "", "password reset"); err != nil {
		return err
	}
	args := accounts.PasswordArgs(hash)
	args["id"] = account.GetId()
	if _, err := tx.Exec(ctx, updateProvenPassword, args); err != nil {
		return fmt.Errorf("write the password: %w", err)
	}
	return audit.Write(ctx, tx, audit.Row{Event: audit.PasswordChange, Outcome: audit.Succeeded, Account: account.GetId(), Origin: origin})
}

func (s *linkService) mailPasswordChanged(ctx context.Context, tx pgx.Tx, account *authv1.Account, origin *authv1.Origin) error {
	return s.mails.Enqueue(ctx, tx, outbox.Mail{
		Kind: outbox.PasswordChanged, To: account.GetEmail(), Account: account.GetId(),
		Locale: outbox.LocaleOf(origin, account.GetId()), Values: outbox.Circumstances(origin),
	})
}

// SendVerification implements authv1.LinkServiceHandler.
func (s *linkService) SendVerification(ctx context.Context, req *authv1.SendVerificationRequest) (*authv1.SendVerificationResponse, error) {
	origin := req.GetOrigin()
	row := audit.Row{Event: audit.LinkRequest, Account: origin.GetAccountId(), Origin: origin}
	if !s.mails.Enabled() {
		return nil, s.log.Refuse(ctx, row, outbox.ErrUnavailable)
	}
	account, err := accounts.Scan(s.db.QueryRow(ctx, accounts.Select, pgx.NamedArgs{"id": database.Optional(origin.GetAccountId())}))
	if database.Missing(err) {
		return nil, accounts.ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("read the account: %w", err)
	}
	if account.GetEmailVerified() {
		return &authv1.SendVerificationResponse{}, nil
	}
	asked, err := s.links.CountOwn(ctx, links.Verify, account.GetId())
	if err != nil {
		return nil, s.log.Refuse(ctx, row, err)
	}
	err = s.db.Transact(ctx, func(tx pgx.Tx) error {
		account, err := accounts.Lock(ctx, tx, account.GetId())
		if err != nil {
			return err
		}
		if err := s.links.SendVerification(ctx, tx, account, origin); err != nil {
			return err
		}
		row.Outcome = audit.Succeeded
		return audit.Write(ctx, tx, row)
	})
	if err := s.links.Uncount(ctx, asked, err); err != nil {
		return nil, fmt.Errorf("send a verification: %w", err)
	}
	return &authv1.SendVerificationResponse{}, nil
}
