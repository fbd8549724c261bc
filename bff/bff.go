// Package bff is the gateway: the one public API, composed of responses from auth and
// users. It owns no data, and any number of replicas can run.
//
// A call passes bff/shed and bff/intake, which limit concurrent calls and unread
// requests, then bff/browser, which checks cookies and web origins. bff/access validates
// the access token, and identity.go enforces the method's policy (policy.go describes
// the policies in words). Each public service has one file with its RPC methods. They
// fetch the parts of the response concurrently (composition.go), and fault.go maps the
// errors of the services to public errors.
//
// This package is large because every service has a file of public methods here: they
// share admission, composition and the cache, and each service that is added brings one.
package bff

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect/v2"

	"gatehouse/bff/access"
	"gatehouse/bff/accountfeed"
	"gatehouse/bff/apikeys"
	"gatehouse/bff/browser"
	"gatehouse/bff/intake"
	"gatehouse/bff/pages"
	"gatehouse/bff/passthrough"
	"gatehouse/bff/shed"
	"gatehouse/bff/standbys"
	"gatehouse/bff/traces"
	"gatehouse/bff/watch"
	"gatehouse/bff/webhooks"
	"gatehouse/bff/wellknown"
	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/fault"
	"gatehouse/internal/identitytoken"
	"gatehouse/internal/policy"
	"gatehouse/internal/rest"
	"gatehouse/internal/rpc"
	"gatehouse/internal/telemetry"
	"gatehouse/internal/upstream"
	"gatehouse/web"
)

// Config is what the gateway needs.
type Config struct {
	// Backends are the services behind the gateway, auth and users among them.
	Backends []Backend
	// SecondFactorRequired asks level 2 or a remembered device of every method that its
	// policy does not open to level 1.
	SecondFactorRequired bool
	// SecondFactorRoles are the roles that do not count in a token of level 1.
	SecondFactorRoles []string
	// PublicURL is the URL of the gateway for browsers, and the issuer of its tokens.
	PublicURL string
	// Origins are the web origins that may call from a browser.
	Origins []string
	// RelatedOrigins is the document that lets pages of other domains use our passkeys
	// (Web Authentication Level 3, section 5.11); nil for none.
	// SecurityContact is the contact of security.txt; empty for no such document.
	SecurityContact string
	RelatedOrigins  []byte
	// Cookies says how session cookies are protected; CookiesAuto if empty.
	Cookies browser.CookieProfile
	// TrustedProxies are the networks whose X-Forwarded-For is trusted.
	TrustedProxies []netip.Prefix
	// Policy tightens methods' time limits and rates: see [rpc.ServerConfig].
	Policy string
	// CursorKeys seal the cursors of live streams, the same for all gateways: the first
	// seals, and all are accepted. If empty, cursors are valid at this gateway only.
	CursorKeys [][]byte
	// Throttle applies rate limits and load shedding. Turn it off only for tests and
	// measurements.
	Throttle bool
	// QueueTarget is how long a call may wait for its turn before calls like it are
	// refused; [shed.DefaultTarget] if zero.
	QueueTarget time.Duration
	// RedisURL is a Redis or Valkey through which gateways share what callers have
	// used of their rates. Without one, each gateway counts only its own calls.
	RedisURL string
	// CacheBytes limits the memory of the cache: 64 MiB if zero, no cache with CacheNothing.
	CacheBytes int64
	// Upstreams are services of the application behind the gateway; nil for none.
	Upstreams *upstream.Set
	// Identity mints the tokens for them; nil without upstreams.
	Identity *identitytoken.Issuer
	// Pages are those for people: signing in, the own account, the console.
	Pages pages.Config
	// Parts are the dependencies whose status the first page shows, besides the
	// gateway's own.
	Parts  []Part
	Logger *slog.Logger
	// Telemetry measures and traces each call. If nil, calls are neither measured nor
	// traced.
	Telemetry *telemetry.Telemetry
}

