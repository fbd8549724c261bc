// Package bff is the gateway: the one public API, composed of what auth and
// users answer. It owns no data, and any number of copies can run.
//
// A call is admitted by its method's policy (access.go; policy.go puts all that
// holds for it in words), on the strength of an access token that the gateway
// verifies itself (verifier.go). Its answer is
// put together from parts that are fetched at the same time (compose.go), and
// what a part fails with is turned into what a caller may see in one place
// (fault.go).
package bff

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"connectrpc.com/connect/v2"

	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/rpc"
	"gatehouse/internal/telemetry"
)

// Config is what the gateway needs.
type Config struct {
	// Auth and Users reach the services.
	Auth, Users *connect.Client
	// PublicURL is where browsers find the gateway: the issuer of its tokens.
	PublicURL string
	// Origins are the web origins that may call from a browser.
	Origins []string
	// Cookies says how session cookies are protected; CookiesAuto if empty.
	Cookies CookieProfile
	// TrustedProxies are the networks whose forwarded addresses are believed.
	TrustedProxies []netip.Prefix
	// Policy tightens methods' time limits and rates: see [rpc.ServerConfig].
	Policy string
	// Throttle holds callers to the rates that the schema says, and queues and sheds
	// what is too much: off only for tests and measurements.
	Throttle bool
	// QueueTarget is how long a call may wait for its turn before calls like it are
	// refused; DefaultQueueTarget if zero.
	QueueTarget time.Duration
	// RedisURL is a Redis or Valkey through which gateways share what callers have
	// used of their rates; without one, each goes by what it has seen itself.
	RedisURL string
	// CacheBytes bounds the answers that are kept: 64 MiB if zero, none with
	// CacheNothing.
	CacheBytes int64
	// Parts are what the first page shows the state of, beside the gateway's own.
	Parts  []Part
	Logger *slog.Logger
	// Telemetry measures and traces each call; nil does neither.
	Telemetry *telemetry.Telemetry
}

// Service is the gateway.
type Service struct {
	accounts authv1.AccountServiceClient
	sessions authv1.SessionServiceClient
	links    authv1.LinkServiceClient
	audit    authv1.AuditServiceClient
	mails    authv1.MailServiceClient
	profiles usersv1.ProfileServiceClient
	verifier *verifier
	revoked  *revoked
	cache    *cache
	cookies  *cookies
	proxies  []netip.Prefix
	rates    *rates   // nil for none
	shedder  *shedder // nil for as much as comes
	intake   *intake  // nil for as much as comes
	// unbelieved sees to it that one line of the log is enough.
	unbelieved sync.Once
	logger     *slog.Logger
	rpc        *rpc.Server
	handler    http.Handler
}

// compressMinBytes is the size from which answers are compressed: below it,
// compressing costs more than it saves.
const compressMinBytes = 1024

// New builds the gateway. It returns an error when a method that it serves has
// no policy, one that it can't enforce, or one that config would loosen.
func New(config Config) (*Service, error) {
	s := &Service{
		accounts: authv1.NewAccountServiceClient(config.Auth),
		sessions: authv1.NewSessionServiceClient(config.Auth),
		links:    authv1.NewLinkServiceClient(config.Auth),
		audit:    authv1.NewAuditServiceClient(config.Auth),
		mails:    authv1.NewMailServiceClient(config.Auth),
		profiles: usersv1.NewProfileServiceClient(config.Users),
		proxies:  config.TrustedProxies,
		logger:   config.Logger,
	}
	if err := keepsNoSecrets(keptParts...); err != nil {
		return nil, err
	}
	var err error
	if config.Throttle {
		if s.rates, err = newRates(config); err != nil {
			return nil, err
		}
		s.shedder = newShedder(config)
	}
	// What can be refused comes first: a verifier has a goroutine.
	s.rpc, err = s.newServer(config)
	if err != nil {
		return nil, err
	}
	if s.verifier, err = newVerifier(config.PublicURL, config.Logger); err != nil {
		return nil, err
	}
	s.revoked = newRevoked(authv1.NewRevocationServiceClient(config.Auth), authv1.NewKeyServiceClient(config.Auth), s.verifier, config.Logger)
	sources := newSources(config.Origins, config.Logger)
	s.cache, err = newCache(cmp.Or(config.CacheBytes, defaultCacheBytes),
		authChanges(authv1.NewChangeServiceClient(config.Auth), config.Logger),
		usersChanges(usersv1.NewChangeServiceClient(config.Users), config.Logger))
	if err != nil {
		s.verifier.stop()
		return nil, err
	}
	s.cookies = newCookies(s, config, sources)
	handler := s.cookies.handler(s.mux(config))
	if config.Throttle {
		s.intake = newIntake(s)
		handler = s.turnAway(s.intake.handler(handler))
	}
	s.handler = sources.handler(handler)
	return s, nil
}

func (s *Service) newServer(config Config) (*rpc.Server, error) {
	return rpc.NewServer(rpc.ServerConfig{
		Logger: config.Logger, ClientIP: s.addressOf, Authorizer: s.admit, Policy: config.Policy, Telemetry: config.Telemetry, CompressMinBytes: compressMinBytes,
		Steps: rpc.Steps{CrossOrigin: crossOrigin, Rate: s.rated, Idempotency: keyed, Cache: s.keeps, Queue: s.queued},
	}, s.register)
}

func (s *Service) register(server *connect.Server) {
	bffv1.RegisterAuthServiceHandler(server, s)
	bffv1.RegisterAccountServiceHandler(server, accountService{s})
	bffv1.RegisterUserServiceHandler(server, s)
}

// ServeHTTP serves the public API and the pages beside it.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// Run keeps the signing keys, the revocations and what is kept of answers
// current until ctx ends.
func (s *Service) Run(ctx context.Context) {
	defer s.verifier.stop()
	var group sync.WaitGroup
	group.Go(func() { s.cache.run(ctx) })
	if s.rates != nil {
		group.Go(func() { s.rates.callers.Run(ctx) })
	}
	s.revoked.run(ctx)
	group.Wait()
}

// Ready reports what keeps the gateway from doing its own part. A service that
// is down does not.
func (s *Service) Ready() error {
	if !s.verifier.hasKeys() {
		return errors.New("the signing keys have not come from auth yet")
	}
	if !s.revoked.ready() {
		return errors.New("what is revoked has not come from auth yet")
	}
	return nil
}
