package bff

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"gatehouse/bff/browser"
	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/accesstoken"
	"gatehouse/internal/fault"
	"gatehouse/internal/rpc"

	"connectrpc.com/connect/v2"
	"github.com/google/uuid"
)

// authService implements bffv1.AuthServiceHandler: the methods that need no signed-in
// caller.
type authService struct {
	*directory
	identity *identity
	cookies  *browser.Cookies
	cache    *partCache
}

// Register implements bffv1.AuthServiceHandler.
func (s *authService) Register(ctx context.Context, req *bffv1.RegisterRequest) (*bffv1.RegisterResponse, error) {
	created, err := s.createAccount(ctx, &authv1.CreateAccountRequest{
		Email: req.GetEmail(), Password: req.GetPassword(), SignIn: true,
		Profile: &authv1.ProfileSeed{FirstName: req.GetFirstName(), LastName: req.GetLastName()},
	})
	if err != nil {
		return nil, err
	}
	if created.GetVerificationSent() {
		return &bffv1.RegisterResponse{Result: &bffv1.RegisterResponse_VerificationSent{VerificationSent: &bffv1.VerificationSent{}}}, nil
	}
	signedIn, missing := s.signedIn(ctx, created.GetAccount(), created.GetTokens(), created.GetDeviceToken())
	return &bffv1.RegisterResponse{Result: &bffv1.RegisterResponse_SignedIn{SignedIn: signedIn}, Errors: missing}, nil
}

// Login implements bffv1.AuthServiceHandler.
func (s *authService) Login(ctx context.Context, req *bffv1.LoginRequest) (*bffv1.LoginResponse, error) {
	response, err := callService(ctx, writeLimit, func(ctx context.Context) (*authv1.LoginResponse, error) {
		return s.sessions.Login(ctx, &authv1.LoginRequest{
			Email: req.GetEmail(), Password: req.GetPassword(), DeviceToken: cmp.Or(req.GetDeviceToken(), browser.CarriedBy(ctx).Device), Origin: s.clientInfo(ctx),
			AcceptsChallenge: true,
		})
	})
	if err != nil {
		return nil, err
	}
	if owed := response.GetChallenge(); owed != nil {
		noStore(ctx)
		return &bffv1.LoginResponse{Result: &bffv1.LoginResponse_Challenge{Challenge: challengeOf(owed)}}, nil
	}
	signedIn, missing := s.signedIn(ctx, response.GetAccount(), response.GetTokens(), response.GetDeviceToken())
	return &bffv1.LoginResponse{Result: &bffv1.LoginResponse_SignedIn{SignedIn: signedIn}, Errors: missing}, nil
}

// Refresh implements bffv1.AuthServiceHandler.
func (s *authService) Refresh(ctx context.Context, req *bffv1.RefreshRequest) (*bffv1.RefreshResponse, error) {
	tokens := browser.CarriedBy(ctx).RefreshTokens()
	if given := req.GetRefreshToken(); given != "" {
		tokens = []string{given}
	}
	if len(tokens) == 0 {
		return nil, errRefreshTokenMissing
	}
	response, err := browser.FirstGood(tokens, func(token string) (*authv1.RefreshResponse, error) {
		return callService(ctx, writeLimit, func(ctx context.Context) (*authv1.RefreshResponse, error) {
			return s.sessions.Refresh(ctx, &authv1.RefreshRequest{RefreshToken: token, IdempotencyKey: idempotencyKey(ctx).GetKey(), Origin: s.clientInfo(ctx)})
		})
	})
	if err != nil {
		return nil, err
	}
	noStore(ctx)
	public, _ := s.handOver(ctx, response.GetTokens(), "")
	return &bffv1.RefreshResponse{Tokens: public}, nil
}

// Logout implements bffv1.AuthServiceHandler.
func (s *authService) Logout(ctx context.Context, req *bffv1.LogoutRequest) (*bffv1.LogoutResponse, error) {
	s.cookies.Clear(ctx) // even if ending the session fails: a script cannot delete them
	var err error
	if token := req.GetRefreshToken(); token != "" {
		err = s.logout(ctx, token)
	} else if held := browser.CarriedBy(ctx); held.KeepsSession {
		err = s.logoutByCookies(ctx, held)
	} else {
		err = errRefreshTokenMissing
	}
	if err != nil {
		return nil, err
	}
	return &bffv1.LogoutResponse{}, nil
}

// VerifyEmail implements bffv1.AuthServiceHandler.
func (s *authService) VerifyEmail(ctx context.Context, req *bffv1.VerifyEmailRequest) (*bffv1.VerifyEmailResponse, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("choose an id: %w", err)
	}
	origin := s.clientInfo(ctx)
	if req.GetPassword() == "" {
		if origin.AccountId, origin.SessionId, err = s.holder(ctx); err != nil {
			return nil, err
		}
	}
	key := idempotencyKey(ctx)
	response, err := callService(ctx, writeLimit, func(ctx context.Context) (*authv1.VerifyEmailResponse, error) {
		return s.links.VerifyEmail(repeatable(ctx, key), &authv1.VerifyEmailRequest{
			Token: req.GetToken(), Password: req.GetPassword(), AccountId: id.String(), Origin: origin, IdempotencyKey: key,
			FirstName: req.FirstName, LastName: req.LastName, Locale: req.Locale, AcceptsChallenge: true,
		})
	})
	if err != nil {
		return nil, err
	}
	if response.GetTokens() == nil {
		noStore(ctx)
		s.cache.InvalidateWritten("account/" + response.GetAccount().GetId())
		user, missing := s.withProfile(ctx, response.GetAccount())
		return &bffv1.VerifyEmailResponse{User: user, Errors: missing, Challenge: challengeOf(response.GetChallenge())}, nil
	}
	signedIn, missing := s.signedIn(ctx, response.GetAccount(), response.GetTokens(), response.GetDeviceToken())
	return &bffv1.VerifyEmailResponse{
		User: signedIn.GetUser(), Tokens: signedIn.GetTokens(), DeviceToken: signedIn.GetDeviceToken(), Errors: missing,
	}, nil
}