// Service is the gateway.
type Service struct {
	auth       *authService
	account    *accountService
	user       *userService
	identity   *identity
	verifier   *access.Verifier
	revoked    *access.Revocations
	cache      *partCache
	gateway    *Gateway
	logger     *slog.Logger
	backends   []Backend
	me         meParts
	feedOwners map[string]string // the service whose feed reports the changes of a tag, by its kind
	changes    changeFeeds
	// upstreams pass calls on.
	upstreams *passthrough.Upstreams
	// accountFeed lets upstreams follow accounts; nil if none does.
	accountFeed *accountfeed.Feed
	live        *watch.Hub
	webhooks    *webhooks.Service
	traces      *traces.Recorder
	origins     *browser.Origins
	proxies     *proxies
	rates       *rates // nil without rate limits
	revokeKey   *apikeys.RevokeHandler
	shedder     *shed.Shedder  // nil without queues
	intake      *intake.Intake // nil without bounds on unread requests
	rpc         *rpc.Server
	documents   documents
	handler     http.Handler
	streams     func(*http.Request) bool
}

// compressMinBytes is the size from which the gateway compresses responses. Compressing
// a smaller one costs more than it saves.
const compressMinBytes = 1024

// New builds the gateway. It returns an error if a method has no policy, a policy that
// the gateway cannot enforce, or a policy that config would loosen.
func New(config Config) (*Service, error) {
	s := &Service{
		origins:  browser.NewOrigins(config.Origins, config.Logger),
		proxies:  &proxies{trusted: config.TrustedProxies, logger: config.Logger},
		backends: config.Backends,
		logger:   config.Logger,
		traces:   &traces.Recorder{},
	}
	var err error
	if s.feedOwners, err = feedOwnersOf(slices.Concat(config.Backends, upstreamFeeds(config.Upstreams, config.Backends))); err != nil {
		return nil, err
	}
	if s.me, err = newMeParts(config.Backends, s.feedOwners); err != nil {
		return nil, err
	}
	if config.Throttle {
		if s.rates, err = newRates(config.RedisURL, s.proxies, config.Logger); err != nil {
			return nil, err
		}
	}
	if s.verifier, err = access.NewVerifier(config.PublicURL, config.SecondFactorRoles, config.Logger); err != nil {
		return nil, err
	}
	if s.cache, err = newCache(config.CacheBytes, config.Backends, standbys.New(maxChangeAge, s.feedOwners), func(kinds []string) bool { return s.changes.current(kinds) }); err != nil {
		s.verifier.Stop()
		return nil, err
	}
	s.identity = &identity{verifier: s.verifier}
	queued := flows{s.proxies, s.verifier, s.identity}
	if config.Throttle {
		s.shedder = shed.New(shed.Config{Target: config.QueueTarget, Flow: queued.ofCall, RequestFlow: queued.ofRequest, MayBeCached: s.answers().mayHold, Logger: config.Logger})
	}
	if err = s.join(config); err == nil {
		err = s.joinUpstreams(config)
	}
	if err == nil {
		s.rpc, err = s.newServer(config)
	}
	if err == nil {
		err = s.gateway.check()
	}
	if err == nil {
		s.documents, err = newDocuments(s.rpc.Methods(), config.Upstreams.ReasonsOf)
	}
	if err != nil {
		s.verifier.Stop()
		s.cache.Close()
		return nil, err
	}
	mux := s.mux(config)
	s.streams = mux.Streams
	handler := s.identity.cookies.Handler(mux)
	if config.Throttle {
		s.intake = intake.New(s.rpc.Methods(), queued.network)
		handler = s.shedder.RefuseEarly(s.intake.Handler(handler))
	}
	s.handler = s.origins.Handler(handler)
	return s, nil
}

