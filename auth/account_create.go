package auth

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"gatehouse/auth/accounts"
	"gatehouse/auth/admission"
	"gatehouse/auth/audit"
	"gatehouse/auth/idempotency"
	"gatehouse/auth/links"
	"gatehouse/auth/outbox"
	"gatehouse/auth/passwords"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/crashpoint"
	"gatehouse/internal/database"
	"gatehouse/internal/once"
)

// CreateAccount implements authv1.AccountServiceHandler.
func (s *accountService) CreateAccount(ctx context.Context, req *authv1.CreateAccountRequest) (*authv1.CreateAccountResponse, error) {
	if req.GetSignIn() && s.registration != RegistrationVerify { // there, Address decides later
		if err := s.accounts.SignUps.Check(req.GetEmail()); err != nil {
			return nil, err
		}
	}
	call := s.calls.Call(req.GetIdempotencyKey(), req.GetOrigin())
	row := audit.Row{Event: audit.AccountCreate, Origin: req.GetOrigin()}
	return once.Do(ctx, call, func(err error) error { return s.log.Refuse(ctx, row, err) }, func() (*authv1.CreateAccountResponse, error) {
		return s.createAccount(ctx, req, call)
	}, func(made string) (*authv1.CreateAccountResponse, error) {
		return s.createdAgain(ctx, req, made, row)
	})
}

func (s *accountService) createAccount(ctx context.Context, req *authv1.CreateAccountRequest, call *once.Call) (*authv1.CreateAccountResponse, error) {
	if err := accounts.RequireIfAsked(ctx, s.db, req.GetOrigin()); err != nil {
		return nil, s.log.Refuse(ctx, audit.Row{Event: audit.AccountCreate, Origin: req.GetOrigin()}, err)
	}
	switch {
	case req.GetSignIn() && s.registration == RegistrationVerify:
		return s.register(ctx, req, call)
	case req.GetPassword() == "" && !req.GetSignIn():
		return s.invite(ctx, req, call)
	}
	if err := s.passwords.CheckNew("password", req.GetPassword(), req.GetEmail()); err != nil {
		return nil, err
	}
	hash, err := s.passwords.Hasher.Hash(ctx, passwords.Anybody(req.GetOrigin()), req.GetPassword())
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
		begun, err := s.sessions.Admit(ctx, tx, admission.Entry{
			Account: req.GetAccountId(), Proof: admission.Proof{Kind: admission.Password}, Hash: hash, Origin: req.GetOrigin(),
		})
		if err != nil {
			return err
		}
		response.Tokens, response.DeviceToken = begun.Tokens, begun.DeviceToken
		if !s.mails.Enabled() {
			return nil
		}
		_, err = s.links.SendCounted(ctx, tx, asked, links.Verify, response.GetAccount().GetEmail(), func(tx pgx.Tx) error {
			return s.links.SendVerification(ctx, tx, response.GetAccount(), req.GetOrigin())
		})
		return err
	})
	return response, s.links.Uncount(ctx, asked, err) // for example of an email that is taken
}

// countSignUpMail counts the verification mail of a sign-up.
func (s *accountService) countSignUpMail(ctx context.Context, req *authv1.CreateAccountRequest) (links.Count, error) {
	if !req.GetSignIn() || !s.mails.Enabled() {
		return links.Count{}, nil
	}
	return s.links.Count(ctx, links.Verify, req.GetEmail(), req.GetOrigin())
}

