package bff

import (
	"cmp"
	"context"

	"connectrpc.com/connect/v2"

	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/fault"
	"gatehouse/internal/rpc"
)

// Register implements bffv1.AuthServiceHandler.
func (s *Service) Register(ctx context.Context, req *bffv1.RegisterRequest) (*bffv1.RegisterResponse, error) {
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
func (s *Service) Login(ctx context.Context, req *bffv1.LoginRequest) (*bffv1.LoginResponse, error) {
	response, err := callService(ctx, writeLimit, func(ctx context.Context) (*authv1.LoginResponse, error) {
		return s.sessions.Login(ctx, &authv1.LoginRequest{
			Email: req.GetEmail(), Password: req.GetPassword(), DeviceToken: cmp.Or(req.GetDeviceToken(), borneBy(ctx).device), Origin: s.origin(ctx),
		})
	})
	if err != nil {
		return nil, err
	}
	signedIn, missing := s.signedIn(ctx, response.GetAccount(), response.GetTokens(), response.GetDeviceToken())
	return &bffv1.LoginResponse{Result: &bffv1.LoginResponse_SignedIn{SignedIn: signedIn}, Errors: missing}, nil
}

func (s *Service) signedIn(ctx context.Context, account *authv1.Account, tokens *authv1.Tokens, deviceToken string) (*bffv1.SignedIn, []*bffv1.PartError) {
	noStore(ctx)
	rpc.CallFrom(ctx).Principal = "user:" + account.GetId()
	user, missing := s.withProfile(ctx, account)
	public, device := s.cookies.handOver(ctx, tokens, deviceToken)
	return &bffv1.SignedIn{User: user, Tokens: public, DeviceToken: device}, missing
}

// Refresh implements bffv1.AuthServiceHandler.
func (s *Service) Refresh(ctx context.Context, req *bffv1.RefreshRequest) (*bffv1.RefreshResponse, error) {
	tokens := borneBy(ctx).refreshTokens()
	if given := req.GetRefreshToken(); given != "" {
		tokens = []string{given}
	}
	if len(tokens) == 0 {
		return nil, errRefreshTokenMissing
	}
	response, err := firstGood(tokens, func(token string) (*authv1.RefreshResponse, error) {
		return callService(ctx, writeLimit, func(ctx context.Context) (*authv1.RefreshResponse, error) {
			return s.sessions.Refresh(ctx, &authv1.RefreshRequest{RefreshToken: token, IdempotencyKey: idempotencyKey(ctx).GetKey(), Origin: s.origin(ctx)})
		})
	})
	if err != nil {
		return nil, err
	}
	noStore(ctx)
	public, _ := s.cookies.handOver(ctx, response.GetTokens(), "")
	return &bffv1.RefreshResponse{Tokens: public}, nil
}

// Logout implements bffv1.AuthServiceHandler.
func (s *Service) Logout(ctx context.Context, req *bffv1.LogoutRequest) (*bffv1.LogoutResponse, error) {
	s.cookies.clear(ctx) // even where the session can't be ended: the page itself can't
	var err error
	if token := req.GetRefreshToken(); token != "" {
		err = s.logout(ctx, token)
	} else if held := borneBy(ctx); held.keepsSession {
		err = s.logoutByCookies(ctx, held)
	} else {
		err = errRefreshTokenMissing
	}
	if err != nil {
		return nil, err
	}
	return &bffv1.LogoutResponse{}, nil
}

var errRefreshTokenMissing = fault.Invalid(fault.ReasonInvalid, "refresh_token", "give the refresh token, unless the session is in cookies")

// noStore keeps an answer out of every cache: one with tokens (RFC 6749, section
// 5.1), or one that lacks a part.
func noStore(ctx context.Context) {
	if info, ok := connect.CallInfoForServerContext(ctx); ok {
		info.ResponseHeader().Set("Cache-Control", "no-store")
	}
}

func tokensOf(tokens *authv1.Tokens) *bffv1.Tokens {
	return &bffv1.Tokens{
		AccessToken: tokens.GetAccessToken(), RefreshToken: tokens.GetRefreshToken(), TokenType: "Bearer",
		ExpiresIn: tokens.GetExpiresIn(), RefreshExpiresIn: tokens.GetRefreshExpiresIn(),
	}
}