// join builds the components that call services.
func (s *Service) join(config Config) error {
	s.gateway = &Gateway{cache: s.cache, clients: clientsOf(config.Backends), exporters: exportersOf(config.Backends)}
	auth, users := s.gateway.Client(authName), s.gateway.Client(usersName)
	revocations := authv1.NewRevocationServiceClient(auth)
	s.revoked = access.NewRevocations(revocations, authv1.NewKeyServiceClient(auth), s.verifier.Take, func(ctx context.Context, request *authv1.CheckAccessRequest) error {
		_, err := callService(ctx, readLimit, func(ctx context.Context) (*authv1.CheckAccessResponse, error) {
			return revocations.CheckAccess(ctx, request)
		})
		return err
	}, config.Logger)
	s.joinFeeds(config)
	people := &directory{
		accounts: authv1.NewAccountServiceClient(auth), sessions: authv1.NewSessionServiceClient(auth),
		audit: authv1.NewAuditServiceClient(auth), links: authv1.NewLinkServiceClient(auth), factors: authv1.NewFactorServiceClient(auth), passkeys: authv1.NewPasskeyServiceClient(auth), codes: authv1.NewEmailCodeServiceClient(auth), mails: authv1.NewMailServiceClient(auth), accountFeed: authv1.NewAccountFeedServiceClient(auth), federation: authv1.NewFederationServiceClient(auth), profiles: usersv1.NewProfileServiceClient(users), keys: authv1.NewKeyServiceClient(auth),
		clientInfo: s.proxies.clientInfo, logger: config.Logger,
	}
	s.gateway.directory = people
	s.identity.revoked, s.identity.limit, s.identity.secondFactorRequired = s.revoked, s.rates.limitAddress, config.SecondFactorRequired
	s.identity.cookies = browser.NewCookies(browser.Config{
		Profile: config.Cookies, PublicURL: config.PublicURL, Origins: s.origins, Verifier: s.verifier, Revoked: s.revoked,
		Serves:   func(path string) bool { return s.rpc.Serves(path) },
		Identify: s.identity.identify, Limit: s.rates.limitAddress, ClientInfo: s.proxies.clientInfo,
		Refresh: func(ctx context.Context, request *authv1.RefreshRequest) (*authv1.RefreshResponse, error) {
			return callService(ctx, writeLimit, func(ctx context.Context) (*authv1.RefreshResponse, error) {
				return people.sessions.Refresh(ctx, request)
			})
		},
	})
	s.auth = &authService{directory: people, identity: s.identity, cookies: s.identity.cookies, cache: s.cache}
	s.account = &accountService{directory: people, live: s.live, cookies: s.identity.cookies, cache: s.cache, parts: s.me, exporters: s.gateway.exporters, withheld: s.verifier.Withheld}
	s.traces.Known = func(who *access.Principal) error {
		fresh, err := s.revoked.Known(who)
		if err == nil && !fresh {
			return fault.UnavailableFor(time.Second)
		}
		return err
	}
	s.user = &userService{directory: people, Users: &watch.Users{Hub: s.live, Caller: caller}, traces: s.traces}
	s.webhooks = s.newWebhooks(people)
	return s.joinKeys(people)
}

// joinFeeds follows the changes of the services, for the cache and the live streams.
func (s *Service) joinFeeds(config Config) {
	live := watch.Config{Keys: config.CursorKeys, Check: s.revoked.Check, Known: func(who *access.Principal) error { _, err := s.revoked.Known(who); return err }, Fresh: s.revoked.Fresh}
	for _, backend := range config.Backends {
		if len(backend.Tells) == 0 {
			continue
		}
		feed := newChangeFeed(backend, s.cache, config.Logger)
		feed.position = s.cache.positions.Reported
		s.changes = append(s.changes, feed)
		if backend.Name == authName || backend.Name == usersName {
			live.Feeds = append(live.Feeds, backend.Name)
			feed.changed = func(name string, complete bool, tags []string, cursor string) {
				s.live.Changed(name, complete, tags, cursor)
			}
		}
	}
	s.live = watch.New(live)
	s.revoked.Taken = s.live.Revoked
}

func (s *Service) newServer(config Config) (*rpc.Server, error) {
	return rpc.NewServer(rpc.ServerConfig{
		Logger: config.Logger, ClientIP: s.proxies.addressOf, Authorizer: s.identity.admit, Policy: config.Policy, CacheTags: s.me.cacheTags(), Telemetry: config.Telemetry, CompressMinBytes: compressMinBytes,
		Interceptors: rpc.Interceptors{Record: s.traces.Interceptor, CrossOrigin: browser.RefuseCrossOrigin, Rate: s.rates.limitRate, Idempotency: readIdempotencyKey, Cache: s.answers().interceptor, Queue: s.shedder.Wait},
	}, s.register)
}

