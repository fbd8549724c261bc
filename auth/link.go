package auth

import (
	"context"

	"connectrpc.com/connect/v2"

	authv1 "gatehouse/gen/auth/v1"
)

// VerifyEmail implements authv1.LinkServiceHandler.
func (s *Service) VerifyEmail(ctx context.Context, req *authv1.VerifyEmailRequest) (*authv1.VerifyEmailResponse, error) {
	return nil, connect.NewError(connect.CodeUnimplemented, "")
}

// SendVerification implements authv1.LinkServiceHandler.
func (s *Service) SendVerification(ctx context.Context, req *authv1.SendVerificationRequest) (*authv1.SendVerificationResponse, error) {
	return nil, connect.NewError(connect.CodeUnimplemented, "")
}

// RequestPasswordReset implements authv1.LinkServiceHandler.
func (s *Service) RequestPasswordReset(ctx context.Context, req *authv1.RequestPasswordResetRequest) (*authv1.RequestPasswordResetResponse, error) {
	return nil, connect.NewError(connect.CodeUnimplemented, "")
}

// ResetPassword implements authv1.LinkServiceHandler.
func (s *Service) ResetPassword(ctx context.Context, req *authv1.ResetPasswordRequest) (*authv1.ResetPasswordResponse, error) {
	return nil, connect.NewError(connect.CodeUnimplemented, "")
}

// RequestEmailChange implements authv1.LinkServiceHandler.
func (s *Service) RequestEmailChange(ctx context.Context, req *authv1.RequestEmailChangeRequest) (*authv1.RequestEmailChangeResponse, error) {
	return nil, connect.NewError(connect.CodeUnimplemented, "")
}

// ConfirmEmailChange implements authv1.LinkServiceHandler.
func (s *Service) ConfirmEmailChange(ctx context.Context, req *authv1.ConfirmEmailChangeRequest) (*authv1.ConfirmEmailChangeResponse, error) {
	return nil, connect.NewError(connect.CodeUnimplemented, "")
}

// ForcePasswordReset implements authv1.AccountServiceHandler.
func (s *Service) ForcePasswordReset(ctx context.Context, req *authv1.ForcePasswordResetRequest) (*authv1.ForcePasswordResetResponse, error) {
	return nil, connect.NewError(connect.CodeUnimplemented, "")
}

// addressed settles, just before a mail is sent, what could not be settled while
// somebody waited for an answer, whose time would have told: whether the email
// has an account, and so which mail it gets. It returns false when none is to be
// sent.
func (s *Service) addressed(ctx context.Context, m mail) (mail, bool, error) {
	return m, true, nil
}
