package auth

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/crashpoint"
)

const insertAccount = `
	INSERT INTO auth.accounts (id, email, email_verified, password_hash, roles, last_sign_in_time)
	VALUES (@id, @email, @email_verified, @password_hash, @roles, CASE WHEN @signed_in::boolean THEN now() END)`

// CreateAccount implements authv1.AccountServiceHandler.
func (s *Service) CreateAccount(ctx context.Context, req *authv1.CreateAccountRequest) (*authv1.CreateAccountResponse, error) {
	if req.GetSignIn() && s.registration == RegistrationClosed {
		return nil, errRegistrationClosed
	}
	call := s.keyed(req.GetIdempotencyKey(), req.GetOrigin())
	row := audited{event: eventAccountCreate, origin: req.GetOrigin()}
	return once(ctx, s, call, row, func() (*authv1.CreateAccountResponse, error) {
		return s.createAccount(ctx, req, call)
	}, func(made string) (*authv1.CreateAccountResponse, error) {
		return s.createdAgain(ctx, req, made, row)
	})
}

func (s *Service) createAccount(ctx context.Context, req *authv1.CreateAccountRequest, call *keyedCall) (*authv1.CreateAccountResponse, error) {
	if err := requireIfAsked(ctx, s.db, req.GetOrigin()); err != nil {
		return nil, s.refuse(ctx, audited{event: eventAccountCreate, origin: req.GetOrigin()}, err)
	}
	switch {
	case req.GetSignIn() && s.registration == RegistrationVerify:
		return s.register(ctx, req, call)
	case req.GetPassword() == "" && !req.GetSignIn():
		return s.invite(ctx, req, call)
	}
	if err := s.checkNewPassword("password", req.GetPassword(), req.GetEmail()); err != nil {
		return nil, err
	}
	hash, err := s.passwords.Hash(ctx, anybody(req.GetOrigin()), req.GetPassword())
	if err != nil {
		return nil, err
	}
	asked, err := s.countSignUpMail(ctx, req)
	if err != nil {
		return nil, err
	}
	response, err := s.create(ctx, req, call, hash, func(tx pgx.Tx, response *authv1.CreateAccountResponse) error {
		if !req.GetSignIn() {
			return nil
		}
		begun, err := s.beginSession(ctx, tx, response.GetAccount(), "", req.GetOrigin())
		if err != nil {
			return err
		}
		response.Tokens, response.DeviceToken = begun.tokens, begun.deviceToken
		if !s.sendsMail() {
			return nil
		}
		_, err = s.sendCounted(ctx, tx, asked, linkVerify, response.GetAccount().GetEmail(), func(tx pgx.Tx) error {
			return s.sendVerifyLink(ctx, tx, response.GetAccount(), req.GetOrigin())
		})
		return err
	})
	return response, s.uncountMail(ctx, asked, err) // such as of an email that is taken
}

// countSignUpMail counts the mail of an account that is made at once.
func (s *Service) countSignUpMail(ctx context.Context, req *authv1.CreateAccountRequest) (mailCount, error) {
	if !req.GetSignIn() || !s.sendsMail() {
		return mailCount{}, nil
	}
	return s.countMail(ctx, linkVerify, req.GetEmail(), req.GetOrigin())
}

// register sends a link by which VerifyEmail makes the account. It neither
// hashes nor looks whether the email has an account, so that neither the answer
// nor its time tells: addressed does once nobody waits.
func (s *Service) register(ctx context.Context, req *authv1.CreateAccountRequest, call *keyedCall) (*authv1.CreateAccountResponse, error) {
	row := audited{event: eventLinkRequest, origin: req.GetOrigin()}
	if !s.sendsMail() {
		return nil, s.refuse(ctx, row, errMailUnavailable)
	}
	email := strings.TrimSpace(req.GetEmail())
	token := newLinkToken()
	kept, err := registration{profile: req.GetProfile(), password: req.GetPassword()}.encode(token)
	if err != nil {
		return nil, err
	}
	asked, err := s.countMail(ctx, linkRegister, email, req.GetOrigin())
	if err != nil {
		return nil, err
	}
	err = s.transact(ctx, func(tx pgx.Tx) error {
		if err := call.claim(ctx, tx); err != nil {
			return err
		}
		wanted := link{kind: linkRegister, email: email, profile: kept}
		sent, err := s.sendCounted(ctx, tx, asked, linkRegister, email, func(tx pgx.Tx) error {
			return s.sendUnaddressed(ctx, tx, mailVerifyEmail, wanted, token, req.GetOrigin())
		})
		if err != nil {
			return err
		}
		if err := call.made(ctx, tx, ""); err != nil {
			return err
		}
		return s.auditRequest(ctx, tx, row, sent)
	})
	if err := s.uncountMail(ctx, asked, err); err != nil {
		return nil, fmt.Errorf("register: %w", err)
	}
	return &authv1.CreateAccountResponse{VerificationSent: true}, nil
}

