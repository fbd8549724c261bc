package emailcode

import (
	"context"
	"encoding/hex"
	"fmt"

	"github.com/jackc/pgx/v5"

	"gatehouse/auth/accounts"
	"gatehouse/auth/outbox"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/database"
)

// valueChallenge is the mail's value with the hash of the challenge that takes its code.
const valueChallenge = "challenge"

// valueNoSignUp is the mail's value that says that only the owner of an account gets it.
const valueNoSignUp = "no_sign_up"

const (
	existsOpen      = `SELECT EXISTS (SELECT FROM auth.challenges WHERE token_hash = @challenge AND end_time IS NULL AND expire_time > clock_timestamp())`
	selectAddressee = `SELECT ` + accounts.Columns + ` FROM auth.accounts a WHERE lower(a.email COLLATE "C") = lower(@email COLLATE "C")`
)

// Address decides, just before the mail with a code is sent, whom it goes to. It returns
// false when it is not to be sent: its code no longer works, the account is disabled, or
// there is none and its owner may not register.
func (s *Service) Address(ctx context.Context, m outbox.Mail) (outbox.Mail, bool, error) {
	hash, err := hex.DecodeString(m.Values[valueChallenge])
	if err != nil {
		return m, false, fmt.Errorf("read the mail's challenge: %w", err)
	}
	var open bool
	if err := s.DB.QueryRow(ctx, existsOpen, pgx.NamedArgs{"challenge": hash}).Scan(&open); err != nil {
		return m, false, fmt.Errorf("look for the challenge: %w", err)
	}
	if !open || m.Account != "" { // a step-up of that account
		return m, open, nil
	}
	account, err := accounts.Scan(s.DB.QueryRow(ctx, selectAddressee, pgx.NamedArgs{"email": m.To}))
	switch {
	case database.Missing(err):
		return m, m.Values[valueNoSignUp] == "" && s.Accounts.SignUps.Check(m.To) == nil, nil
	case err != nil:
		return m, false, fmt.Errorf("look up the account: %w", err)
	}
	// The account's spelling: another one may be another person's mailbox.
	m.To, m.Account = account.GetEmail(), account.GetId()
	return m, account.GetStatus() == authv1.AccountStatus_ACCOUNT_STATUS_ACTIVE, nil
}