// register sends a link with which VerifyEmail creates the account. It neither
// hashes nor checks whether the email has an account, so that neither the answer
// nor its timing reveals it: links.Address checks when the mail is sent.
func (s *accountService) register(ctx context.Context, req *authv1.CreateAccountRequest, call *once.Call) (*authv1.CreateAccountResponse, error) {
	row := audit.Row{Event: audit.LinkRequest, Origin: req.GetOrigin()}
	if !s.mails.Enabled() {
		return nil, s.log.Refuse(ctx, row, outbox.ErrUnavailable)
	}
	email := strings.TrimSpace(req.GetEmail())
	token := links.NewToken()
	kept, err := links.Registration{Profile: req.GetProfile(), Password: req.GetPassword()}.Encode(token)
	if err != nil {
		return nil, err
	}
	asked, err := s.links.Count(ctx, links.Register, email, req.GetOrigin())
	if err != nil {
		return nil, err
	}
	err = s.db.Transact(ctx, func(tx pgx.Tx) error {
		if err := call.Claim(ctx, tx); err != nil {
			return err
		}
		wanted := links.Link{Kind: links.Register, Email: email, Profile: kept}
		sent, err := s.links.SendCounted(ctx, tx, asked, links.Register, email, func(tx pgx.Tx) error {
			return s.links.SendUnaddressed(ctx, tx, outbox.VerifyEmail, wanted, token, req.GetOrigin())
		})
		if err != nil {
			return err
		}
		if err := call.Made(ctx, tx, ""); err != nil {
			return err
		}
		return s.links.AuditRequest(ctx, tx, row, sent)
	})
	if err := s.links.Uncount(ctx, asked, err); err != nil {
		return nil, fmt.Errorf("register: %w", err)
	}
	return &authv1.CreateAccountResponse{VerificationSent: true}, nil
}

// invite creates an account without a password and sends its owner a link to
// choose one.
func (s *accountService) invite(ctx context.Context, req *authv1.CreateAccountRequest, call *once.Call) (*authv1.CreateAccountResponse, error) {
	if !s.mails.Enabled() {
		return nil, outbox.ErrUnavailable
	}
	return s.create(ctx, req, call, "", func(tx pgx.Tx, response *authv1.CreateAccountResponse) error {
		locale := req.GetProfile().GetLocale()
		return s.links.SendToOwner(ctx, tx, outbox.Invitation, links.Invite, response.GetAccount(), locale)
	})
}

// create creates the account, and calls with in the same transaction.
func (s *accountService) create(ctx context.Context, req *authv1.CreateAccountRequest, call *once.Call, hash string,
	with func(tx pgx.Tx, response *authv1.CreateAccountResponse) error,
) (*authv1.CreateAccountResponse, error) {
	crashpoint.Reach("auth: before the account is written")
	response := &authv1.CreateAccountResponse{}
	err := s.db.Transact(ctx, func(tx pgx.Tx) (err error) {
		if err := call.Claim(ctx, tx); err != nil {
			return err
		}
		response.Account, err = s.accounts.Write(ctx, tx, accounts.New{
			ID: req.GetAccountId(), Email: req.GetEmail(), Hash: hash, Roles: req.GetRoles(),
			Profile: req.GetProfile(), SignIn: req.GetSignIn(), Origin: req.GetOrigin(),
		})
		if err != nil {
			return err
		}
		if err := call.Made(ctx, tx, req.GetAccountId()); err != nil {
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
	s.relay.Deliver(ctx, req.GetAccountId())
	return response, nil
}

// createdAgain answers a repeated CreateAccount whose account exists.
func (s *accountService) createdAgain(ctx context.Context, req *authv1.CreateAccountRequest, made string, row audit.Row) (*authv1.CreateAccountResponse, error) {
	if made == "" {
		return &authv1.CreateAccountResponse{VerificationSent: true}, nil
	}
	if req.GetSignIn() {
		login, err := s.sessions.signInAgain(ctx, made, req.GetPassword(), false, row)
		return &authv1.CreateAccountResponse{Account: login.GetAccount(), Tokens: login.GetTokens(), DeviceToken: login.GetDeviceToken()}, err
	}
	account, err := accounts.Scan(s.db.QueryRow(ctx, accounts.Select, pgx.NamedArgs{"id": made}))
	if database.Missing(err) {
		return nil, s.log.Refuse(ctx, row, idempotency.ErrTargetGone)
	}
	if err != nil {
		return nil, fmt.Errorf("read the account: %w", err)
	}
	return &authv1.CreateAccountResponse{Account: account}, nil
}
