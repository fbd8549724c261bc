package auth

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	authv1 "gatehouse/gen/auth/v1"
)

const insertAccount = `
	INSERT INTO auth.accounts (id, email, password_hash, roles, last_sign_in_time)
	VALUES (@id, @email, @password_hash, @roles, CASE WHEN @signed_in::boolean THEN now() END)`

// CreateAccount implements authv1.AccountServiceHandler.
func (s *Service) CreateAccount(ctx context.Context, req *authv1.CreateAccountRequest) (*authv1.CreateAccountResponse, error) {
	if req.GetSignIn() && s.registration == RegistrationClosed {
		return nil, errRegistrationClosed
	}
	if err := s.checkNewPassword("password", req.GetPassword(), req.GetEmail()); err != nil {
		return nil, err
	}
	hash, err := s.passwords.Hash(ctx, req.GetPassword())
	if err != nil {
		return nil, err
	}
	s.step("auth: before the account is written")
	response := &authv1.CreateAccountResponse{}
	err = s.transact(ctx, func(tx pgx.Tx) (err error) {
		response.Account, err = s.writeAccount(ctx, tx, newAccount{
			id: req.GetAccountId(), email: req.GetEmail(), hash: hash, roles: req.GetRoles(),
			profile: req.GetProfile(), signIn: req.GetSignIn(), origin: req.GetOrigin(),
		})
		if err != nil {
			return err
		}
		if req.GetSignIn() {
			begun, err := s.beginSession(ctx, tx, response.GetAccount(), "", req.GetOrigin())
			if err != nil {
				return err
			}
			response.Tokens, response.DeviceToken = begun.tokens, begun.deviceToken
		}
		s.step("auth: before the account is committed")
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("create an account: %w", err)
	}
	s.step("auth: after the account is committed")
	s.tell(ctx, req.GetAccountId())
	return response, nil
}

// newAccount is what an account begins with.
type newAccount struct {
	id, email, hash string
	roles           []string
	profile         *authv1.ProfileSeed
	signIn          bool
	origin          *authv1.Origin
}

// writeAccount writes the account, its outbox row and its audit row. Errors:
// already_exists EMAIL_TAKEN or ACCOUNT_EXISTS.
func (s *Service) writeAccount(ctx context.Context, tx pgx.Tx, account newAccount) (*authv1.Account, error) {
	_, err := tx.Exec(ctx, insertAccount, pgx.NamedArgs{
		"id": account.id, "email": strings.TrimSpace(account.email), "password_hash": account.hash,
		"roles": sortedRoles(account.roles), "signed_in": account.signIn,
	})
	switch {
	case violates(err, "accounts_email_key"):
		return nil, errEmailTaken.WithCause(err)
	case violates(err, "accounts_pkey"):
		return nil, errAccountExists.WithCause(err)
	case err != nil:
		return nil, fmt.Errorf("write the account: %w", err)
	}
	s.step("auth: before the outbox is written")
	profile, err := json.Marshal(profileSeed{
		FirstName: account.profile.GetFirstName(), LastName: account.profile.GetLastName(), Locale: account.profile.GetLocale(),
	})
	if err != nil {
		return nil, fmt.Errorf("encode the profile: %w", err)
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
