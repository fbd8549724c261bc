package bff

import (
	"cmp"
	"context"

	"gatehouse/bff/browser"
	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
)

// RequestSignInCode implements bffv1.AuthServiceHandler.
func (s *authService) RequestSignInCode(ctx context.Context, req *bffv1.RequestSignInCodeRequest) (*bffv1.RequestSignInCodeResponse, error) {
	response, err := callService(ctx, writeLimit, func(ctx context.Context) (*authv1.RequestSignInCodeResponse, error) {
		return s.codes.RequestSignInCode(ctx, &authv1.RequestSignInCodeRequest{
			Email: req.GetEmail(), DeviceToken: cmp.Or(req.GetDeviceToken(), browser.CarriedBy(ctx).Device), Origin: s.clientInfo(ctx),
		})
	})
	if err != nil {
		return nil, err
	}
	noStore(ctx)
	return &bffv1.RequestSignInCodeResponse{Challenge: challengeOf(response.GetChallenge())}, nil
}
