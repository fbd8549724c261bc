package bff

import (
	"context"
	"slices"

	"connectrpc.com/connect/v2"

	"gatehouse/bff/passthrough"
	"gatehouse/internal/upstream"
)

// joinUpstreams makes what passes calls on to upstreams.
func (s *Service) joinUpstreams(config Config) (err error) {
	if err := CheckUpstreams(config.Upstreams, config.Backends...); err != nil {
		return err
	}
	s.upstreams, err = passthrough.New(passthrough.Config{
		Set: config.Upstreams, Issuer: config.Identity, Caller: caller, Logger: config.Logger, Telemetry: config.Telemetry,
		IdempotencyKey: func(ctx context.Context) string { return idempotencyKey(ctx).GetKey() },
	})
	return err
}

// CheckUpstreams returns an error for names and paths of upstreams that are in use. The
// backends need no clients.
func CheckUpstreams(set *upstream.Set, backends ...Backend) error {
	if set == nil {
		return nil
	}
	return passthrough.CheckRoutes(ownSpecs(backends), set)
}

// ownSpecs describes the methods of the gateway itself and of its extensions.
func ownSpecs(backends []Backend) []connect.Spec {
	server := connect.NewServer()
	s := &Service{auth: &authService{}, account: &accountService{}, user: &userService{}, backends: backends, gateway: &Gateway{}}
	s.register(server)
	return slices.Collect(server.Specs())
}
