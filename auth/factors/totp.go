// Package factors stores what accounts have as second factors, authenticator apps and
// recovery codes, and verifies the proofs by them.
//
// The callers hold the account's lock, so that a sign-in sees either all of a change
// of its factors or nothing.
package factors

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"gatehouse/auth/outbox"
	"gatehouse/auth/secretkey"
	"gatehouse/auth/throttle"
	"gatehouse/auth/totp"
	"gatehouse/internal/database"
)

// Store reads and writes second factors.
type Store struct {
	DB *database.Pool
	// Secrets are the secret keys, newest first.
	Secrets  [][]byte
	Throttle *throttle.Throttle
	Mails    *outbox.Outbox
	Logger   *slog.Logger
}

// CurrentStep is the number of the present step, on Postgres' clock: copies of auth
// with clocks that differ would accept a code twice.
const CurrentStep = `floor(extract(epoch FROM clock_timestamp()) / 30)::bigint`

const (
	selectTOTP = `
		SELECT sealed_secret, create_time, ` + CurrentStep + ` FROM auth.totp_factors WHERE account_id = @account_id`
	// The only guard of all uses of a code, enrolment included. Its app is the one that
	// was read: a code of an app that was replaced meanwhile is wrong.
	acceptStep = `
		UPDATE auth.totp_factors SET last_step = @step, last_used_time = clock_timestamp()
		WHERE account_id = @account_id AND last_step < @step AND create_time = @create_time`
)

// AcceptTOTP reports whether the code is one of the account's app that was not used,
// nor any later one. It then is used.
func (s *Store) AcceptTOTP(ctx context.Context, tx pgx.Tx, account, code string) (bool, error) {
	var sealed []byte
	var created time.Time
	var current int64
	err := tx.QueryRow(ctx, selectTOTP, pgx.NamedArgs{"account_id": account}).Scan(&sealed, &created, &current)
	if database.Missing(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read the authenticator app: %w", err)
	}
	secret, err := totp.Open(s.Secrets, account, sealed)
	if err != nil {
		return false, fmt.Errorf("open the secret of the authenticator app: %w", err)
	}
	step, ok := secret.Match(code, current)
	if !ok {
		return false, nil
	}
	tag, err := tx.Exec(ctx, acceptStep, pgx.NamedArgs{"account_id": account, "step": step, "create_time": created})
	if err != nil {
		return false, fmt.Errorf("use the code: %w", err)
	}
	return tag.RowsAffected() == 1, nil
}

const (
	selectStep = `SELECT ` + CurrentStep
	// The code that confirms the enrolment is used with it.
	enrolTOTP = `
		INSERT INTO auth.totp_factors AS t (account_id, sealed_secret, key_id, last_step, create_time)
		VALUES (@account_id, @sealed_secret, @key_id, @step, clock_timestamp())
		ON CONFLICT (account_id) DO UPDATE SET sealed_secret = excluded.sealed_secret, key_id = excluded.key_id,
			last_step = excluded.last_step, create_time = excluded.create_time, last_used_time = NULL`
	deleteTOTP = `DELETE FROM auth.totp_factors WHERE account_id = @account_id`
)

// EnrolTOTP makes the secret the account's, instead of an earlier one, if the code is
// one of it. It reports whether it is.
func (s *Store) EnrolTOTP(ctx context.Context, tx pgx.Tx, account string, secret totp.Secret, code string) (bool, error) {
	var current int64
	if err := tx.QueryRow(ctx, selectStep).Scan(&current); err != nil {
		return false, fmt.Errorf("read the clock: %w", err)
	}
	step, ok := secret.Match(code, current)
	if !ok {
		return false, nil
	}
	sealed, err := secret.Seal(s.Secrets[0], account)
	if err != nil {
		return false, fmt.Errorf("seal the secret of the authenticator app: %w", err)
	}
	key, err := secretkey.ID(s.Secrets[0])
	if err != nil {
		return false, err
	}
	_, err = tx.Exec(ctx, enrolTOTP, pgx.NamedArgs{"account_id": account, "sealed_secret": sealed, "key_id": key, "step": step})
	if err != nil {
		return false, fmt.Errorf("store the authenticator app: %w", err)
	}
	return true, nil
}

// RemoveTOTP removes the account's app and reports whether there was one.
func RemoveTOTP(ctx context.Context, tx pgx.Tx, account string) (bool, error) {
	tag, err := tx.Exec(ctx, deleteTOTP, pgx.NamedArgs{"account_id": account})
	if err != nil {
		return false, fmt.Errorf("remove the authenticator app: %w", err)
	}
	return tag.RowsAffected() > 0, nil
}