// invite makes an account without a password and sends its owner a link to
// choose one.
func (s *Service) invite(ctx context.Context, req *authv1.CreateAccountRequest, call *keyedCall) (*authv1.CreateAccountResponse, error) {
	if !s.sendsMail() {
		return nil, errMailUnavailable
	}
	return s.create(ctx, req, call, "", func(tx pgx.Tx, response *authv1.CreateAccountResponse) error {
		locale := req.GetProfile().GetLocale()
		return s.sendOwnersLink(ctx, tx, mailInvitation, linkInvite, response.GetAccount(), locale)
	})
}

// create makes the account, and in the same transaction what comes with it.
func (s *Service) create(ctx context.Context, req *authv1.CreateAccountRequest, call *keyedCall, hash string,
	with func(tx pgx.Tx, response *authv1.CreateAccountResponse) error,
) (*authv1.CreateAccountResponse, error) {
	crashpoint.Reach("auth: before the account is written")
	response := &authv1.CreateAccountResponse{}
	err := s.transact(ctx, func(tx pgx.Tx) (err error) {
		if err := call.claim(ctx, tx); err != nil {
			return err
		}
		response.Account, err = s.writeAccount(ctx, tx, newAccount{
			id: req.GetAccountId(), email: req.GetEmail(), hash: hash, roles: req.GetRoles(),
			profile: req.GetProfile(), signIn: req.GetSignIn(), origin: req.GetOrigin(),
		})
		if err != nil {
			return err
		}
		if err := call.made(ctx, tx, req.GetAccountId()); err != nil {
			return err
		}
		err = with(tx, response)
		crashpoint.Reach("auth: before the account is committed")
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("create an account: %w", err)
	}
	crashpoint.Reach("auth: after the account is committed")
	s.tell(ctx, req.GetAccountId())
	return response, nil
}

// newAccount is what an account begins with.
type newAccount struct {
	id, email, hash string
	roles           []string
	profile         *authv1.ProfileSeed
	signIn          bool
	verified        bool // the owner has shown that the email is theirs
	origin          *authv1.Origin
}

// writeAccount writes the account, its outbox row and its audit row. Errors:
// already_exists EMAIL_TAKEN or ACCOUNT_EXISTS.
func (s *Service) writeAccount(ctx context.Context, tx pgx.Tx, account newAccount) (*authv1.Account, error) {
	_, err := tx.Exec(ctx, insertAccount, pgx.NamedArgs{
		"id": account.id, "email": strings.TrimSpace(account.email), "email_verified": account.verified, "password_hash": account.hash,
		"roles": sortedRoles(account.roles), "signed_in": account.signIn,
	})
	switch {
	case emailIsTaken(err):
		return nil, errEmailTaken.WithCause(err)
	case violates(err, "accounts_pkey"):
		return nil, errAccountExists.WithCause(err)
	case err != nil:
		return nil, fmt.Errorf("write the account: %w", err)
	}
	crashpoint.Reach("auth: before the outbox is written")
	profile, err := encodeSeed(account.profile)
	if err != nil {
		return nil, err
	}
	if err := enqueue(ctx, tx, account.id, 1, profile); err != nil {
		return nil, err
	}
	err = audit(ctx, tx, audited{event: eventAccountCreate, outcome: succeeded, account: account.id, origin: account.origin})
	if err != nil {
		return nil, err
	}
	return accountByID(ctx, tx, account.id)
}

// encodeSeed returns what an outbox row keeps of a new profile.
func encodeSeed(profile *authv1.ProfileSeed) ([]byte, error) {
	encoded, err := json.Marshal(profileSeed{
		FirstName: profile.GetFirstName(), LastName: profile.GetLastName(), Locale: profile.GetLocale(),
	})
	if err != nil {
		return nil, fmt.Errorf("encode the profile: %w", err)
	}
	return encoded, nil
}