// RequestPasswordReset implements bffv1.AuthServiceHandler.
func (s *authService) RequestPasswordReset(ctx context.Context, req *bffv1.RequestPasswordResetRequest) (*bffv1.RequestPasswordResetResponse, error) {
	_, err := callService(ctx, writeLimit, func(ctx context.Context) (*authv1.RequestPasswordResetResponse, error) {
		return s.links.RequestPasswordReset(ctx, &authv1.RequestPasswordResetRequest{Email: req.GetEmail(), Origin: s.clientInfo(ctx)})
	})
	if err != nil {
		return nil, err
	}
	return &bffv1.RequestPasswordResetResponse{}, nil
}

// ResetPassword implements bffv1.AuthServiceHandler.
func (s *authService) ResetPassword(ctx context.Context, req *bffv1.ResetPasswordRequest) (*bffv1.ResetPasswordResponse, error) {
	_, err := callService(ctx, writeLimit, func(ctx context.Context) (*authv1.ResetPasswordResponse, error) {
		return s.links.ResetPassword(ctx, &authv1.ResetPasswordRequest{Token: req.GetToken(), NewPassword: req.GetNewPassword(), Origin: s.clientInfo(ctx)})
	})
	if err != nil {
		return nil, err
	}
	return &bffv1.ResetPasswordResponse{}, nil
}

func (s *authService) signedIn(ctx context.Context, account *authv1.Account, tokens *authv1.Tokens, deviceToken string) (*bffv1.SignedIn, []*bffv1.PartError) {
	noStore(ctx)
	rpc.CallFrom(ctx).Principal = "user:" + account.GetId()
	s.cache.InvalidateWritten("account/"+account.GetId(), "sessions/"+account.GetId())
	user, missing := s.withProfile(ctx, account)
	public, device := s.handOver(ctx, tokens, deviceToken)
	return &bffv1.SignedIn{User: user, Tokens: public, DeviceToken: device}, missing
}

// handOver returns the tokens for the message, or none if it has set them as cookies.
func (s *authService) handOver(ctx context.Context, tokens *authv1.Tokens, device string) (*bffv1.Tokens, string) {
	public := tokensOf(tokens)
	if s.cookies.HandOver(ctx, tokens, device) {
		public.AccessToken, public.RefreshToken, device = "", "", ""
	}
	return public, device
}

var errRefreshTokenMissing = fault.Invalid(fault.ReasonInvalid, "refresh_token", "send the refresh token, or the cookies of the session")

// errSessionNotEnded reports that the cookies are deleted and that the session may still
// be valid.
var errSessionNotEnded = fault.WithRetry(fault.New(connect.CodeUnavailable, "SESSION_NOT_ENDED",
	"This browser is signed out, but its session could not be ended. Sign in again in a moment and end it in the list of sessions."), time.Second)

func (s *authService) logout(ctx context.Context, refreshToken string) error {
	_, err := callService(ctx, writeLimit, func(ctx context.Context) (*authv1.LogoutResponse, error) {
		return s.sessions.Logout(ctx, &authv1.LogoutRequest{RefreshToken: refreshToken, Origin: s.clientInfo(ctx)})
	})
	return err
}

// logoutByCookies ends the session in the cookies: by its refresh token, or by its access
// token if auth rejects the refresh token. It succeeds if the cookies belong to no
// session. Errors: unavailable SESSION_NOT_ENDED.
func (s *authService) logoutByCookies(ctx context.Context, held browser.Carried) error {
	ended := false
	for _, token := range held.RefreshTokens() {
		err := s.logout(ctx, token)
		if err != nil && !isNoSession(err) {
			return errSessionNotEnded.WithCause(err)
		}
		ended = ended || err == nil
	}
	if ended {
		return nil
	}
	for _, token := range held.AccessTokens() {
		if err := s.logoutByAccess(ctx, token); err != nil && !isNoSession(err) {
			return errSessionNotEnded.WithCause(err)
		}
	}
	return nil
}

// logoutByAccess ends the session of an access token.
func (s *authService) logoutByAccess(ctx context.Context, accessToken string) error {
	who, err := s.identity.identify(ctx, accessToken)
	if errors.Is(err, accesstoken.ErrUnknownKey) && !s.identity.revoked.Fresh() {
		err = fault.Unavailable().WithCause(err) // auth may have published the key since the stream was lost
	}
	if err != nil {
		return err
	}
	return s.revokeSession(ctx, who.UserID, who.SessionID)
}

// isNoSession reports whether an error says that there is no session to end.
func isNoSession(err error) bool {
	switch connect.CodeOf(err) {
	case connect.CodeUnauthenticated, connect.CodeInvalidArgument, connect.CodeNotFound:
		return true
	}
	return false
}

// holder returns the account and the session of the caller of a method that anyone may
// call. Both are empty if the call carries no valid session.
func (s *authService) holder(ctx context.Context) (account, session string, err error) {
	info, _ := connect.CallInfoForServerContext(ctx)
	who, err := s.identity.credential(ctx, info)
	if err == nil {
		err = s.identity.revoked.Check(ctx, who)
	}
	switch {
	case connect.CodeOf(err) == connect.CodeUnauthenticated:
		return "", "", nil
	case err != nil:
		return "", "", err
	}
	rpc.CallFrom(ctx).Principal = "user:" + who.UserID
	return who.UserID, who.SessionID, nil
}
