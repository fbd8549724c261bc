package auth

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"gatehouse/auth/accounts"
	"gatehouse/auth/audit"
	"gatehouse/auth/rotation"
	"gatehouse/auth/tokens"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/fault"
)

// Only auth can make a refresh token's MAC. A token of a generation that the
// session's row has not reached was issued and then forgotten: the database lost
// its last transactions in an asynchronous failover or a restore. Its holder is
// an honest client (a thief's copy would be caught later, when the other holder
// presents an older token), so the session continues from that generation.

// maxLostGenerations bounds how far ahead of its row a token may be. A client
// refreshes about every 5 minutes, so 100 generations are some 8 hours.
const maxLostGenerations = 100

// canRecover reports whether a token newer than its session's row continues the
// session. Its key must be the row's or a newer one: a thief of an old secret key
// that is still accepted could make tokens of any generation.
func canRecover(keys tokens.RefreshKeys, token tokens.Refresh, found *rotation.Session) bool {
	ahead := int64(token.Generation) - int64(found.Generation)
	if ahead < 1 || ahead > maxLostGenerations {
		return false
	}
	return keys.NotOlder(token, found.TokenKey)
}

// The row may say that the password was given a moment ago, while what the lost
// transactions changed since then is unknown.
const forgetSignIn = `
	UPDATE auth.sessions SET authenticate_time = least(authenticate_time, clock_timestamp() - @recent::interval) WHERE id = @id`

// recover moves a session to the generation after the token's and returns the
// next token. It does not count as a recent sign-in.
func (s *sessionService) recover(ctx context.Context, tx pgx.Tx, token tokens.Refresh, found *rotation.Session, req *authv1.RefreshRequest) (string, error) {
	if _, err := tx.Exec(ctx, forgetSignIn, pgx.NamedArgs{"id": found.ID.String(), "recent": accounts.RecentSignIn}); err != nil {
		return "", fmt.Errorf("forget the sign-in: %w", err)
	}
	found.Generation = token.Generation
	next, err := s.sessions.Rotator.Rotate(ctx, tx, found, req)
	if err != nil {
		return "", err
	}
	return next, audit.Write(ctx, tx, audit.Row{
		Event: audit.RefreshRecover, Outcome: audit.Succeeded, Account: found.Account.GetId(), Session: found.ID.String(), Origin: req.GetOrigin(),
	})
}

// refuseNewer audits that a token newer than its session's row was refused. It
// does not end the session: only a stolen secret key makes such tokens, and it
// would then end anybody's.
func refuseNewer(ctx context.Context, tx pgx.Tx, found *rotation.Session, origin *authv1.Origin) error {
	return audit.Write(ctx, tx, audit.Row{
		Event: audit.Refresh, Outcome: audit.Refused, Reason: fault.Reason(errRefreshInvalid), Account: found.Account.GetId(), Session: found.ID.String(), Origin: origin,
	})
}
