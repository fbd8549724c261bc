package main

import (
	"context"
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
	return house{
		listen: f.Listen, logger: logger,
		keys: f.internalFlags.parse(m), secrets: f.secretFlags.parse(m),
		edge: edge, rules: f.accountFlags.parse(m, registration, edge.publicURL),
	}
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
	return h.run(p.ctx, func(*bff.Service, *auth.Service) error {
		p.logger.Info("ready", "url", h.edge.publicURL, "listen", c.Listen)
		return nil
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
	logger  *slog.Logger
}

// run serves until ctx ends. It calls ready once everything answers.
func (h *house) run(ctx context.Context, ready func(*bff.Service, *auth.Service) error) error {
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

	usersServer, err := newUsersServer(usersDB, h.keys, h.logger, slog.LevelDebug)
	if err != nil {
		return err
	}
	relay, err := rpc.InProcess(rpc.Route{Caller: roleAuth, Callee: roleUsers, Keys: h.keys}, usersServer)
	if err != nil {
		return err
	}
	authService, authServer, err := newAuthServer(ctx, authDB, relay, h.keys, h.secrets, h.edge.publicURL, h.rules, h.logger, slog.LevelDebug)
	if err != nil {
		return err
	}
	toAuth, err := rpc.InProcess(rpc.Route{Caller: roleBff, Callee: roleAuth, Keys: h.keys}, authServer)
	if err != nil {
		return err
	}
	toUsers, err := rpc.InProcess(rpc.Route{Caller: roleBff, Callee: roleUsers, Keys: h.keys}, usersServer)
	if err != nil {
		return err
	}
	gateway, err := newGateway(toAuth, toUsers, h.edge, h.logger)
	if err != nil {
		return err
	}
	return serve(ctx, h.listen, gateway, h.logger, []func(context.Context){gateway.Run, authService.Run}, func(ctx context.Context) error {
		if err := untilReady(ctx, gateway.Ready); err != nil {
			return err
		}
		return ready(gateway, authService)
	})
}

// serve listens, runs what goes on beside, calls ready, and returns when ctx
// has ended and all of it has stopped.
func serve(ctx context.Context, address string, handler http.Handler, logger *slog.Logger, beside []func(context.Context), ready func(context.Context) error) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("listen: %w: stop what listens there, or set GATEHOUSE_LISTEN to another address", err)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return rpc.Serve(ctx, listener, handler, logger) })
	for _, work := range beside {
		group.Go(func() error { work(ctx); return nil })
	}
	group.Go(func() error { return ready(ctx) })
	return group.Wait()
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
	UsersURL     string `env:"USERS_URL" placeholder:"URL" help:"Where users is."`
	authDatabaseFlags
	internalFlags
	secretFlags
	publicFlags
	accountFlags
}

func (c *authCommand) Run(p *program, app *kong.Application) error {
	var m mistakes
	checkNames(&m, app, os.Environ())
	parseListen(&m, c.Listen)
	checkDatabaseURL(&m, "AUTH_DATABASE_URL", c.AuthDatabaseURL, true)
	parsePeer(&m, "USERS_URL", c.UsersURL)
	keys, secrets := c.internalFlags.parse(&m), c.secretFlags.parse(&m)
	issuer := c.publicFlags.parse(&m, "")
	rules := c.accountFlags.parse(&m, c.Registration, issuer)
	if err := m.err(); err != nil {
		return err
	}
	db, err := openDatabase(p.ctx, c.AuthDatabaseURL, schema.Auth)
	if err != nil {
		return err
	}
	defer db.Close()
	relay, err := rpc.Dial(rpc.Route{Caller: roleAuth, Callee: roleUsers, Keys: keys}, c.UsersURL)
	if err != nil {
		return err
	}
	service, server, err := newAuthServer(p.ctx, db, relay, keys, secrets, issuer, rules, p.logger, slog.LevelInfo)
	if err != nil {
		return err
	}
	if rules.adminPassword != "" {
		if _, err := service.EnsureAdministrator(p.ctx, rules.adminEmail, rules.adminPassword); err != nil {
			return err
		}
	}
	mux := server.Mux(databaseReady(db, schema.Auth))
	return serve(p.ctx, c.Listen, mux, p.logger, []func(context.Context){service.Run}, sayReady(p.logger, c.Listen))
}

// usersCommand runs users alone.
type usersCommand struct {
	Listen string `env:"GATEHOUSE_LISTEN" default:"127.0.0.1:8003" placeholder:"ADDRESS" help:"Where it listens."`
	usersDatabaseFlags
	internalFlags
}

