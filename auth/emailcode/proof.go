package emailcode

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"gatehouse/auth/accounts"
	"gatehouse/auth/admission"
	"gatehouse/auth/challenge"
	"gatehouse/auth/links"
	"gatehouse/auth/purge"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/database"
)

// Verifier checks codes.
func (s *Service) Verifier() admission.Verifier {
	return admission.Verifier{
		Kind: admission.EmailCode, Field: "email_code", Purpose: challenge.EmailCode,
		Identify: s.identify, Subject: s.subject, Limit: s.limit, Lock: s.lock, Verify: s.verify, Accept: s.accept,
	}
}

const selectAccountID = `SELECT id::text FROM auth.accounts a WHERE lower(a.email COLLATE "C") = lower(@email COLLATE "C")`

// identify returns the account that a code would sign in to; "" if the email has none.
func (s *Service) identify(ctx context.Context, db database.Querier, a admission.Attempt) (account string, err error) {
	found, err := s.stateOf(a.Challenge)
	if err != nil {
		return "", err
	}
	err = db.QueryRow(ctx, selectAccountID, pgx.NamedArgs{"email": found.Email}).Scan(&account)
	if err != nil && !database.Missing(err) {
		return "", fmt.Errorf("look up the account: %w", err)
	}
	return account, nil
}

func (s *Service) subject(a admission.Attempt) (string, error) {
	found, err := s.stateOf(a.Challenge)
	return "email:" + accounts.FoldEmail(found.Email), err
}

// limit counts a guess, for the email: whether it has an account must not show. Errors:
// resource_exhausted TOO_MANY_ATTEMPTS.
func (s *Service) limit(ctx context.Context, a admission.Attempt) (admission.Settle, error) {
	found, err := s.stateOf(a.Challenge)
	if err != nil {
		return nil, err
	}
	device := ""
	if known, ok := s.Desk.DeviceKeys.Verify(found.DeviceToken, a.Account); ok {
		device = known.String()
	}
	attempt, _, err := s.Throttle.BeginEmailCode(ctx, accounts.FoldEmail(found.Email), device)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, result admission.Result) error {
		switch result {
		case admission.Right:
			return s.Throttle.Succeed(ctx, attempt)
		case admission.Wrong:
			return s.Throttle.Fail(ctx, attempt)
		}
		return s.Throttle.Cancel(ctx, attempt)
	}, nil
}

// lock locks the account of the email; nil if there is none, or the code is wrong: a
// lock takes time, and would tell a stranger who asked for a code whether there is an account.
func (s *Service) lock(ctx context.Context, tx pgx.Tx, a admission.Attempt) (*authv1.Account, error) {
	found, err := s.stateOf(a.Challenge)
	if err != nil || !s.matches(found, a) {
		return nil, err
	}
	return links.LockAddress(ctx, tx, found.Email)
}

func (s *Service) verify(_ context.Context, _ pgx.Tx, a admission.Attempt) (admission.Proof, error) {
	found, err := s.stateOf(a.Challenge)
	if err == nil && !s.matches(found, a) {
		err = challenge.ErrMailedCodeWrong
	}
	return admission.Proof{Kind: admission.EmailCode}, err
}

// accept makes the email of a right code its owner's: it creates the account, or removes
// what somebody else may have attached to an unverified one. Errors: permission_denied
// ACCOUNT_DISABLED, REGISTRATION_CLOSED or SIGN_UP_DOMAIN.
func (s *Service) accept(ctx context.Context, tx pgx.Tx, a admission.Attempt, account *authv1.Account) (admission.Accepted, error) {
	found, err := s.stateOf(a.Challenge)
	if err != nil {
		return admission.Accepted{}, err
	}
	if account == nil {
		return s.create(ctx, tx, found, a.Origin)
	}
	if account.GetStatus() != authv1.AccountStatus_ACCOUNT_STATUS_ACTIVE {
		return admission.Accepted{}, accounts.ErrDisabled
	}
	accepted := admission.Accepted{Account: account}
	if device, ok := s.Desk.DeviceKeys.Verify(found.DeviceToken, account.GetId()); ok {
		accepted.Device = device.String()
	}
	if account.GetEmailVerified() {
		return accepted, nil
	}
	accepted.Account, err = s.prove(ctx, tx, account)
	accepted.Committed = func(context.Context) { s.Desk.Revocations.Soon() }
	return accepted, err
}

func (s *Service) create(ctx context.Context, tx pgx.Tx, found state, origin *authv1.Origin) (admission.Accepted, error) {
	if found.NoSignUp {
		return admission.Accepted{}, accounts.ErrRegistrationClosed
	}
	id, err := uuid.NewV7()
	if err != nil {
		return admission.Accepted{}, fmt.Errorf("make an id: %w", err)
	}
	account, err := s.Accounts.Write(ctx, tx, accounts.New{
		ID: id.String(), Email: found.Email, SignIn: true, Verified: true, Origin: origin,
		Profile: &authv1.ProfileSeed{FirstName: found.FirstName, LastName: found.LastName},
	})
	return admission.Accepted{Account: account, Committed: func(ctx context.Context) { s.Relay.Deliver(ctx, id.String()) }}, err
}

// prove marks the email of an account as verified. The account is locked.
func (s *Service) prove(ctx context.Context, tx pgx.Tx, account *authv1.Account) (*authv1.Account, error) {
	vouched, err := accounts.IsVerified(ctx, tx, account.GetId())
	if err != nil {
		return nil, err
	}
	if !vouched {
		if err := purge.Unproven(ctx, tx, account); err != nil {
			return nil, err
		}
	}
	if err := accounts.SetVerified(ctx, tx, account.GetId()); err != nil {
		return nil, err
	}
	return accounts.ByID(ctx, tx, account.GetId())
}
