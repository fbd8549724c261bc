package bff

import (
	"context"

	bffv1 "gatehouse/gen/bff/v1"
	usersv1 "gatehouse/gen/users/v1"
)

// CountUsers implements bffv1.UserServiceHandler.
func (s *userService) CountUsers(ctx context.Context, _ *bffv1.CountUsersRequest) (*bffv1.CountUsersResponse, error) {
	counted, err := callService(ctx, readLimit, func(ctx context.Context) (*usersv1.CountProfilesResponse, error) {
		return s.profiles.CountProfiles(ctx, &usersv1.CountProfilesRequest{})
	})
	if err != nil {
		return nil, err
	}
	return &bffv1.CountUsersResponse{All: countOf(counted.GetAll()), Disabled: countOf(counted.GetDisabled())}, nil
}

func countOf(count *usersv1.Count) *bffv1.Count {
	return &bffv1.Count{Value: count.GetValue(), Precision: bffv1.CountPrecision(count.GetPrecision())}
}

// WatchTraces implements bffv1.UserServiceHandler.
func (s *userService) WatchTraces(ctx context.Context, _ *bffv1.WatchTracesRequest, stream bffv1.UserServiceWatchTracesServerStream) error {
	return s.traces.Watch(ctx, caller(ctx), stream)
}