func (c *usersCommand) Run(p *program, app *kong.Application) error {
	var m mistakes
	checkNames(&m, app, os.Environ())
	parseListen(&m, c.Listen)
	checkDatabaseURL(&m, "USERS_DATABASE_URL", c.UsersDatabaseURL, true)
	keys := c.internalFlags.parse(&m)
	if err := m.err(); err != nil {
		return err
	}
	db, err := openDatabase(p.ctx, c.UsersDatabaseURL, schema.Users)
	if err != nil {
		return err
	}
	defer db.Close()
	server, err := newUsersServer(db, keys, p.logger, slog.LevelInfo)
	if err != nil {
		return err
	}
	return serve(p.ctx, c.Listen, server.Mux(databaseReady(db, schema.Users)), p.logger, nil, sayReady(p.logger, c.Listen))
}

// bffCommand runs the gateway alone.
type bffCommand struct {
	Listen   string `env:"GATEHOUSE_LISTEN" default:"127.0.0.1:8001" placeholder:"ADDRESS" help:"Where it listens."`
	AuthURL  string `env:"AUTH_URL" placeholder:"URL" help:"Where auth is."`
	UsersURL string `env:"USERS_URL" placeholder:"URL" help:"Where users is."`
	internalFlags
	edgeFlags
}

func (c *bffCommand) Run(p *program, app *kong.Application) error {
	var m mistakes
	checkNames(&m, app, os.Environ())
	parseListen(&m, c.Listen)
	parsePeer(&m, "AUTH_URL", c.AuthURL)
	parsePeer(&m, "USERS_URL", c.UsersURL)
	keys, edge := c.internalFlags.parse(&m), c.edgeFlags.parse(&m, "")
	if err := m.err(); err != nil {
		return err
	}
	toAuth, err := rpc.Dial(rpc.Route{Caller: roleBff, Callee: roleAuth, Keys: keys}, c.AuthURL)
	if err != nil {
		return err
	}
	toUsers, err := rpc.Dial(rpc.Route{Caller: roleBff, Callee: roleUsers, Keys: keys}, c.UsersURL)
	if err != nil {
		return err
	}
	gateway, err := newGateway(toAuth, toUsers, edge, p.logger)
	if err != nil {
		return err
	}
	say := sayReady(p.logger, c.Listen)
	return serve(p.ctx, c.Listen, gateway, p.logger, []func(context.Context){gateway.Run}, func(ctx context.Context) error {
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

func newUsersServer(db *pgxpool.Pool, keys rpc.InternalKeys, logger *slog.Logger, level slog.Level) (*rpc.Server, error) {
	logger = logger.With("service", roleUsers)
	service := users.New(users.Config{DB: db, Logger: logger, Step: step})
	server, err := rpc.NewServer(rpc.ServerConfig{Logger: logger, Level: level, Authorizer: rpc.ServicesOnly(keys, roleUsers)}, service.Register)
	if err != nil {
		return nil, fmt.Errorf("build users: %w", err)
	}
	return server, nil
}

func newAuthServer(ctx context.Context, db *pgxpool.Pool, relay *connect.Client, keys rpc.InternalKeys, secrets [][]byte,
	issuer string, rules accountRules, logger *slog.Logger, level slog.Level,
) (*auth.Service, *rpc.Server, error) {
	logger = logger.With("service", roleAuth)
	service, err := auth.New(ctx, auth.Config{
		DB: db, Users: usersv1.NewRelayServiceClient(relay), Secrets: secrets, Issuer: issuer,
		Registration: rules.registration, SessionIdle: rules.sessionIdle, SessionMax: rules.sessionMax,
		PasswordMin: rules.passwordMin, Throttle: rules.throttle, KeyLife: rules.keyLife, AuditLife: rules.auditLife,
		Mailer: rules.mail.mailer(logger), MailFrom: rules.mail.from, MailTemplates: rules.mail.templates,
		Logger: logger, Step: step,
	})
	if err != nil {
		return nil, nil, fmt.Errorf("build auth: %w", err)
	}
	server, err := rpc.NewServer(rpc.ServerConfig{Logger: logger, Level: level, Authorizer: rpc.ServicesOnly(keys, roleAuth)}, service.Register)
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

func newGateway(toAuth, toUsers *connect.Client, edge edge, logger *slog.Logger) (*bff.Service, error) {
	gateway, err := bff.New(bff.Config{
		Auth: toAuth, Users: toUsers, PublicURL: edge.publicURL, Origins: edge.origins, TrustedProxies: edge.proxies,
		Logger: logger.With("service", roleBff), Step: step,
	})
	if err != nil {
		return nil, fmt.Errorf("build the gateway: %w", err)
	}
	return gateway, nil
}
