package deployment

import (
	"context"

	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/database"
)

// Service implements authv1.DeploymentServiceHandler.
type Service struct {
	DB *database.Pool
}

// ListSettingNames returns the recorded names of settings.
func (s *Service) ListSettingNames(ctx context.Context, _ *authv1.ListSettingNamesRequest) (*authv1.ListSettingNamesResponse, error) {
	names, err := database.SettingNames(ctx, s.DB, "auth")
	if err != nil {
		return nil, err
	}
	return &authv1.ListSettingNamesResponse{Names: names}, nil
}
