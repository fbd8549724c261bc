package bff

import (
	"context"
	"errors"
	"slices"

	"connectrpc.com/connect/v2"

	"gatehouse/bff/passthrough"
	"gatehouse/internal/identitytoken"
	"gatehouse/internal/upstream"
)

// clientID is the OAuth client whose users sign in at the gateway itself.
const clientID = "gatehouse"

// joinUpstreams makes what passes calls on to upstreams, and logs what they publish.
func (s *Service) joinUpstreams(config Config) (err error) {
	if err := CheckUpstreams(config.Upstreams, config.Backends...); err != nil {
		return err
	}
	if config.Upstreams != nil && config.Identity == nil {
		return identitytoken.ErrNoKey
	}
	s.upstreams, err = passthrough.New(passthrough.Config{
		Set: config.Upstreams, Issuer: config.Identity, Caller: identityOf, Logger: config.Logger, Telemetry: config.Telemetry,
		IdempotencyKey: func(ctx context.Context) string { return idempotencyKey(ctx).GetKey() },
	})
	if err != nil || config.Upstreams == nil {
		return err
	}
	for _, u := range config.Upstreams.Upstreams {
		config.Logger.Info("upstream published", "upstream", u.Name, "methods", len(u.Methods), "not_published", u.Unpublished)
		if u.Lifecycle != "" || u.Person {
			config.Logger.Warn("upstream gets no account events: this version does not deliver them, nor export or erase what it holds", "upstream", u.Name)
		}
	}
	return nil
}

// identityOf is the caller as upstreams get to know it.
func identityOf(ctx context.Context) identitytoken.Caller {
	who := caller(ctx)
	if who == nil {
		return identitytoken.Caller{}
	}
	return identitytoken.Caller{UserID: who.UserID, SessionID: who.SessionID, Roles: who.Roles, ClientID: clientID}
}

// CheckUpstreams reports names and paths of upstreams that are taken. The backends need
// no clients.
func CheckUpstreams(set *upstream.Set, backends ...Backend) error {
	if set == nil {
		return nil
	}
	err := passthrough.CheckRoutes(ownSpecs(backends), set)
	if problems, ok := errors.AsType[upstream.Problems](err); ok && len(problems) == 0 {
		return nil
	}
	return err
}

// ownSpecs describes the methods of the gateway itself and of its extensions.
func ownSpecs(backends []Backend) []connect.Spec {
	server := connect.NewServer()
	s := &Service{auth: &authService{}, account: &accountService{}, user: &userService{}, backends: backends, gateway: &Gateway{}}
	s.register(server)
	return slices.Collect(server.Specs())
}
