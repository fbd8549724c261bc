package accounts

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Verified is the condition that the email of an account, aliased a, is its owner's: they
// have verified it, or an administrator or an operator made the account for them.
const Verified = `(a.email_verified OR a.vouched)`

const setVerified = `
	UPDATE auth.accounts SET email_verified = true, update_time = clock_timestamp()
	WHERE id = @id AND NOT email_verified`

// SetVerified notes that an account's owner has proven its email.
func SetVerified(ctx context.Context, tx pgx.Tx, id string) error {
	if _, err := tx.Exec(ctx, setVerified, pgx.NamedArgs{"id": id}); err != nil {
		return fmt.Errorf("verify the email: %w", err)
	}
	return nil
}

const selectVerified = `SELECT ` + Verified + ` FROM auth.accounts a WHERE a.id = @id`

// IsVerified reports whether the email of an account is its owner's.
func IsVerified(ctx context.Context, tx pgx.Tx, id string) (verified bool, err error) {
	if err := tx.QueryRow(ctx, selectVerified, pgx.NamedArgs{"id": id}).Scan(&verified); err != nil {
		return false, fmt.Errorf("look whether the email is verified: %w", err)
	}
	return verified, nil
}
