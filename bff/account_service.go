package bff

import (
	"context"
	"strings"

	"gatehouse/bff/apikeys"
	"gatehouse/bff/browser"
	"gatehouse/bff/watch"
	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
	servicev1 "gatehouse/gen/service/v1"
	"gatehouse/internal/compose"

	"google.golang.org/protobuf/types/known/timestamppb"
)

// accountService implements bffv1.AccountServiceHandler: what people do with their
// own account.
type accountService struct {
	*directory
	*apikeys.Account
	cookies *browser.Cookies
	cache   *partCache
	// withheld returns those of an account's roles that a session of a level lacks.
	withheld func(roles []string, level int) []string
	live     *watch.Hub
	parts    meParts // of GetMe, from services of the application
	// exporters are those of the [Gateway].
	exporters map[string]servicev1.PersonServiceClient
}

// GetMe implements bffv1.AccountServiceHandler.
func (s *accountService) GetMe(ctx context.Context, _ *bffv1.GetMeRequest) (*bffv1.GetMeResponse, error) {
	who := caller(ctx)
	id := who.UserID
	c := compose.New(ctx, fromBackend)
	// The account's security facts include the number of sessions.
	account := compose.Required(c, "account", readLimit, cachedPart(s.cache, "account", id, []string{"account", "sessions"}, s.account(id)))
	profile := compose.Required(c, "profile", readLimit, cachedPart(s.cache, "profile", id, []string{"profile"}, s.profileAfter(id)))
	sessions := compose.Optional(c, "sessions", readLimit, cachedPart(s.cache, "sessions", id, []string{"sessions"}, s.ownSessions(who)))
	fill := s.parts.add(c, s.cache, id)
	if err := c.Wait(); err != nil {
		return nil, err
	}
	if profile.Value() == nil {
		return nil, errProfilePending
	}
	me := &bffv1.GetMeResponse{
		User:     userOf(account.Value().GetAccount(), profile.Value()),
		Sessions: sessionsOf(ctx, sessions.Value().GetSessions()),
		Security: s.ownSecurity(ctx, account.Value().GetAccount(), account.Value().GetSecurity()),
		Errors:   partErrors(ctx, c, s.logger),
	}
	fill(me)
	return me, nil
}

// WatchMe implements bffv1.AccountServiceHandler.
func (s *accountService) WatchMe(ctx context.Context, req *bffv1.WatchMeRequest, stream bffv1.AccountServiceWatchMeServerStream) error {
	return s.live.Me(ctx, caller(ctx), req, stream)
}

// UpdateMe implements bffv1.AccountServiceHandler.
func (s *accountService) UpdateMe(ctx context.Context, req *bffv1.UpdateMeRequest) (*bffv1.UpdateMeResponse, error) {
	user, err := s.updateProfile(ctx, caller(ctx).UserID, req.GetUser(), req.GetUpdateMask())
	if err != nil {
		return nil, err
	}
	return &bffv1.UpdateMeResponse{User: user}, nil
}

// Reauthenticate implements bffv1.AccountServiceHandler.
func (s *accountService) Reauthenticate(ctx context.Context, req *bffv1.ReauthenticateRequest) (*bffv1.ReauthenticateResponse, error) {
	response, err := callService(ctx, writeLimit, func(ctx context.Context) (*authv1.ReauthenticateResponse, error) {
		return s.sessions.Reauthenticate(ctx, &authv1.ReauthenticateRequest{
			Password: req.GetPassword(), Origin: s.clientInfo(ctx), AcceptsChallenge: true,
		})
	})
	if err != nil {
		return nil, err
	}
	return &bffv1.ReauthenticateResponse{Challenge: challengeOf(response.GetChallenge())}, nil
}

// ChangePassword implements bffv1.AccountServiceHandler.
func (s *accountService) ChangePassword(ctx context.Context, req *bffv1.ChangePasswordRequest) (*bffv1.ChangePasswordResponse, error) {
	_, err := callService(ctx, writeLimit, func(ctx context.Context) (*authv1.ChangePasswordResponse, error) {
		return s.accounts.ChangePassword(ctx, &authv1.ChangePasswordRequest{
			CurrentPassword: req.GetCurrentPassword(), NewPassword: req.GetNewPassword(), Origin: s.clientInfo(ctx),
		})
	})
	if err != nil {
		return nil, err
	}
	return &bffv1.ChangePasswordResponse{}, nil
}

// DeleteMe implements bffv1.AccountServiceHandler.
func (s *accountService) DeleteMe(ctx context.Context, _ *bffv1.DeleteMeRequest) (*bffv1.DeleteMeResponse, error) {
	if err := s.deleteAccount(ctx, caller(ctx).UserID); err != nil {
		return nil, err
	}
	s.cookies.Clear(ctx)
	return &bffv1.DeleteMeResponse{}, nil
}

// ListSessions implements bffv1.AccountServiceHandler.
func (s *accountService) ListSessions(ctx context.Context, _ *bffv1.ListSessionsRequest) (*bffv1.ListSessionsResponse, error) {
	response, err := callService(ctx, readLimit, s.ownSessions(caller(ctx)))
	if err != nil {
		return nil, err
	}
	return &bffv1.ListSessionsResponse{Sessions: sessionsOf(ctx, response.GetSessions())}, nil
}

// RevokeSession implements bffv1.AccountServiceHandler.
func (s *accountService) RevokeSession(ctx context.Context, req *bffv1.RevokeSessionRequest) (*bffv1.RevokeSessionResponse, error) {
	if err := s.revokeSession(ctx, caller(ctx).UserID, req.GetSessionId()); err != nil {
		return nil, err
	}
	if strings.EqualFold(req.GetSessionId(), caller(ctx).SessionID) {
		s.cookies.Clear(ctx)
	}
	return &bffv1.RevokeSessionResponse{}, nil
}

