package accounts

import (
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/jackc/pgx/v5"

	"gatehouse/auth/deployment"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/database"
	"gatehouse/internal/fault"
)

// RecentSignIn is the maximum age of a recent sign-in.
const RecentSignIn = 5 * time.Minute

var ErrReauthenticate = fault.New(connect.CodeFailedPrecondition, "REAUTHENTICATION_REQUIRED", "Give your password again (Reauthenticate), then repeat this within five minutes.")

const recentlyGiven = `
	SELECT EXISTS (SELECT FROM auth.sessions
		WHERE id = @id AND account_id = @account_id AND revoke_time IS NULL AND epoch >= ` + deployment.CurrentEpoch + ` AND authenticate_time > now() - @within::interval)`

// RequireRecentSignIn refuses unless the calling session confirmed its password
// within RecentSignIn. Errors: failed_precondition REAUTHENTICATION_REQUIRED.
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

// RequireIfAsked calls RequireRecentSignIn where the gateway's policy
// for the method requires a recent sign-in.
func RequireIfAsked(ctx context.Context, db database.Querier, origin *authv1.Origin) error {
	if !origin.GetRequireRecentSignIn() {
		return nil
	}
	return RequireRecentSignIn(ctx, db, origin)
}
