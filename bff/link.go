package bff

import (
	"context"
	"fmt"

	"connectrpc.com/connect/v2"
	"github.com/google/uuid"

	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/rpc"
)

// VerifyEmail implements bffv1.AuthServiceHandler.
func (s *Service) VerifyEmail(ctx context.Context, req *bffv1.VerifyEmailRequest) (*bffv1.VerifyEmailResponse, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("choose an id: %w", err)
	}
	origin := s.origin(ctx)
	if req.GetPassword() == "" {
		if origin.AccountId, origin.SessionId, err = s.holder(ctx); err != nil {
			return nil, err
		}
	}
	key := idempotencyKey(ctx)
	response, err := callService(ctx, writeLimit, func(ctx context.Context) (*authv1.VerifyEmailResponse, error) {
		return s.links.VerifyEmail(repeatable(ctx, key), &authv1.VerifyEmailRequest{
			Token: req.GetToken(), Password: req.GetPassword(), AccountId: id.String(), Origin: origin, IdempotencyKey: key,
			FirstName: req.FirstName, LastName: req.LastName, Locale: req.Locale,
		})
	})
	if err != nil {
		return nil, err
	}
	if response.GetTokens() == nil {
		noStore(ctx)
		s.cache.Invalidate("account/" + response.GetAccount().GetId())
		user, missing := s.withProfile(ctx, response.GetAccount())
		return &bffv1.VerifyEmailResponse{User: user, Errors: missing}, nil
	}
	signedIn, missing := s.signedIn(ctx, response.GetAccount(), response.GetTokens(), response.GetDeviceToken())
	return &bffv1.VerifyEmailResponse{
		User: signedIn.GetUser(), Tokens: signedIn.GetTokens(), DeviceToken: signedIn.GetDeviceToken(), Errors: missing,
	}, nil
}

// holder returns whose session the call carries, of a method that anyone may
// call: empty for a call that carries none, or one that no longer counts.
func (s *Service) holder(ctx context.Context) (account, session string, err error) {
	info, _ := connect.CallInfoForServerContext(ctx)
	who, err := s.credential(ctx, info)
	if err == nil {
		err = s.revoked.check(ctx, who)
	}
	switch {
	case connect.CodeOf(err) == connect.CodeUnauthenticated:
		return "", "", nil
	case err != nil:
		return "", "", err
	}
	rpc.CallFrom(ctx).Principal = "user:" + who.userID
	return who.userID, who.sessionID, nil
}

// RequestPasswordReset implements bffv1.AuthServiceHandler.
func (s *Service) RequestPasswordReset(ctx context.Context, req *bffv1.RequestPasswordResetRequest) (*bffv1.RequestPasswordResetResponse, error) {
	_, err := callService(ctx, writeLimit, func(ctx context.Context) (*authv1.RequestPasswordResetResponse, error) {
		return s.links.RequestPasswordReset(ctx, &authv1.RequestPasswordResetRequest{Email: req.GetEmail(), Origin: s.origin(ctx)})
	})
	if err != nil {
		return nil, err
	}
	return &bffv1.RequestPasswordResetResponse{}, nil
}

// ResetPassword implements bffv1.AuthServiceHandler.
func (s *Service) ResetPassword(ctx context.Context, req *bffv1.ResetPasswordRequest) (*bffv1.ResetPasswordResponse, error) {
	_, err := callService(ctx, writeLimit, func(ctx context.Context) (*authv1.ResetPasswordResponse, error) {
		return s.links.ResetPassword(ctx, &authv1.ResetPasswordRequest{Token: req.GetToken(), NewPassword: req.GetNewPassword(), Origin: s.origin(ctx)})
	})
	if err != nil {
		return nil, err
	}
	return &bffv1.ResetPasswordResponse{}, nil
}

// SendVerificationEmail implements bffv1.AccountServiceHandler.
func (s accountService) SendVerificationEmail(ctx context.Context, _ *bffv1.SendVerificationEmailRequest) (*bffv1.SendVerificationEmailResponse, error) {
	_, err := callService(ctx, writeLimit, func(ctx context.Context) (*authv1.SendVerificationResponse, error) {
		return s.links.SendVerification(ctx, &authv1.SendVerificationRequest{Origin: s.origin(ctx)})
	})
	if err != nil {
		return nil, err
	}
	return &bffv1.SendVerificationEmailResponse{}, nil
}

// RequestEmailChange implements bffv1.AccountServiceHandler.
func (s accountService) RequestEmailChange(ctx context.Context, req *bffv1.RequestEmailChangeRequest) (*bffv1.RequestEmailChangeResponse, error) {
	_, err := callService(ctx, writeLimit, func(ctx context.Context) (*authv1.RequestEmailChangeResponse, error) {
		return s.links.RequestEmailChange(ctx, &authv1.RequestEmailChangeRequest{NewEmail: req.GetNewEmail(), Origin: s.origin(ctx)})
	})
	if err != nil {
		return nil, err
	}
	return &bffv1.RequestEmailChangeResponse{}, nil
}

// ConfirmEmailChange implements bffv1.AccountServiceHandler.
func (s accountService) ConfirmEmailChange(ctx context.Context, req *bffv1.ConfirmEmailChangeRequest) (*bffv1.ConfirmEmailChangeResponse, error) {
	_, err := callService(ctx, writeLimit, func(ctx context.Context) (*authv1.ConfirmEmailChangeResponse, error) {
		return s.links.ConfirmEmailChange(ctx, &authv1.ConfirmEmailChangeRequest{Token: req.GetToken(), Origin: s.origin(ctx)})
	})
	if err != nil {
		return nil, err
	}
	return &bffv1.ConfirmEmailChangeResponse{}, nil
}

// ForcePasswordReset implements bffv1.UserServiceHandler.
func (s *Service) ForcePasswordReset(ctx context.Context, req *bffv1.ForcePasswordResetRequest) (*bffv1.ForcePasswordResetResponse, error) {
	user, missing, err := changed(ctx, s, func(ctx context.Context) (*authv1.ForcePasswordResetResponse, error) {
		return s.accounts.ForcePasswordReset(ctx, &authv1.ForcePasswordResetRequest{AccountId: req.GetUserId(), Origin: s.origin(ctx)})
	})
	if err != nil {
		return nil, err
	}
	return &bffv1.ForcePasswordResetResponse{User: user, Errors: missing}, nil
}
