package harness

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/multitracer"
	"github.com/jackc/pgx/v5/pgxpool"

	"gatehouse/app"
	"gatehouse/auth"
	"gatehouse/bff"
	authv1 "gatehouse/gen/auth/v1"
	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/database"
	"gatehouse/internal/dial"
	"gatehouse/internal/pgtest"
	"gatehouse/internal/rpc"
	"gatehouse/internal/serve"
	"gatehouse/users"
)

// StackSecret encrypts the keys of auth in a Stack.
const StackSecret = "secret-key-one-secret-key-one-01"

// Stack is Gatehouse within the test's own process: one users service, one of each
// service of the application, and auth services and gateways over one database.
type Stack struct {
	Gateways []*System // of which only url is set
	Auths    []*auth.Service
	Users    *users.Service
	Database pgtest.Database
}

// StackConfig says what to start. The zero value is one gateway over one auth.
type StackConfig struct {
	Gateways int // 1 if 0
	// Auths is how many auth services there are, 1 if 0. Gateway i calls auth i, or
	// the only one.
	Auths int
	// Wrap, if set, makes every call go over HTTP, and returns the handler that a
	// gateway reaches a service through.
	Wrap func(gateway int, service string, next http.Handler) http.Handler
	// Tracer, if set, sees every statement of the services.
	Tracer pgx.QueryTracer
	// Logger discards if nil.
	Logger *slog.Logger
	// Mailer sends mail; nil if there is none.
	Mailer auth.Mailer
	// Database is used instead of a new one; StandbyURL, if set, is the URL of the login of a
	// service at its standby.
	Database       *pgtest.Database
	StandbyURL     func(service string) string
	TrustedProxies []netip.Prefix
}

// stackBuilder starts the services of a Stack and stops them with the test.
type stackBuilder struct {
	testing.TB
	StackConfig
	keys    rpc.InternalKeys
	ctx     context.Context
	running sync.WaitGroup
}

