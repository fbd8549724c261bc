// Package bff is the gateway: the one public API, composed of responses from auth and
// users. It owns no data, and any number of replicas can run.
//
// A call passes bff/shed and bff/intake, which bound what the gateway takes on, then
// bff/browser for the cookies and origins of pages. It is admitted by its method's
// policy (identity.go; policy.go describes the policies in words) once bff/access has
// found its token valid. The RPC methods stand in one file for each public service.
// They fetch the parts of the response concurrently (composition.go), and one place
// maps the errors of the services to public errors (fault.go).
package bff

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"connectrpc.com/connect/v2"

	"gatehouse/bff/access"
	"gatehouse/bff/browser"
	"gatehouse/bff/intake"
	"gatehouse/bff/shed"
	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/answercache"
	"gatehouse/internal/policy"
	"gatehouse/internal/rest"
	"gatehouse/internal/rpc"
	"gatehouse/internal/telemetry"
	"gatehouse/web"
)

// Config is what the gateway needs.
type Config struct {
	// Auth and Users reach the services.
	Auth, Users *connect.Client
	// PublicURL is the URL of the gateway for browsers, and the issuer of its tokens.
	PublicURL string
	// Origins are the web origins that may call from a browser.
	Origins []string
	// Cookies says how session cookies are protected; CookiesAuto if empty.
	Cookies browser.CookieProfile
	// TrustedProxies are the networks whose X-Forwarded-For is trusted.
	TrustedProxies []netip.Prefix
	// Policy tightens methods' time limits and rates: see [rpc.ServerConfig].
	Policy string
	// Throttle applies rate limits and load shedding. Turn it off only for tests and
	// measurements.
	Throttle bool
	// QueueTarget is how long a call may wait for its turn before calls like it are
	// refused; [shed.DefaultTarget] if zero.
	QueueTarget time.Duration
	// RedisURL is a Redis or Valkey through which gateways share what callers have
	// used of their rates. Without one, each gateway counts only its own calls.
	RedisURL string
	// CacheBytes bounds the cache: 64 MiB if zero, no cache with CacheNothing.
	CacheBytes int64
	// Parts are the dependencies whose status the first page shows, besides the
	// gateway's own.
	Parts  []Part
	Logger *slog.Logger
	// Telemetry measures and traces each call; nil does neither.
	Telemetry *telemetry.Telemetry
}

// Service is the gateway.
type Service struct {
	auth      *authService
	account   *accountService
	user      *userService
	identity  *identity
	verifier  *access.Verifier
	revoked   *access.Revocations
	cache     *answercache.Cache
	changes   changeFeeds
	origins   *browser.Origins
	proxies   *proxies
	rates     *rates         // nil without rate limits
	shedder   *shed.Shedder  // nil without queues
	intake    *intake.Intake // nil without bounds on unread requests
	rpc       *rpc.Server
	documents documents
	handler   http.Handler
}

// compressMinBytes is the size from which answers are compressed: below it,
// compressing costs more than it saves.
const compressMinBytes = 1024

// New builds the gateway. It returns an error when a method that it serves has
// no policy, one that it can't enforce, or one that config would loosen.
func New(config Config) (*Service, error) {
	if err := checkNoSecrets(cacheableParts...); err != nil {
		return nil, err
	}
	s := &Service{
		origins: browser.NewOrigins(config.Origins, config.Logger),
		proxies: &proxies{trusted: config.TrustedProxies, logger: config.Logger},
	}
	var err error
	if config.Throttle {
		if s.rates, err = newRates(config.RedisURL, s.proxies, config.Logger); err != nil {
			return nil, err
		}
	}
	if s.verifier, err = access.NewVerifier(config.PublicURL, config.Logger); err != nil {
		return nil, err
	}
	if s.cache, err = newCache(config.CacheBytes, func(kinds []string) bool { return s.changes.current(kinds) }); err != nil {
		s.verifier.Stop()
		return nil, err
	}
	queued := flows{s.proxies, s.verifier}
	if config.Throttle {
		s.shedder = shed.New(shed.Config{Target: config.QueueTarget, Flow: queued.ofCall, RequestFlow: queued.ofRequest, MayBeCached: answers{s.cache}.mayHold, Logger: config.Logger})
	}
	s.join(config)
	if s.rpc, err = s.newServer(config); err == nil {
		s.documents, err = newDocuments(s.rpc.Methods(), nil)
	}
	if err != nil {
		s.verifier.Stop()
		s.cache.Close()
		return nil, err
	}
	handler := s.identity.cookies.Handler(s.mux(config))
	if config.Throttle {
		s.intake = intake.New(s.rpc.Methods(), queued.network)
		handler = s.shedder.RefuseEarly(s.intake.Handler(handler))
	}
	s.handler = s.origins.Handler(handler)
	return s, nil
}

