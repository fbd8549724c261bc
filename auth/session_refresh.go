package auth

import (
	"context"
	"fmt"

	"connectrpc.com/connect/v2"
	"github.com/jackc/pgx/v5"

	"gatehouse/auth/audit"
	"gatehouse/auth/changes"
	"gatehouse/auth/revocations"
	"gatehouse/auth/rotation"
	"gatehouse/auth/tokens"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/accesstoken"
	"gatehouse/internal/fault"
)

var (
	errRefreshInvalid = fault.New(connect.CodeUnauthenticated, "REFRESH_TOKEN_INVALID", "This is not a refresh token of ours. Sign in.")
	errRefreshReused  = fault.New(connect.CodeUnauthenticated, "REFRESH_TOKEN_REUSED", "This refresh token was used before, so its session has been ended for safety. Sign in again.")
	errSessionEnded   = accesstoken.ErrSessionEnded
)

// Refresh implements authv1.SessionServiceHandler.
//
// Refreshes are the most frequent writes of auth. The usual one, with the current token from
// the known address, is one statement. After that, one round trip decides whether
// the caller has moved or the refresh is repeated. Everything else is decided again
// in a transaction that holds the session's lock.
func (s *sessionService) Refresh(ctx context.Context, req *authv1.RefreshRequest) (*authv1.RefreshResponse, error) {
	token, ok := s.sessions.RefreshKeys.Verify(req.GetRefreshToken())
	if !ok {
		return nil, errRefreshInvalid
	}
	// The account isn't locked, so its roles may change before the token is signed.
	// With this time, the token expires before its revocation is pruned.
	at := s.sessions.Keys.Now()
	found, next, err := s.refresh(ctx, token, req)
	if err != nil {
		return nil, err
	}
	tokens, err := s.sessions.TokensAt(at, found.Account, found.ID, found.SignIn, next, found.ExpiresIn)
	if err != nil {
		return nil, err
	}
	return &authv1.RefreshResponse{Tokens: tokens}, nil
}

// refresh returns the session and its refresh token after the call.
func (s *sessionService) refresh(ctx context.Context, token tokens.Refresh, req *authv1.RefreshRequest) (*rotation.Session, string, error) {
	found, next, err := s.sessions.Rotator.Current(ctx, token, req)
	if err == nil && found == nil {
		found, next, err = s.sessions.Rotator.Moved(ctx, token, req)
	}
	switch {
	case err != nil:
		return nil, "", fmt.Errorf("refresh: %w", err)
	case next != "":
		return found, next, nil
	case found != nil && !found.Ended && found.MayRepeat(token, req.GetIdempotencyKey()):
		if again, ok := s.sessions.Rotator.Reissue(found); ok {
			return found, again, nil
		}
	}
	return s.refreshLocked(ctx, token, req)
}

// refreshLocked refreshes in a transaction that locks the session first.
func (s *sessionService) refreshLocked(ctx context.Context, token tokens.Refresh, req *authv1.RefreshRequest) (found *rotation.Session, next string, err error) {
	var refusal error // whose transaction is committed, unlike an error's
	err = s.db.Transact(ctx, func(tx pgx.Tx) (err error) {
		next, refusal = "", nil
		found, err = rotation.Locked(ctx, tx, token.Session, req)
		if err != nil {
			return err
		}
		switch {
		case found == nil, found.Ended:
			refusal = errSessionEnded
			return s.auditEnded(ctx, tx, token, found, req.GetOrigin())
		case found.IsCurrent(token, req.GetRefreshToken()):
			next, err = s.sessions.Rotator.Rotate(ctx, tx, found, req)
			return err
		case found.MayRepeat(token, req.GetIdempotencyKey()):
			var ok bool
			if next, ok = s.sessions.Rotator.Reissue(found); !ok {
				refusal = errSessionEnded // its key has been retired
			}
			return nil
		case token.Generation > found.Generation && canRecover(s.sessions.RefreshKeys, token, found):
			next, err = s.recover(ctx, tx, token, found, req)
			return err
		case token.Generation > found.Generation:
			refusal = errRefreshInvalid
			return refuseNewer(ctx, tx, found, req.GetOrigin())
		}
		refusal = errRefreshReused
		return revokeReused(ctx, tx, found, req.GetOrigin())
	})
	if err != nil {
		return nil, "", fmt.Errorf("refresh: %w", err)
	}
	if refusal != nil {
		s.revocations.Soon() // a reuse revokes the session
		return nil, "", refusal
	}
	return found, next, nil
}

// revokeReused ends the session of a reused token.
func revokeReused(ctx context.Context, tx pgx.Tx, found *rotation.Session, origin *authv1.Origin) error {
	if err := revocations.RevokeSession(ctx, tx, found.ID, "reuse"); err != nil {
		return err
	}
	if err := changes.NoteSessions(ctx, tx, found.Account.GetId()); err != nil {
		return err
	}
	return audit.Write(ctx, tx, audit.Row{Event: audit.RefreshReuse, Outcome: audit.Refused, Reason: fault.Reason(errRefreshReused), Account: found.Account.GetId(), Session: found.ID.String(), Origin: origin})
}

// auditEnded audits a token of a session that has ended. If its account was
// deleted, found is nil and only the session's id is known.
func (s *sessionService) auditEnded(ctx context.Context, tx pgx.Tx, token tokens.Refresh, found *rotation.Session, origin *authv1.Origin) error {
	row := audit.Row{Event: audit.Refresh, Outcome: audit.Refused, Reason: fault.Reason(errSessionEnded), Session: token.Session.String(), Origin: origin}
	if found != nil {
		row.Account = found.Account.GetId()
	}
	return s.log.WriteRefusal(ctx, tx, row)
}
