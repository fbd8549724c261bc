package auth

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	authv1 "gatehouse/gen/auth/v1"
)

// requireRecentSignIn holds the session that asks to having given its password
// lately. Errors: failed_precondition REAUTHENTICATION_REQUIRED.
func requireRecentSignIn(ctx context.Context, tx pgx.Tx, origin *authv1.Origin) error {
	var recent bool
	err := tx.QueryRow(ctx, recentlyGiven, pgx.NamedArgs{
		"id": optional(origin.GetSessionId()), "account_id": optional(origin.GetAccountId()), "within": recentSignIn,
	}).Scan(&recent)
	if err != nil {
		return fmt.Errorf("look up the sign-in: %w", err)
	}
	if !recent {
		return errReauthenticate
	}
	return nil
}
