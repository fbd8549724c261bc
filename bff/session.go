package bff

import (
	"context"
	"strings"

	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
)

// ListSessions implements bffv1.AccountServiceHandler.
func (s accountService) ListSessions(ctx context.Context, _ *bffv1.ListSessionsRequest) (*bffv1.ListSessionsResponse, error) {
	response, err := callService(ctx, readLimit, s.liveSessions(caller(ctx).userID))
	if err != nil {
		return nil, err
	}
	return &bffv1.ListSessionsResponse{Sessions: sessionsOf(ctx, response.GetSessions())}, nil
}

// RevokeSession implements bffv1.AccountServiceHandler.
func (s accountService) RevokeSession(ctx context.Context, req *bffv1.RevokeSessionRequest) (*bffv1.RevokeSessionResponse, error) {
	if err := s.revokeSession(ctx, caller(ctx).userID, req.GetSessionId()); err != nil {
		return nil, err
	}
	if strings.EqualFold(req.GetSessionId(), caller(ctx).sessionID) {
		s.cookies.clear(ctx)
	}
	return &bffv1.RevokeSessionResponse{}, nil
}

func (s *Service) revokeSession(ctx context.Context, user, session string) error {
	_, err := callService(ctx, writeLimit, func(ctx context.Context) (*authv1.RevokeSessionResponse, error) {
		return s.sessions.RevokeSession(ctx, &authv1.RevokeSessionRequest{AccountId: user, SessionId: session, Origin: s.origin(ctx)})
	})
	return err
}

// RevokeOtherSessions implements bffv1.AccountServiceHandler.
func (s accountService) RevokeOtherSessions(ctx context.Context, _ *bffv1.RevokeOtherSessionsRequest) (*bffv1.RevokeOtherSessionsResponse, error) {
	who := caller(ctx)
	revoked, err := s.revokeSessions(ctx, who.userID, who.sessionID)
	if err != nil {
		return nil, err
	}
	return &bffv1.RevokeOtherSessionsResponse{Revoked: revoked}, nil
}

// RevokeAllSessions implements bffv1.AccountServiceHandler.
func (s accountService) RevokeAllSessions(ctx context.Context, _ *bffv1.RevokeAllSessionsRequest) (*bffv1.RevokeAllSessionsResponse, error) {
	revoked, err := s.revokeSessions(ctx, caller(ctx).userID, "")
	if err != nil {
		return nil, err
	}
	s.cookies.clear(ctx)
	return &bffv1.RevokeAllSessionsResponse{Revoked: revoked}, nil
}

// ListUserSessions implements bffv1.UserServiceHandler.
func (s *Service) ListUserSessions(ctx context.Context, req *bffv1.ListUserSessionsRequest) (*bffv1.ListUserSessionsResponse, error) {
	response, err := callService(ctx, readLimit, s.liveSessions(req.GetUserId()))
	if err != nil {
		return nil, err
	}
	return &bffv1.ListUserSessionsResponse{Sessions: sessionsOf(ctx, response.GetSessions())}, nil
}

// RevokeUserSession implements bffv1.UserServiceHandler.
func (s *Service) RevokeUserSession(ctx context.Context, req *bffv1.RevokeUserSessionRequest) (*bffv1.RevokeUserSessionResponse, error) {
	if err := s.revokeSession(ctx, req.GetUserId(), req.GetSessionId()); err != nil {
		return nil, err
	}
	return &bffv1.RevokeUserSessionResponse{}, nil
}

func (s *Service) liveSessions(id string) func(context.Context) (*authv1.ListSessionsResponse, error) {
	return func(ctx context.Context) (*authv1.ListSessionsResponse, error) {
		return s.sessions.ListSessions(ctx, &authv1.ListSessionsRequest{AccountId: id})
	}
}

func sessionsOf(ctx context.Context, sessions []*authv1.Session) []*bffv1.Session {
	public := make([]*bffv1.Session, 0, len(sessions))
	for _, session := range sessions {
		public = append(public, &bffv1.Session{
			Id: session.GetId(), CreateTime: session.GetCreateTime(), LastUsedTime: session.GetLastUsedTime(),
			ExpireTime: session.GetExpireTime(), UserAgent: session.GetUserAgent(), IpAddress: session.GetIpAddress(),
			Current:    session.GetId() == caller(ctx).sessionID,
			RevokeTime: session.GetRevokeTime(), RevokeReason: session.GetRevokeReason(),
		})
	}
	return public
}