// StartStack starts a stack and waits until its gateways are ready.
func StartStack(t testing.TB, config StackConfig) *Stack {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	b := &stackBuilder{TB: t, StackConfig: config, keys: rpc.InternalKeys{make([]byte, 32)}, ctx: ctx}
	t.Cleanup(func() { stop(); b.running.Wait() })
	b.Gateways, b.Auths = max(b.Gateways, 1), max(b.Auths, 1)
	if b.Logger == nil {
		b.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Stack{}
	if config.Database != nil {
		s.Database = *config.Database
	} else {
		s.Database = pgtest.New(t)
	}
	usersDB := b.openDB(s.Database.Users, "users")
	t.Cleanup(usersDB.Close)
	profiles := users.New(users.Config{DB: usersDB, Standby: b.openStandby("users"), Accounts: authv1.NewAccountFeedServiceClient(b.accountFeed(s)), Logger: b.Logger})
	s.Users = profiles
	listeners := make([]net.Listener, b.Gateways)
	for i := range listeners {
		listeners[i] = b.listen()
	}
	publicURL := "http://" + listeners[0].Addr().String()
	for range b.Auths {
		authDB := b.openDB(s.Database.Auth, "auth")
		t.Cleanup(authDB.Close)
		service, err := auth.New(ctx, auth.Config{
			DB: authDB, Standby: b.openStandby("auth"), Users: usersv1.NewRelayServiceClient(b.client(-1, RoleAuth, RoleUsers, profiles.Register)),
			Secrets: [][]byte{[]byte(StackSecret)}, Issuer: publicURL, Mailer: b.Mailer, MailFrom: "gatehouse@example.com",
			Registration: auth.RegistrationOpen, SessionIdle: time.Hour, SessionMax: time.Hour, Logger: b.Logger,
		})
		b.check(err)
		b.running.Go(func() { service.Run(ctx) })
		s.Auths = append(s.Auths, service)
	}
	b.running.Go(func() { profiles.Run(ctx) })
	others := b.startOthers(s, map[string]func(*connect.Server){RoleAuth: s.Auths[0].Register, RoleUsers: profiles.Register})
	for i, listener := range listeners {
		clients := b.dialOthers(others)
		clients[RoleAuth] = b.client(i, RoleBff, RoleAuth, s.Auths[i%b.Auths].Register)
		clients[RoleUsers] = b.client(i, RoleBff, RoleUsers, profiles.Register)
		gateway, err := bff.New(bff.Config{
			Backends: backends(clients), PublicURL: publicURL, Logger: b.Logger, TrustedProxies: b.TrustedProxies,
		})
		b.check(err)
		b.running.Go(func() { gateway.Run(ctx) })
		b.serve(listener, gateway)
		s.Gateways = append(s.Gateways, &System{URL: "http://" + listener.Addr().String()})
		Eventually(t, 30*time.Second, "the gateway is ready", gateway.Ready)
	}
	b.check(s.Auths[0].CreateAdministrator(t.Context(), AdminEmail, AdminPassword))
	return s
}

// backends are the services behind a gateway.
func backends(clients map[string]*connect.Client) []bff.Backend {
	var backends []bff.Backend
	for _, service := range app.Services() {
		if client := clients[service.Name]; client != nil {
			backends = append(backends, service.Backend(client))
		}
	}
	return backends
}

// accountFeed returns users' client of the first auth, which is built later.
func (b *stackBuilder) accountFeed(s *Stack) *connect.Client {
	b.Helper()
	client, err := dial.InProcessLater(dial.Route{Caller: RoleUsers, Callee: RoleAuth, Keys: b.keys}, sync.OnceValue(func() *rpc.Server {
		server, err := rpc.NewServer(rpc.ServerConfig{Logger: b.Logger, Authorizer: rpc.ServicesOnly(b.keys, RoleAuth)}, s.Auths[0].Register)
		if err != nil {
			panic(err)
		}
		return server
	}))
	b.check(err)
	return client
}

func (b *stackBuilder) check(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// openDB opens a service's pool, whose statements Tracer sees.
func (b *stackBuilder) openDB(url, service string) *pgxpool.Pool {
	b.Helper()
	pool := openDB(b, url, service)
	if b.Tracer == nil {
		return pool
	}
	config := pool.Config()
	pool.Close()
	config.ConnConfig.Tracer = multitracer.New(config.ConnConfig.Tracer, b.Tracer)
	pool, err := pgxpool.NewWithConfig(b.ctx, config)
	b.check(err)
	return pool
}

// openStandby opens the standby of a service; nil if there is none.
func (b *stackBuilder) openStandby(service string) *database.Standby {
	b.Helper()
	if b.StandbyURL == nil {
		return nil
	}
	standby, err := database.OpenStandby(b.ctx, b.StandbyURL(service), service)
	b.check(err)
	b.Cleanup(standby.Close)
	return standby
}

func (b *stackBuilder) listen() net.Listener {
	b.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	b.check(err)
	return listener
}

func (b *stackBuilder) serve(listener net.Listener, handler http.Handler) {
	b.running.Go(func() {
		if err := serve.Run(b.ctx, listener, handler, b.Logger); err != nil {
			b.Errorf("serve: %v", err)
		}
	})
}

// client returns a client of a service: in process, or over HTTP with Wrap. gateway is
// -1 for auth's own.
func (b *stackBuilder) client(gateway int, caller, callee string, register func(*connect.Server)) *connect.Client {
	b.Helper()
	server, err := rpc.NewServer(rpc.ServerConfig{Logger: b.Logger, Authorizer: rpc.ServicesOnly(b.keys, callee), Internal: true}, register)
	b.check(err)
	route := dial.Route{Caller: caller, Callee: callee, Keys: b.keys}
	if b.Wrap == nil {
		client, err := dial.InProcess(route, server)
		b.check(err)
		return client
	}
	handler := http.Handler(server.Mux(func() error { return nil }))
	if gateway >= 0 {
		handler = b.Wrap(gateway, callee, handler)
	}
	listener := b.listen()
	b.serve(listener, handler)
	client, err := dial.Dial(route, "http://"+listener.Addr().String())
	b.check(err)
	return client
}