// join makes the parts of the gateway that call services.
func (s *Service) join(config Config) {
	revocations := authv1.NewRevocationServiceClient(config.Auth)
	s.revoked = access.NewRevocations(revocations, authv1.NewKeyServiceClient(config.Auth), s.verifier.Take, func(ctx context.Context, request *authv1.CheckAccessRequest) error {
		_, err := callService(ctx, readLimit, func(ctx context.Context) (*authv1.CheckAccessResponse, error) {
			return revocations.CheckAccess(ctx, request)
		})
		return err
	}, config.Logger)
	s.changes = changeFeeds{
		newAuthFeed(authv1.NewChangeServiceClient(config.Auth), s.cache, config.Logger),
		newUsersFeed(usersv1.NewChangeServiceClient(config.Users), s.cache, config.Logger),
	}
	users := &directory{
		accounts: authv1.NewAccountServiceClient(config.Auth), sessions: authv1.NewSessionServiceClient(config.Auth),
		audit: authv1.NewAuditServiceClient(config.Auth), links: authv1.NewLinkServiceClient(config.Auth), mails: authv1.NewMailServiceClient(config.Auth), profiles: usersv1.NewProfileServiceClient(config.Users),
		clientInfo: s.proxies.clientInfo, logger: config.Logger,
	}
	s.identity = &identity{verifier: s.verifier, revoked: s.revoked, limit: s.rates.limitAddress}
	s.identity.cookies = browser.NewCookies(browser.Config{
		Profile: config.Cookies, PublicURL: config.PublicURL, Origins: s.origins, Verifier: s.verifier, Revoked: s.revoked,
		Serves:   func(path string) bool { return s.rpc.Serves(path) },
		Identify: s.identity.identify, Limit: s.rates.limitAddress, ClientInfo: s.proxies.clientInfo,
		Refresh: func(ctx context.Context, request *authv1.RefreshRequest) (*authv1.RefreshResponse, error) {
			return callService(ctx, writeLimit, func(ctx context.Context) (*authv1.RefreshResponse, error) {
				return users.sessions.Refresh(ctx, request)
			})
		},
	})
	s.auth = &authService{directory: users, identity: s.identity, cookies: s.identity.cookies, cache: s.cache}
	s.account = &accountService{directory: users, cookies: s.identity.cookies, cache: s.cache}
	s.user = &userService{directory: users}
}

func (s *Service) newServer(config Config) (*rpc.Server, error) {
	return rpc.NewServer(rpc.ServerConfig{
		Logger: config.Logger, ClientIP: s.proxies.addressOf, Authorizer: s.identity.admit, Policy: config.Policy, Telemetry: config.Telemetry, CompressMinBytes: compressMinBytes,
		Interceptors: rpc.Interceptors{CrossOrigin: browser.RefuseCrossOrigin, Rate: s.rates.limitRate, Idempotency: readIdempotencyKey, Cache: answers{s.cache}.interceptor, Queue: s.shedder.Wait},
	}, s.register)
}

func (s *Service) register(server *connect.Server) {
	bffv1.RegisterAuthServiceHandler(server, s.auth)
	bffv1.RegisterAccountServiceHandler(server, s.account)
	bffv1.RegisterUserServiceHandler(server, s.user)
}

// mux serves the API, the signing keys, the status and the pages.
func (s *Service) mux(config Config) *rpc.Mux {
	mux := s.rpc.Mux(s.Ready)
	rest.Handle(mux, "/api/")
	mux.Handle("GET /.well-known/jwks.json", policy.Anyone(), http.HandlerFunc(s.verifier.ServeJWKS))
	site := web.NewHandler(web.Config{PublicURL: config.PublicURL, AcceptsGzip: rpc.AcceptsGzip, OpenAPI: s.documents.openAPI, Postman: s.documents.postman})
	for _, pattern := range site.Patterns() {
		mux.Handle(pattern, policy.Anyone(), site)
	}
	own := Part{Name: "gateway", Check: func(context.Context) error { return s.Ready() }}
	mux.Handle("GET /status.json", policy.Anyone(), &statusHandler{parts: append([]Part{own}, config.Parts...), now: time.Now})
	return mux
}

// ServeHTTP serves the public API and the pages.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// Run keeps the signing keys, the revocations and what is kept of answers
// current until ctx ends.
func (s *Service) Run(ctx context.Context) {
	defer s.verifier.Stop()
	var group sync.WaitGroup
	group.Go(func() { s.changes.run(ctx); s.cache.Close() })
	if s.rates != nil {
		group.Go(func() { s.rates.callers.Run(ctx) })
	}
	s.revoked.Run(ctx)
	group.Wait()
}

// Ready reports what keeps the gateway from doing its own part. A service that
// is down does not.
func (s *Service) Ready() error {
	if !s.verifier.HasKeys() {
		return errors.New("the signing keys have not come from auth yet")
	}
	if !s.revoked.Ready() {
		return errors.New("what is revoked has not come from auth yet")
	}
	return nil
}
