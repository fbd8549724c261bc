package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/alecthomas/kong"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"gatehouse/auth"
	"gatehouse/bff"
	usersv1 "gatehouse/gen/users/v1"
	post "gatehouse/internal/mail"
	"gatehouse/internal/rpc"
	"gatehouse/internal/schema"
	"gatehouse/users"
)

// The roles, by which services know each other.
const (
	roleAuth  = "auth"
	roleUsers = "users"
	roleBff   = "bff"
)

// roleAll is a process that has all of them.
const roleAll = "all"

// houseFlags are what all three roles in one process read.
type houseFlags struct {
	Listen string `env:"GATEHOUSE_LISTEN" default:"127.0.0.1:8001" placeholder:"ADDRESS" help:"Where the gateway listens."`
	databaseFlags
	authDatabaseFlags
	usersDatabaseFlags
	internalFlags
	secretFlags
	edgeFlags
	accountFlags
	stopFlags
	opsFlags
	throttleFlags
}

// parse checks all but the logins. publicListen is where the public URL takes
// its port from, if it is to.
func (f *houseFlags) parse(m *mistakes, app *kong.Application, logger *slog.Logger, registration, publicListen string, databaseNeeded bool) house {
	checkNames(m, app, os.Environ())
	parseListen(m, f.Listen)
	f.databaseFlags.parse(m, databaseNeeded)
	checkDatabaseURL(m, "AUTH_DATABASE_URL", f.AuthDatabaseURL, false)
	checkDatabaseURL(m, "USERS_DATABASE_URL", f.UsersDatabaseURL, false)
	edge := f.edgeFlags.parse(m, publicListen)
	h := house{
		listen: f.Listen, logger: logger,
		keys: f.internalFlags.parse(m), secrets: f.secretFlags.parse(m),
		edge: edge, rules: f.accountFlags.parse(m, registration, edge.publicURL), stop: f.stopFlags.parse(m),
		ops: f.opsFlags.parse(m, roleAll, f.Listen),
	}
	h.edge.throttle = f.throttleFlags.parse(m)
	h.rules.throttle = h.edge.throttle
	return h
}

// serveCommand runs all roles in one process.
type serveCommand struct {
	Registration string `env:"GATEHOUSE_REGISTRATION" default:"verify" placeholder:"open|verify|closed" help:"Who may make an account: anybody, anybody by a link that is mailed to them, or administrators alone."`
	houseFlags
}

func (c *serveCommand) Run(p *program, app *kong.Application) error {
	var m mistakes
	apart := c.AuthDatabaseURL != "" && c.UsersDatabaseURL != ""
	h := c.houseFlags.parse(&m, app, p.logger, c.Registration, "", !apart)
	if err := m.err(); err != nil {
		return err
	}
	var err error
	h.logins, err = loginsOf(c.DatabaseURL, c.AuthDatabaseURL, c.UsersDatabaseURL, h.secrets[0])
	if err != nil {
		return err
	}
	return h.run(p.ctx, func(service *auth.Service) error {
		return ensureAdministrator(p.ctx, service, h.rules, p.logger)
	}, func() {
		p.logger.Info("ready", "url", h.edge.publicURL, "listen", c.Listen)
	})
}

// house is all three roles in one process. The gateway logs each request; the
// calls that it makes within the process are logged for debugging only.
type house struct {
	listen  string
	logins  logins
	keys    rpc.InternalKeys
	secrets [][]byte
	edge    edge
	rules   accountRules
	stop    rpc.Stop
	ops     *operations
	logger  *slog.Logger
}

