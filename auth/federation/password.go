package federation

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"gatehouse/auth/accounts"
	"gatehouse/auth/admission"
	"gatehouse/auth/audit"
	"gatehouse/auth/challenge"
	"gatehouse/auth/passwords"
	"gatehouse/auth/throttle"
)

const (
	selectPassword = `SELECT a.email, ` + accounts.PasswordHash + ` FROM auth.accounts a WHERE a.id = @id`
	samePassword   = `SELECT ` + accounts.PasswordHash + ` = @hash FROM auth.accounts a WHERE a.id = @id`
)

// errUnequal has no reason, so that the answer to the challenge is audited once.
var errUnequal = errors.New("the password is wrong")

// Verifier checks the password of the account that an identity is to be linked to.
func (s *Service) Verifier() admission.Verifier {
	return admission.Verifier{Kind: admission.Password, Field: "password", Prepare: s.checkPassword, Verify: s.verifyPassword}
}

// checkPassword stores the hash that the password matches; none for a wrong one.
func (s *Service) checkPassword(ctx context.Context, a *admission.Attempt) error {
	if a.Challenge.Pending == nil {
		return challenge.ErrInvalid // Login takes passwords
	}
	var email, hash string
	if err := s.DB.QueryRow(ctx, selectPassword, pgx.NamedArgs{"id": a.Account}).Scan(&email, &hash); err != nil {
		return fmt.Errorf("look up the password: %w", err)
	}
	_, err := s.Passwords.Try(ctx, passwords.Attempt{
		Client: throttle.Client{Email: accounts.FoldEmail(email), Address: a.Origin.GetIpAddress()},
		Caller: passwords.Stranger(a.Origin), Password: a.Proof.GetPassword(), Hash: hash, Wrong: errUnequal,
		Row: audit.Row{Event: audit.Login, Account: a.Account, Origin: a.Origin},
	})
	switch {
	case errors.Is(err, errUnequal):
		return nil
	case err != nil:
		return err
	}
	a.Prepared = hash
	return nil
}

// verifyPassword compares the hash with the account's, which is locked. Errors:
// invalid_argument PASSWORD_WRONG.
func (s *Service) verifyPassword(ctx context.Context, tx pgx.Tx, a admission.Attempt) (admission.Proof, error) {
	if a.Prepared == "" {
		return admission.Proof{}, passwords.ErrWrong
	}
	var same bool
	if err := tx.QueryRow(ctx, samePassword, pgx.NamedArgs{"id": a.Account, "hash": a.Prepared}).Scan(&same); err != nil {
		return admission.Proof{}, fmt.Errorf("compare the password: %w", err)
	}
	if !same { // it was changed meanwhile
		return admission.Proof{}, passwords.ErrWrong
	}
	return admission.Proof{Kind: admission.Password}, nil
}