func (s *Service) register(server *connect.Server) {
	bffv1.RegisterAuthServiceHandler(server, s.auth)
	bffv1.RegisterAccountServiceHandler(server, s.account)
	bffv1.RegisterUserServiceHandler(server, s.user)
	bffv1.RegisterWebhookServiceHandler(server, s.webhooks)
	s.upstreams.Register(server)
	registerExtensions(server, s.gateway, s.backends)
}

// mux serves the API, the signing keys, the status and the pages.
func (s *Service) mux(config Config) *rpc.Mux {
	mux := s.rpc.Mux(s.Ready)
	rest.Handle(mux, "/api/")
	if s.accountFeed != nil {
		mux.Join(s.accountFeed.Server())
	}
	mux.Handle("GET /.well-known/jwks.json", policy.Anyone(), http.HandlerFunc(s.verifier.ServeJWKS))
	mux.Handle("GET "+identitytoken.JWKSPath, policy.Anyone(), config.Identity)
	mux.Handle("POST "+apikeys.RevokePath, policy.Anyone(), s.revokeKey)
	mux.Handle("GET "+relatedOriginsPath, policy.Anyone(), relatedOrigins(config.RelatedOrigins))
	for pattern, handler := range wellknown.Handlers(wellknown.Config{PublicURL: config.PublicURL, Pages: !config.Pages.Off, SecurityContact: config.SecurityContact, Now: time.Now}) {
		mux.Handle(pattern, policy.Anyone(), handler)
	}
	site := web.NewHandler(web.Config{PublicURL: config.PublicURL, Pages: !config.Pages.Off, AcceptsGzip: rpc.AcceptsGzip, OpenAPI: s.documents.openAPI, Postman: s.documents.postman})
	for _, pattern := range site.Patterns() {
		mux.Handle(pattern, policy.Anyone(), site)
	}
	if !config.Pages.Off {
		s.handleVisits(mux)
	}
	config.Pages.AcceptsGzip, config.Pages.Scopes = rpc.AcceptsGzip, scopesOf(s.rpc.Methods())
	people := pages.NewHandler(config.Pages)
	for _, pattern := range people.Patterns() {
		mux.Handle(pattern, policy.Anyone(), people)
	}
	mux.NotFound = people.NotFound
	own := Part{Name: "gateway", Check: func(context.Context) error { return s.Ready() }}
	mux.Handle("GET /status.json", policy.Anyone(), &statusHandler{parts: append([]Part{own}, config.Parts...), now: time.Now})
	return mux
}

// ServeHTTP serves the public API and the pages.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// Streams implements [serve.Streamer].
func (s *Service) Streams(r *http.Request) bool { return s.streams(r) }

// Run keeps the signing keys, the revocations and the cache entries current until ctx
// ends.
func (s *Service) Run(ctx context.Context) {
	defer s.verifier.Stop()
	var group sync.WaitGroup
	group.Go(func() { s.changes.run(ctx); s.cache.Close() })
	if s.accountFeed != nil {
		group.Go(func() { s.accountFeed.Run(ctx) })
	}
	group.Go(func() { s.identity.keys.Run(ctx, s.logger) })
	if s.rates != nil {
		group.Go(func() { s.rates.callers.Run(ctx) })
	}
	group.Go(func() { s.live.Run(ctx) })
	s.revoked.Run(ctx)
	group.Wait()
}

// Ready returns an error while the gateway cannot authenticate calls. It does not depend
// on whether the services are reachable.
func (s *Service) Ready() error {
	if !s.verifier.HasKeys() {
		return errors.New("no signing keys received from auth yet")
	}
	if !s.revoked.Ready() {
		return errors.New("no list of revocations received from auth yet")
	}
	return nil
}
