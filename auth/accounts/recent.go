package accounts

import (
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/jackc/pgx/v5"

	"gatehouse/auth/deployment"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/accesstoken"
	"gatehouse/internal/database"
	"gatehouse/internal/fault"
)

// RecentSignIn is the maximum age of a recent sign-in.
const RecentSignIn = 5 * time.Minute

var (
	ErrReauthenticate = fault.New(connect.CodeFailedPrecondition, "REAUTHENTICATION_REQUIRED", "Give your password again (Reauthenticate), then repeat this within five minutes.")
	// ErrPasskeyAgain refuses what needs a recent sign-in by passkey.
	ErrPasskeyAgain = fault.New(connect.CodeFailedPrecondition, "REAUTHENTICATION_REQUIRED", "Use a passkey again (Reauthenticate without a password, then CompleteReauthentication), then repeat this within five minutes.")
	ErrSecondFactor = accesstoken.ErrSecondFactor
	ErrUnverified   = fault.New(connect.CodeFailedPrecondition, "EMAIL_UNVERIFIED", "Verify your email first (SendVerificationEmail), then repeat this.")
)

// An account that has a second factor signed in recently if it gave both proofs.
const recentlyGiven = `
	SELECT EXISTS (SELECT FROM auth.sessions s JOIN auth.accounts a ON a.id = s.account_id
		WHERE s.id = @id AND s.account_id = @account_id AND s.revoke_time IS NULL AND s.epoch >= ` + deployment.CurrentEpoch + `
			AND s.authenticate_time > now() - @within::interval AND (NOT a.second_factor OR s.second_factor_time > now() - @within::interval))`

// RequireRecentSignIn refuses unless the calling session gave its password within
// RecentSignIn, and the second factor if the account has one. Errors:
// failed_precondition REAUTHENTICATION_REQUIRED.
func RequireRecentSignIn(ctx context.Context, db database.Querier, origin *authv1.Origin) error {
	var recent bool
	err := db.QueryRow(ctx, recentlyGiven, pgx.NamedArgs{
		"id": database.Optional(origin.GetSessionId()), "account_id": database.Optional(origin.GetAccountId()), "within": RecentSignIn,
	}).Scan(&recent)
	if err != nil {
		return fmt.Errorf("look up the sign-in: %w", err)
	}
	if !recent {
		return ErrReauthenticate
	}
	return nil
}

const belowOwnLevel = `
	SELECT EXISTS (SELECT FROM auth.sessions s JOIN auth.accounts a ON a.id = s.account_id
		WHERE s.id = @id AND s.account_id = @account_id AND a.second_factor AND s.level < 2)`

// requireOwnLevel refuses a session of level 1 whose account has a second factor. Errors:
// failed_precondition SECOND_FACTOR_REQUIRED.
func requireOwnLevel(ctx context.Context, db database.Querier, origin *authv1.Origin) error {
	var below bool
	err := db.QueryRow(ctx, belowOwnLevel, pgx.NamedArgs{
		"id": database.Optional(origin.GetSessionId()), "account_id": database.Optional(origin.GetAccountId()),
	}).Scan(&below)
	if err != nil {
		return fmt.Errorf("look up the session's level: %w", err)
	}
	if below {
		return ErrSecondFactor
	}
	return nil
}

// RequireIfAsked requires the account's own level and a recent sign-in where the
// gateway's policy for the method does. Errors: failed_precondition
// SECOND_FACTOR_REQUIRED or REAUTHENTICATION_REQUIRED.
func RequireIfAsked(ctx context.Context, db database.Querier, origin *authv1.Origin) error {
	if origin.GetRequireOwnLevel() {
		if err := requireOwnLevel(ctx, db, origin); err != nil {
			return err
		}
	}
	if !origin.GetRequireRecentSignIn() {
		return nil
	}
	return RequireRecentSignIn(ctx, db, origin)
}
