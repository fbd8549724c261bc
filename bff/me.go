package bff

import (
	"context"

	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
)

// accountService is what people do with their own account. It is a type of its
// own for the sake of method names that the administrators' service has too.
type accountService struct{ *Service }

// GetMe implements bffv1.AccountServiceHandler.
func (s accountService) GetMe(ctx context.Context, _ *bffv1.GetMeRequest) (*bffv1.GetMeResponse, error) {
	id := caller(ctx).userID
	c := compose(ctx, s.logger)
	// An account's security tells how many sessions there are.
	account := required(c, readLimit, keptPart(s.Service, "account", id, []string{"account", "sessions"}, s.account(id)))
	profile := required(c, readLimit, keptPart(s.Service, "profile", id, []string{"profile"}, s.profileAfter(id)))
	sessions := optional(c, "sessions", readLimit, keptPart(s.Service, "sessions", id, []string{"sessions"}, s.liveSessions(id)))
	if err := c.wait(); err != nil {
		return nil, err
	}
	if *profile == nil {
		return nil, errProfilePending
	}
	return &bffv1.GetMeResponse{
		User:     userOf((*account).GetAccount(), *profile),
		Sessions: sessionsOf(ctx, (*sessions).GetSessions()),
		Security: securityOf((*account).GetSecurity()),
		Errors:   c.errors(),
	}, nil
}

func securityOf(facts *authv1.SecurityFacts) *bffv1.Security {
	return &bffv1.Security{
		PasswordChangeTime: facts.GetPasswordChangeTime(), LastSignInTime: facts.GetLastSignInTime(),
		ActiveSessions: facts.GetActiveSessions(),
	}
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

// UpdateMe implements bffv1.AccountServiceHandler.
func (s accountService) UpdateMe(ctx context.Context, req *bffv1.UpdateMeRequest) (*bffv1.UpdateMeResponse, error) {
	user, err := s.updateProfile(ctx, caller(ctx).userID, req.GetUser(), req.GetUpdateMask())
	if err != nil {
		return nil, err
	}
	return &bffv1.UpdateMeResponse{User: user}, nil
}

// Reauthenticate implements bffv1.AccountServiceHandler.
func (s accountService) Reauthenticate(ctx context.Context, req *bffv1.ReauthenticateRequest) (*bffv1.ReauthenticateResponse, error) {
	_, err := fetchPart(ctx, writeLimit, func(ctx context.Context) (*authv1.ReauthenticateResponse, error) {
		return s.sessions.Reauthenticate(ctx, &authv1.ReauthenticateRequest{Password: req.GetPassword(), Origin: s.origin(ctx)})
	})
	if err != nil {
		return nil, err
	}
	return &bffv1.ReauthenticateResponse{}, nil
}

// ChangePassword implements bffv1.AccountServiceHandler.
func (s accountService) ChangePassword(ctx context.Context, req *bffv1.ChangePasswordRequest) (*bffv1.ChangePasswordResponse, error) {
	_, err := fetchPart(ctx, writeLimit, func(ctx context.Context) (*authv1.ChangePasswordResponse, error) {
		return s.accounts.ChangePassword(ctx, &authv1.ChangePasswordRequest{
			CurrentPassword: req.GetCurrentPassword(), NewPassword: req.GetNewPassword(), Origin: s.origin(ctx),
		})
	})
	if err != nil {
		return nil, err
	}
	return &bffv1.ChangePasswordResponse{}, nil
}

// ListSessions implements bffv1.AccountServiceHandler.
func (s accountService) ListSessions(ctx context.Context, _ *bffv1.ListSessionsRequest) (*bffv1.ListSessionsResponse, error) {
	response, err := fetchPart(ctx, readLimit, s.liveSessions(caller(ctx).userID))
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
	return &bffv1.RevokeSessionResponse{}, nil
}

func (s *Service) revokeSession(ctx context.Context, user, session string) error {
	_, err := fetchPart(ctx, writeLimit, func(ctx context.Context) (*authv1.RevokeSessionResponse, error) {
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

// DeleteMe implements bffv1.AccountServiceHandler.
func (s accountService) DeleteMe(ctx context.Context, _ *bffv1.DeleteMeRequest) (*bffv1.DeleteMeResponse, error) {
	if err := s.deleteAccount(ctx, caller(ctx).userID); err != nil {
		return nil, err
	}
	return &bffv1.DeleteMeResponse{}, nil
}
