package accounts

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"gatehouse/internal/database"
)

// WaysIn are the ways to sign in that this installation accepts now. What an account
// holds may be unusable: a passkey for another RP ID, or an identity of a provider that
// is no longer configured. The column has_sign_in does not tell: settings change without
// it.
type WaysIn struct {
	// RPID is the RP ID of the passkeys that work; "" where passkeys are turned off.
	RPID string
	// Issuers are LIKE patterns of the issuers of the providers.
	Issuers []string
}

func (w WaysIn) args(account string) pgx.NamedArgs {
	return pgx.NamedArgs{"account_id": database.Optional(account), "rp_id": w.RPID, "issuers": append([]string{}, w.Issuers...)}
}

const (
	// holdsWayIn is the condition that an account, aliased a, holds a way in besides mailed
	// codes. With EXISTS, Postgres may read the whole tables.
	holdsWayIn = `(a.password_hash <> '' OR a.has_sign_in AND (
		coalesce((SELECT true FROM auth.passkeys p WHERE p.account_id = a.id AND p.block_time IS NULL AND p.rp_id = @rp_id LIMIT 1), false)
		OR coalesce((SELECT true FROM auth.identities i WHERE i.account_id = a.id AND i.issuer LIKE ANY (@issuers::text[]) LIMIT 1), false)))`
	existsWayIn         = `SELECT ` + holdsWayIn + ` FROM auth.accounts a WHERE a.id = @account_id`
	administratorsEnter = `
		SELECT EXISTS (SELECT FROM auth.accounts a WHERE a.status = 'active' AND 'admin' = ANY (a.roles) AND ` + holdsWayIn + `)`
)

// Require refuses if the account could not sign in, mailed codes aside. has_sign_in is up
// to date. Errors: failed_precondition LAST_SIGN_IN_METHOD.
func (w WaysIn) Require(ctx context.Context, db database.Querier, account string) error {
	var can bool
	if err := db.QueryRow(ctx, existsWayIn, w.args(account)).Scan(&can); err != nil {
		return fmt.Errorf("look for a way to sign in: %w", err)
	}
	if !can {
		return ErrLastSignIn
	}
	return nil
}

// administrators reports whether an active administrator exists who can sign in.
func (w WaysIn) administrators(ctx context.Context, db database.Querier) (bool, error) {
	var exist bool
	if err := db.QueryRow(ctx, administratorsEnter, w.args("")).Scan(&exist); err != nil {
		return false, fmt.Errorf("look for an administrator: %w", err)
	}
	return exist, nil
}
