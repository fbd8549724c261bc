package bff

import (
	"context"

	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/compose"
)

// accountService is what people do with their own account. It is a type of its
// own for the sake of method names that the administrators' service has too.
type accountService struct{ *Service }

// GetMe implements bffv1.AccountServiceHandler.
func (s accountService) GetMe(ctx context.Context, _ *bffv1.GetMeRequest) (*bffv1.GetMeResponse, error) {
	id := caller(ctx).userID
	c := compose.New(ctx, fromBackend)
	// An account's security tells how many sessions there are.
	account := compose.Required(c, "account", readLimit, cachedPart(s.cache, "account", id, []string{"account", "sessions"}, s.account(id)))
	profile := compose.Required(c, "profile", readLimit, cachedPart(s.cache, "profile", id, []string{"profile"}, s.profileAfter(id)))
	sessions := compose.Optional(c, "sessions", readLimit, cachedPart(s.cache, "sessions", id, []string{"sessions"}, s.liveSessions(id)))
	if err := c.Wait(); err != nil {
		return nil, err
	}
	if profile.Value() == nil {
		return nil, errProfilePending
	}
	return &bffv1.GetMeResponse{
		User:     userOf(account.Value().GetAccount(), profile.Value()),
		Sessions: sessionsOf(ctx, sessions.Value().GetSessions()),
		Security: securityOf(account.Value().GetSecurity()),
		Errors:   partErrors(ctx, c, s.logger),
	}, nil
}

func securityOf(facts *authv1.SecurityFacts) *bffv1.Security {
	return &bffv1.Security{
		PasswordChangeTime: facts.GetPasswordChangeTime(), LastSignInTime: facts.GetLastSignInTime(),
		ActiveSessions: facts.GetActiveSessions(),
	}
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
	_, err := callService(ctx, writeLimit, func(ctx context.Context) (*authv1.ReauthenticateResponse, error) {
		return s.sessions.Reauthenticate(ctx, &authv1.ReauthenticateRequest{Password: req.GetPassword(), Origin: s.origin(ctx)})
	})
	if err != nil {
		return nil, err
	}
	return &bffv1.ReauthenticateResponse{}, nil
}

// ChangePassword implements bffv1.AccountServiceHandler.
func (s accountService) ChangePassword(ctx context.Context, req *bffv1.ChangePasswordRequest) (*bffv1.ChangePasswordResponse, error) {
	_, err := callService(ctx, writeLimit, func(ctx context.Context) (*authv1.ChangePasswordResponse, error) {
		return s.accounts.ChangePassword(ctx, &authv1.ChangePasswordRequest{
			CurrentPassword: req.GetCurrentPassword(), NewPassword: req.GetNewPassword(), Origin: s.origin(ctx),
		})
	})
	if err != nil {
		return nil, err
	}
	return &bffv1.ChangePasswordResponse{}, nil
}

// DeleteMe implements bffv1.AccountServiceHandler.
func (s accountService) DeleteMe(ctx context.Context, _ *bffv1.DeleteMeRequest) (*bffv1.DeleteMeResponse, error) {
	if err := s.deleteAccount(ctx, caller(ctx).userID); err != nil {
		return nil, err
	}
	s.cookies.clear(ctx)
	return &bffv1.DeleteMeResponse{}, nil
}