// run serves until ctx ends. It calls prepare before it listens, so that nobody
// finds it ready earlier, and ready once everything answers.
func (h *house) run(ctx context.Context, prepare func(*auth.Service) error, ready func()) error {
	if err := h.ops.start(ctx, h.logger); err != nil {
		return err
	}
	defer h.ops.stop(h.logger)
	usersDB, err := openDatabase(ctx, h.logins.users, schema.Users)
	if err != nil {
		return err
	}
	defer usersDB.Close()
	authDB, err := openDatabase(ctx, h.logins.auth, schema.Auth)
	if err != nil {
		return err
	}
	defer authDB.Close()

	usersService, usersServer, err := newUsersServer(usersDB, h.keys, h.ops, h.logger, slog.LevelDebug)
	if err != nil {
		return err
	}
	relay, err := rpc.InProcess(rpc.Route{Caller: roleAuth, Callee: roleUsers, Keys: h.keys, Telemetry: h.ops.telemetry}, usersServer)
	if err != nil {
		return err
	}
	authService, authServer, err := newAuthServer(ctx, authDB, relay, h.keys, h.secrets, h.edge.publicURL, h.rules, h.ops, h.logger, slog.LevelDebug)
	if err != nil {
		return err
	}
	toAuth, err := rpc.InProcess(rpc.Route{Caller: roleBff, Callee: roleAuth, Keys: h.keys, Telemetry: h.ops.telemetry}, authServer)
	if err != nil {
		return err
	}
	toUsers, err := rpc.InProcess(rpc.Route{Caller: roleBff, Callee: roleUsers, Keys: h.keys, Telemetry: h.ops.telemetry}, usersServer)
	if err != nil {
		return err
	}
	authPart, usersPart := databasePart(authDB, schema.Auth, false), databasePart(usersDB, schema.Users, false)
	gateway, err := newGateway(toAuth, toUsers, authPart, usersPart, h.edge, h.ops, h.logger)
	if err != nil {
		return err
	}
	if err := h.ops.measure(usersService, authService, gateway); err != nil {
		return err
	}
	if err := prepare(authService); err != nil {
		return err
	}
	server := server{
		listen: h.listen, handler: gateway, logger: h.logger, stop: h.stop, ops: h.ops, conns: h.edge.conns(),
		parts:  []part{gatewayPart(gateway.Ready), authPart, usersPart},
		beside: []func(context.Context){gateway.Run, authService.Run, usersService.Run},
	}
	return server.run(ctx, func(ctx context.Context) error {
		if err := untilReady(ctx, gateway.Ready); err != nil {
			return err
		}
		ready()
		return nil
	})
}

// server is a role, or all of them, as they are served.
type server struct {
	listen  string
	handler http.Handler
	logger  *slog.Logger
	stop    rpc.Stop        // when it is terminated
	conns   *rpc.ConnLimits // nil for as many connections as come
	ops     *operations
	parts   []part // what operators are told of its readiness
	// beside goes on until the last call is answered.
	beside []func(context.Context)
}

// run listens, for callers and for operators, runs what goes on beside, calls
// ready, and returns when ctx has ended and all of it has stopped.
func (s server) run(ctx context.Context, ready func(context.Context) error) error {
	outliveReaders()
	serveOperators, err := s.ops.begin(ctx, s.parts, s.logger)
	if err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.listen)
	if err != nil {
		return fmt.Errorf("listen: %w: stop what listens there, or set GATEHOUSE_LISTEN to another address", err)
	}
	asked := ctx
	if s.conns != nil {
		listener = rpc.LimitConns(listener, *s.conns)
	}
	group, ctx := errgroup.WithContext(ctx)
	stopLogging := context.AfterFunc(asked, func() { s.logger.Info("stopping", "cause", context.Cause(asked).Error()) })
	defer stopLogging()
	answering, answered := context.WithCancel(context.WithoutCancel(ctx))
	group.Go(func() error {
		defer answered()
		return rpc.ServeUntil(ctx, listener, s.handler, s.logger, func() rpc.Stop {
			if errors.Is(context.Cause(ctx), errTerminated) {
				return s.stop
			}
			return rpc.QuickStop
		})
	})
	group.Go(func() error { return serveOperators(ctx) })
	for _, work := range s.beside {
		group.Go(func() error { work(answering); return nil })
	}
	group.Go(func() error { return ready(ctx) })
	err = group.Wait()
	if err == nil || asked.Err() != nil {
		s.logger.Info("stopped", "listen", s.listen)
	}
	return err
}

