package accounts

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Verified is the condition that the email of an account, aliased a, is its owner's: they
// have verified it, or an administrator or an operator made the account for them.
const Verified = `(a.email_verified OR a.vouched)`

const selectVerified = `SELECT ` + Verified + ` FROM auth.accounts a WHERE a.id = @id`

// IsVerified reports whether the email of an account is its owner's.
func IsVerified(ctx context.Context, tx pgx.Tx, id string) (verified bool, err error) {
	if err := tx.QueryRow(ctx, selectVerified, pgx.NamedArgs{"id": id}).Scan(&verified); err != nil {
		return false, fmt.Errorf("look whether the email is verified: %w", err)
	}
	return verified, nil
}
