package bff

import (
	"context"
	"errors"
	"time"

	"connectrpc.com/connect/v2"

	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/accesstoken"
	"gatehouse/internal/fault"
)

// errSessionNotEnded is for a session that may go on without its cookies.
var errSessionNotEnded = fault.WithRetry(fault.New(connect.CodeUnavailable, "SESSION_NOT_ENDED",
	"This browser is signed out, but its session could not be ended. Sign in again in a moment and end it in the list of sessions."), time.Second)

func (s *Service) logout(ctx context.Context, refreshToken string) error {
	_, err := callService(ctx, writeLimit, func(ctx context.Context) (*authv1.LogoutResponse, error) {
		return s.sessions.Logout(ctx, &authv1.LogoutRequest{RefreshToken: refreshToken, Origin: s.origin(ctx)})
	})
	return err
}

// logoutByCookies ends the session that the cookies are of: by the refresh
// token, or where that is no good, by the access token. Cookies that are of no
// session leave nothing to end, which is a success. Errors: unavailable
// SESSION_NOT_ENDED.
func (s *Service) logoutByCookies(ctx context.Context, held borne) error {
	ended := false
	for _, token := range held.refreshTokens() {
		err := s.logout(ctx, token)
		if err != nil && !isNoSession(err) {
			return errSessionNotEnded.WithCause(err)
		}
		ended = ended || err == nil
	}
	if ended {
		return nil
	}
	for _, token := range held.accessTokens() {
		if err := s.logoutByAccess(ctx, token); err != nil && !isNoSession(err) {
			return errSessionNotEnded.WithCause(err)
		}
	}
	return nil
}

// logoutByAccess ends the session of an access token.
func (s *Service) logoutByAccess(ctx context.Context, accessToken string) error {
	who, err := s.identify(ctx, accessToken)
	if errors.Is(err, accesstoken.ErrUnknownKey) && !s.revoked.fresh() {
		err = fault.Unavailable().WithCause(err) // the key may have come since we were cut off
	}
	if err != nil {
		return err
	}
	return s.revokeSession(ctx, who.userID, who.sessionID)
}

// isNoSession reports whether an error says that there is no session to end.
func isNoSession(err error) bool {
	switch connect.CodeOf(err) {
	case connect.CodeUnauthenticated, connect.CodeInvalidArgument, connect.CodeNotFound:
		return true
	}
	return false
}
