package bff

import (
	"context"

	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
)

// GetErasure implements bffv1.UserServiceHandler.
func (s *userService) GetErasure(ctx context.Context, req *bffv1.GetErasureRequest) (*bffv1.GetErasureResponse, error) {
	erasure, err := callService(ctx, readLimit, func(ctx context.Context) (*authv1.GetErasureResponse, error) {
		return s.accountFeed.GetErasure(ctx, &authv1.GetErasureRequest{AccountId: req.GetUserId()})
	})
	if err != nil {
		return nil, err
	}
	response := &bffv1.GetErasureResponse{DeleteTime: erasure.GetDeleteTime(), Complete: true}
	for _, service := range erasure.GetServices() {
		response.Services = append(response.Services, &bffv1.Erasure{Service: service.GetService(), Confirmed: service.GetConfirmed()})
		response.Complete = response.GetComplete() && service.GetConfirmed()
	}
	return response, nil
}
