package auth

import (
	"context"

	"connectrpc.com/connect/v2"

	authv1 "gatehouse/gen/auth/v1"
)

// ExportAccount implements authv1.AccountServiceHandler.
func (s *Service) ExportAccount(ctx context.Context, req *authv1.ExportAccountRequest) (*authv1.ExportAccountResponse, error) {
	return nil, connect.NewError(connect.CodeUnimplemented, "")
}
