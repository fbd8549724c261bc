package bff

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"connectrpc.com/connect/v2"

	"gatehouse/bff/accountfeed"
	"gatehouse/bff/passthrough"
	"gatehouse/internal/upstream"
)

// joinUpstreams makes what passes calls on to upstreams, exports what they store about
// people, follows their changes, and lets them follow accounts.
func (s *Service) joinUpstreams(config Config) (err error) {
	if err := CheckUpstreams(config.Upstreams, config.Backends...); err != nil {
		return err
	}
	s.upstreams, err = passthrough.New(passthrough.Config{
		Set: config.Upstreams, Issuer: config.Identity, Caller: caller, Logger: config.Logger, Telemetry: config.Telemetry,
		IdempotencyKey: func(ctx context.Context) string { return idempotencyKey(ctx).GetKey() },
	})
	if err != nil {
		return err
	}
	maps.Copy(s.gateway.exporters, s.upstreams.Exporters())
	for _, told := range upstreamFeeds(config.Upstreams, config.Backends) {
		told.Client = s.upstreams.Client(told.Name)
		feed := newChangeFeed(told, s.cache, config.Logger)
		feed.foreign = true
		s.changes = append(s.changes, feed)
	}
	if len(config.Upstreams.Following()) > 0 {
		s.accountFeed, err = newAccountFeed(s, config)
	}
	return err
}

func newAccountFeed(s *Service, config Config) (*accountfeed.Feed, error) {
	return accountfeed.New(accountfeed.Config{
		Set: config.Upstreams, Feed: s.gateway.directory.accountFeed, Limit: s.rates.limitAddress, Rate: s.rates.limitRate, ClientIP: s.proxies.addressOf,
		PublicError: fromBackend, Logger: config.Logger, Telemetry: config.Telemetry,
	})
}

// describeAccountFeed returns the feed for the policies of its methods.
func describeAccountFeed(set *upstream.Set) (*accountfeed.Feed, error) {
	return accountfeed.New(accountfeed.Config{Set: set, Logger: slog.New(slog.DiscardHandler)})
}

// upstreamFeeds returns the upstreams that announce changes, without clients, with the
// kinds of their cache tags that no service of this system announces.
func upstreamFeeds(set *upstream.Set, backends []Backend) []Backend {
	if set == nil {
		return nil
	}
	own, _ := feedOwnersOf(backends) // checked where the backends are
	var feeds []Backend
	for _, u := range set.Upstreams {
		kinds := slices.DeleteFunc(slices.Clone(u.Kinds()), func(kind string) bool { return own[kind] != "" })
		if u.Tells() && len(kinds) > 0 {
			feeds = append(feeds, Backend{Name: u.Name, Tells: kinds})
		}
	}
	return feeds
}

// CheckUpstreams returns an error for names, paths and kinds of tags of upstreams that are in use. The
// backends need no clients.
func CheckUpstreams(set *upstream.Set, backends ...Backend) error {
	if set == nil {
		return nil
	}
	if err := passthrough.CheckRoutes(ownSpecs(backends), set); err != nil {
		return err
	}
	if _, err := feedOwnersOf(slices.Concat(backends, upstreamFeeds(set, backends))); err != nil {
		return fmt.Errorf("change feeds of upstreams: %w", err)
	}
	return nil
}

// ownSpecs describes the methods of the gateway itself and of its extensions.
func ownSpecs(backends []Backend) []connect.Spec {
	server := connect.NewServer()
	s := &Service{auth: &authService{}, account: &accountService{}, user: &userService{}, backends: backends, gateway: &Gateway{}}
	s.register(server)
	return slices.Collect(server.Specs())
}