// untilReady waits until there is nothing in the way.
func untilReady(ctx context.Context, ready func() error) error {
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for ready() != nil {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
	return nil
}

// authCommand runs auth alone.
type authCommand struct {
	Listen       string `env:"GATEHOUSE_LISTEN" default:"127.0.0.1:8002" placeholder:"ADDRESS" help:"Where it listens."`
	Registration string `env:"GATEHOUSE_REGISTRATION" default:"verify" placeholder:"open|verify|closed" help:"Who may make an account: anybody, anybody by a link that is mailed to them, or administrators alone."`
	UsersURL     string `env:"USERS_URL" placeholder:"URL,…" help:"Where users is; several copies, separated by commas."`
	authDatabaseFlags
	internalFlags
	secretFlags
	publicFlags
	accountFlags
	stopFlags
	opsFlags
	throttleFlags
}

func (c *authCommand) Run(p *program, app *kong.Application) error {
	var m mistakes
	s := c.parse(&m, app)
	keys, secrets, issuer, rules, stop, ops := s.keys, s.secrets, s.issuer, s.rules, s.stop, s.ops
	if err := m.err(); err != nil {
		return err
	}
	if err := ops.start(p.ctx, p.logger); err != nil {
		return err
	}
	defer ops.stop(p.logger)
	db, err := openDatabase(p.ctx, c.AuthDatabaseURL, schema.Auth)
	if err != nil {
		return err
	}
	defer db.Close()
	relay, err := rpc.Dial(rpc.Route{Caller: roleAuth, Callee: roleUsers, Keys: keys, Telemetry: ops.telemetry, Persistent: true}, c.UsersURL)
	if err != nil {
		return err
	}
	service, rpcServer, err := newAuthServer(p.ctx, db, relay, keys, secrets, issuer, rules, ops, p.logger, slog.LevelInfo)
	if err != nil {
		return err
	}
	if err := ensureAdministrator(p.ctx, service, rules, p.logger); err != nil {
		return err
	}
	if err := ops.measure(service); err != nil {
		return err
	}
	server := server{
		listen: c.Listen, handler: rpcServer.Mux(databaseReady(db, schema.Auth)), logger: p.logger, stop: stop, ops: ops,
		parts:  []part{databasePart(db, schema.Auth, true), peerPart(roleUsers, c.UsersURL)},
		beside: []func(context.Context){service.Run},
	}
	return server.run(p.ctx, sayReady(p.logger, c.Listen))
}

// usersCommand runs users alone.
type usersCommand struct {
	Listen string `env:"GATEHOUSE_LISTEN" default:"127.0.0.1:8003" placeholder:"ADDRESS" help:"Where it listens."`
	usersDatabaseFlags
	internalFlags
	stopFlags
	opsFlags
}

func (c *usersCommand) Run(p *program, app *kong.Application) error {
	var m mistakes
	s := c.parse(&m, app)
	keys, stop, ops := s.keys, s.stop, s.ops
	if err := m.err(); err != nil {
		return err
	}
	if err := ops.start(p.ctx, p.logger); err != nil {
		return err
	}
	defer ops.stop(p.logger)
	db, err := openDatabase(p.ctx, c.UsersDatabaseURL, schema.Users)
	if err != nil {
		return err
	}
	defer db.Close()
	service, rpcServer, err := newUsersServer(db, keys, ops, p.logger, slog.LevelInfo)
	if err != nil {
		return err
	}
	if err := ops.measure(service); err != nil {
		return err
	}
	server := server{
		listen: c.Listen, handler: rpcServer.Mux(databaseReady(db, schema.Users)), logger: p.logger, stop: stop, ops: ops,
		parts:  []part{databasePart(db, schema.Users, true)},
		beside: []func(context.Context){service.Run},
	}
	return server.run(p.ctx, sayReady(p.logger, c.Listen))
}

// bffCommand runs the gateway alone.
type bffCommand struct {
	Listen   string `env:"GATEHOUSE_LISTEN" default:"127.0.0.1:8001" placeholder:"ADDRESS" help:"Where it listens."`
	AuthURL  string `env:"AUTH_URL" placeholder:"URL,…" help:"Where auth is; several copies, separated by commas."`
	UsersURL string `env:"USERS_URL" placeholder:"URL,…" help:"Where users is; several copies, separated by commas."`
	internalFlags
	edgeFlags
	stopFlags
	opsFlags
	throttleFlags
}

func (c *bffCommand) Run(p *program, app *kong.Application) error {
	var m mistakes
	s := c.parse(&m, app)
	keys, edge, stop, ops := s.keys, s.edge, s.stop, s.ops
	if err := m.err(); err != nil {
		return err
	}
	if err := ops.start(p.ctx, p.logger); err != nil {
		return err
	}
	defer ops.stop(p.logger)
	toAuth, err := rpc.Dial(rpc.Route{Caller: roleBff, Callee: roleAuth, Keys: keys, Telemetry: ops.telemetry, Logger: p.logger.With("service", roleBff)}, c.AuthURL)
	if err != nil {
		return err
	}
	toUsers, err := rpc.Dial(rpc.Route{Caller: roleBff, Callee: roleUsers, Keys: keys, Telemetry: ops.telemetry, Logger: p.logger.With("service", roleBff)}, c.UsersURL)
	if err != nil {
		return err
	}
	authPart, usersPart := peerPart(roleAuth, c.AuthURL), peerPart(roleUsers, c.UsersURL)
	gateway, err := newGateway(toAuth, toUsers, authPart, usersPart, edge, ops, p.logger)
	if err != nil {
		return err
	}
	if err := ops.measure(gateway); err != nil {
		return err
	}
	say := sayReady(p.logger, c.Listen)
	server := server{
		listen: c.Listen, handler: gateway, logger: p.logger, stop: stop, ops: ops, conns: edge.conns(),
		parts:  []part{gatewayPart(gateway.Ready), authPart, usersPart},
		beside: []func(context.Context){gateway.Run},
	}
	return server.run(p.ctx, func(ctx context.Context) error {
		if err := untilReady(ctx, gateway.Ready); err != nil {
			return err
		}
		return say(ctx)
	})
}

func sayReady(logger *slog.Logger, listen string) func(context.Context) error {
	return func(context.Context) error {
		logger.Info("ready", "listen", listen)
		return nil
	}
}

func newUsersServer(db *pgxpool.Pool, keys rpc.InternalKeys, ops *operations, logger *slog.Logger, level slog.Level) (*users.Service, *rpc.Server, error) {
	logger = logger.With("service", roleUsers)
	service := users.New(users.Config{DB: db, Logger: logger})
	server, err := rpc.NewServer(rpc.ServerConfig{
		Logger: logger, Level: level, Authorizer: rpc.ServicesOnly(keys, roleUsers), Telemetry: ops.telemetry, Internal: true,
	}, service.Register)
	if err != nil {
		return nil, nil, fmt.Errorf("build users: %w", err)
	}
	return service, server, nil
}

func newAuthServer(ctx context.Context, db *pgxpool.Pool, relay *connect.Client, keys rpc.InternalKeys, secrets [][]byte,
	issuer string, rules accountRules, ops *operations, logger *slog.Logger, level slog.Level,
) (*auth.Service, *rpc.Server, error) {
	logger = logger.With("service", roleAuth)
	if !rules.mail.sends() {
		logger.Warn("mail disabled, nobody can be mailed", "fix", "set SMTP_URL; until then nobody can reset a password or verify an email")
	}
	service, err := auth.New(ctx, auth.Config{
		DB: db, Users: usersv1.NewRelayServiceClient(relay), Secrets: secrets, Issuer: issuer,
		Registration: rules.registration, SessionIdle: rules.sessionIdle, SessionMax: rules.sessionMax,
		PasswordMin: rules.passwordMin, Throttle: rules.throttle, KeyLife: rules.keyLife, AuditLife: rules.auditLife,
		Mailer: rules.mail.mailer(logger), MailFrom: rules.mail.from, MailTemplates: rules.mail.templates,
		Logger: logger,
	})
	if err != nil {
		return nil, nil, fmt.Errorf("build auth: %w", err)
	}
	server, err := rpc.NewServer(rpc.ServerConfig{
		Logger: logger, Level: level, Authorizer: rpc.ServicesOnly(keys, roleAuth), Telemetry: ops.telemetry, Internal: true,
	}, service.Register)
	if err != nil {
		return nil, nil, fmt.Errorf("build auth: %w", err)
	}
	return service, server, nil
}

// mailer is how mail leaves; nil if it doesn't.
func (r mailRules) mailer(logger *slog.Logger) auth.Mailer {
	switch {
	case r.smtp != nil:
		return r.smtp
	case r.mailbox != "":
		return post.NewMailbox(r.mailbox, logger)
	}
	return nil
}

// newGateway builds a gateway that reaches auth and users, and knows by their
// parts whether they are well.
func newGateway(toAuth, toUsers *connect.Client, authPart, usersPart part, edge edge, ops *operations, logger *slog.Logger) (*bff.Service, error) {
	gateway, err := bff.New(bff.Config{
		Auth: toAuth, Users: toUsers, PublicURL: edge.publicURL, Origins: edge.origins, Cookies: edge.cookies, TrustedProxies: edge.proxies,
		Policy: edge.policy, Throttle: edge.throttle, QueueTarget: edge.queueTarget, RedisURL: edge.redisURL, CacheBytes: edge.cache,
		Parts:  []bff.Part{{Name: roleAuth, Check: authPart.check}, {Name: roleUsers, Check: usersPart.check}},
		Logger: logger.With("service", roleBff), Telemetry: ops.telemetry,
	})
	if err != nil {
		return nil, fmt.Errorf("build the gateway: %w", err)
	}
	return gateway, nil
}