// RevokeOtherSessions implements bffv1.AccountServiceHandler.
func (s *accountService) RevokeOtherSessions(ctx context.Context, _ *bffv1.RevokeOtherSessionsRequest) (*bffv1.RevokeOtherSessionsResponse, error) {
	who := caller(ctx)
	revoked, err := s.revokeSessions(ctx, who.UserID, who.SessionID)
	if err != nil {
		return nil, err
	}
	return &bffv1.RevokeOtherSessionsResponse{Revoked: revoked}, nil
}

// RevokeAllSessions implements bffv1.AccountServiceHandler.
func (s *accountService) RevokeAllSessions(ctx context.Context, _ *bffv1.RevokeAllSessionsRequest) (*bffv1.RevokeAllSessionsResponse, error) {
	revoked, err := s.revokeSessions(ctx, caller(ctx).UserID, "")
	if err != nil {
		return nil, err
	}
	s.cookies.Clear(ctx)
	return &bffv1.RevokeAllSessionsResponse{Revoked: revoked}, nil
}

// SendVerificationEmail implements bffv1.AccountServiceHandler.
func (s *accountService) SendVerificationEmail(ctx context.Context, _ *bffv1.SendVerificationEmailRequest) (*bffv1.SendVerificationEmailResponse, error) {
	_, err := callService(ctx, writeLimit, func(ctx context.Context) (*authv1.SendVerificationResponse, error) {
		return s.links.SendVerification(ctx, &authv1.SendVerificationRequest{Origin: s.clientInfo(ctx)})
	})
	if err != nil {
		return nil, err
	}
	return &bffv1.SendVerificationEmailResponse{}, nil
}

// RequestEmailChange implements bffv1.AccountServiceHandler.
func (s *accountService) RequestEmailChange(ctx context.Context, req *bffv1.RequestEmailChangeRequest) (*bffv1.RequestEmailChangeResponse, error) {
	_, err := callService(ctx, writeLimit, func(ctx context.Context) (*authv1.RequestEmailChangeResponse, error) {
		return s.links.RequestEmailChange(ctx, &authv1.RequestEmailChangeRequest{NewEmail: req.GetNewEmail(), Origin: s.clientInfo(ctx)})
	})
	if err != nil {
		return nil, err
	}
	return &bffv1.RequestEmailChangeResponse{}, nil
}

// ConfirmEmailChange implements bffv1.AccountServiceHandler.
func (s *accountService) ConfirmEmailChange(ctx context.Context, req *bffv1.ConfirmEmailChangeRequest) (*bffv1.ConfirmEmailChangeResponse, error) {
	_, err := callService(ctx, writeLimit, func(ctx context.Context) (*authv1.ConfirmEmailChangeResponse, error) {
		return s.links.ConfirmEmailChange(ctx, &authv1.ConfirmEmailChangeRequest{Token: req.GetToken(), Origin: s.clientInfo(ctx)})
	})
	if err != nil {
		return nil, err
	}
	return &bffv1.ConfirmEmailChangeResponse{}, nil
}

// ListMyAuditEvents implements bffv1.AccountServiceHandler. The events include failed
// sign-ins.
func (s *accountService) ListMyAuditEvents(ctx context.Context, req *bffv1.ListMyAuditEventsRequest) (*bffv1.ListMyAuditEventsResponse, error) {
	page, err := s.auditEvents(ctx, &authv1.ListAuditEventsRequest{
		PageSize: req.GetPageSize(), PageToken: req.GetPageToken(), AccountId: caller(ctx).UserID,
	})
	if err != nil {
		return nil, err
	}
	return &bffv1.ListMyAuditEventsResponse{Events: ownEventsOf(caller(ctx).UserID, page.GetEvents()), NextPageToken: page.GetNextPageToken()}, nil
}

// ExportMe implements bffv1.AccountServiceHandler.
func (s *accountService) ExportMe(ctx context.Context, _ *bffv1.ExportMeRequest) (*bffv1.ExportMeResponse, error) {
	id := caller(ctx).UserID
	c := compose.New(ctx, fromBackend)
	account := compose.Required(c, "account", readLimit, func(ctx context.Context) (*authv1.ExportAccountResponse, error) {
		return s.accounts.ExportAccount(ctx, &authv1.ExportAccountRequest{AccountId: id, Origin: s.clientInfo(ctx)})
	})
	profile := compose.Required(c, "profile", readLimit, s.profileAfter(id))
	services := exportFromServices(c, s.exporters, id)
	if err := c.Wait(); err != nil {
		return nil, err
	}
	if profile.Value() == nil {
		return nil, errProfilePending
	}
	noStore(ctx)
	export := account.Value()
	return &bffv1.ExportMeResponse{
		User: userOf(export.GetAccount(), profile.Value()), Security: s.ownSecurity(ctx, export.GetAccount(), export.GetSecurity()),
		Sessions: sessionsOf(ctx, export.GetSessions()), AuditEvents: ownEventsOf(id, export.GetAuditEvents()),
		Mails: mailsOf(export.GetMails()), ExportTime: timestamppb.Now(), Services: services(),
		Identities: identitiesOf(export.GetIdentities()), Keys: apikeys.Public(export.GetKeys()),
		Totp: totpOf(export.GetFactors().GetTotp()), Passkeys: passkeysOf(export.GetFactors().GetPasskeys()), RememberedDevices: devicesOf(export.GetFactors().GetRememberedDevices()),
	}, nil
}
