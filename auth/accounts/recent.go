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

// recentSignIn is how long ago the password may have been given for what needs
// a recent sign-in.
const RecentSignIn = 5 * time.Minute

var ErrReauthenticate = fault.New(connect.CodeFailedPrecondition, "REAUTHENTICATION_REQUIRED", "Give your password again (Reauthenticate), then repeat this within five minutes.")

const recentlyGiven = `
	SELECT EXISTS (SELECT FROM auth.sessions
		WHERE id = @id AND account_id = @account_id AND revoke_time IS NULL AND epoch >= ` + deployment.CurrentEpoch + ` AND authenticate_time > now() - @within::interval)`

// requireRecentSignIn refuses unless the session that asks has given its
// password lately. Errors: failed_precondition REAUTHENTICATION_REQUIRED.
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

// requireIfAsked refuses as requireRecentSignIn does where the gateway's policy
// for the method asks for a recent sign-in.
func RequireIfAsked(ctx context.Context, db database.Querier, origin *authv1.Origin) error {
	if !origin.GetRequireRecentSignIn() {
		return nil
	}
	return RequireRecentSignIn(ctx, db, origin)
}
