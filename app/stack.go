package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/alecthomas/kong"
	"github.com/jackc/pgx/v5/pgxpool"

	"gatehouse/app/ops"
	"gatehouse/internal/database"
	"gatehouse/internal/dial"
	"gatehouse/internal/rpc"
)

// StackConfig has the services of a stack and their settings.
type StackConfig struct {
	// Schema is the text of schema.sql. The databases must have it already.
	Schema string
	// Services are the names of the services to run in this process, the front
	// service last; all of them if empty.
	Services []string
	// Settings are the settings by their environment names, as serve reads them
	// for all services, and as its own command for a single one. A missing one has
	// the value in the process's environment, or its default.
	Settings map[string]string
	// Logger gets the services' log; nil for none.
	Logger *slog.Logger
}

// Stack is services that run together in one process: it opens their databases,
// builds them, and connects each to those that it calls, in process where they
// are part of the stack and over the network otherwise.
type Stack struct {
	settings *settings
	logger   *slog.Logger
	schema   string // text of schema.sql
	logins   map[string]login
	ops      *ops.Operations
	members  map[string]*member
	front    *member // answers the callers of the process
}

// member is a service of a stack.
type member struct {
	Definition
	*built
	db      *pgxpool.Pool     // nil without a schema
	standby *database.Standby // nil without one
	server  *rpc.Server       // nil without methods for other services
}

// NewStack builds a stack from settings. Close it after use. Its services do
// their background work while Run runs, and answer through Handler.
func NewStack(ctx context.Context, config StackConfig) (*Stack, error) {
	var definitions []Definition
	for _, name := range config.Services {
		definition, err := serviceNamed(name)
		if err != nil {
			return nil, err
		}
		definitions = append(definitions, definition)
	}
	command := commandServe
	switch len(definitions) {
	case 0:
		definitions = Services()
	case 1:
		command = definitions[0].Name
	}
	settings := newSettings(command, definitions...)
	if err := settings.parse(config.Settings); err != nil {
		return nil, err
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	return newStack(ctx, &Stack{settings: settings, logger: config.Logger, schema: config.Schema})
}

// parse sets and checks the settings by their environment names.
func (s *settings) parse(values map[string]string) error {
	var command struct{ kong.Plugins }
	command.Plugins = s.flags()
	parser, err := kong.New(&command, kong.Name("gatehouse"), kong.Writers(io.Discard, io.Discard))
	if err != nil {
		return err
	}
	s.setDefaults(parser.Model.Node)
	left, args := maps.Clone(values), []string{}
	for _, flag := range parser.Model.Flags {
		for _, name := range flag.Envs {
			if value, ok := values[name]; ok {
				args = append(args, "--"+flag.Name+"="+value)
				delete(left, name)
			}
		}
	}
	var p problems
	for _, name := range slices.Sorted(maps.Keys(left)) {
		p.add(name, "is not a setting of "+s.command, "leave it out")
	}
	if _, err := parser.Parse(args); err != nil {
		p.add("", err.Error(), "")
	}
	if len(p) == 0 {
		s.checkValues(&p)
	}
	return p.err()
}

// newStack opens the databases, builds the services, and joins them. It closes
// everything if it fails.
func newStack(ctx context.Context, s *Stack) (_ *Stack, err error) {
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	s.members = map[string]*member{}
	if s.logins == nil {
		if s.logins, err = s.settings.deriveLogins(); err != nil {
			return nil, err
		}
	}
	if s.ops, err = s.startOps(ctx); err != nil {
		return nil, err
	}
	definitions := s.settings.services
	if err := s.openDatabases(ctx, definitions); err != nil {
		return nil, err
	}
	for _, definition := range definitions {
		if err := s.build(ctx, definition.Name, nil); err != nil {
			return nil, err
		}
	}
	s.front = s.members[definitions[len(definitions)-1].Name]
	for _, definition := range definitions {
		measure := s.members[definition.Name].measure
		if measure == nil {
			continue
		}
		if err := s.ops.Measure(measure); err != nil {
			return nil, err
		}
		maps.Copy(s.ops.Pages, s.members[definition.Name].pages)
	}
	for _, definition := range definitions {
		if prepare := s.members[definition.Name].prepare; prepare != nil {
			if err := prepare(ctx); err != nil {
				return nil, err
			}
		}
	}
	return s, nil
}

// roleAll is what operators see of a process that runs all services.
const roleAll = "all"

func (s *Stack) startOps(ctx context.Context) (*ops.Operations, error) {
	role, name := roleAll, "gatehouse"
	if len(s.settings.services) == 1 {
		role = s.settings.services[0].Name
		name += "-" + role
	}
	flags := find[*opsFlags](s.settings)
	return ops.Start(ctx, ops.Config{
		Role: role, Name: name, Version: thisBuild(s.schema).name(), Listen: flags.OpsListen, Hosts: flags.hosts, Traces: flags.traces, Logger: s.logger,
	})
}

func (s *Stack) openDatabases(ctx context.Context, definitions []Definition) error {
	for _, definition := range definitions {
		m := &member{Definition: definition}
		if definition.HasTables() {
			db, err := openDatabase(ctx, s.logins[definition.Name], definition.Name, definition.schemaText(s.schema))
			if err != nil {
				return err
			}
			m.db = db
			if m.standby, err = s.openStandby(ctx, definition.Name); err != nil {
				db.Close()
				return err
			}
		}
		s.members[definition.Name] = m
	}
	return nil
}

// build builds a service after those that it calls. callers are the services
// that wait for it.
func (s *Stack) build(ctx context.Context, name string, callers []string) error {
	m := s.members[name]
	if m.built != nil {
		return nil
	}
	if slices.Contains(callers, name) {
		return fmt.Errorf("the services %s call each other in a circle", strings.Join(append(callers, name), ", "))
	}
	h := &host{
		settings: s.settings, db: m.db, standby: m.standby, logger: s.logger.With("service", name), telemetry: s.ops.Telemetry,
		peers: map[string]*connect.Client{}, accountReaders: accountReaders(),
	}
	for _, call := range m.AllCalls() {
		if s.members[call.Service] != nil && !call.later {
			if err := s.build(ctx, call.Service, append(callers, name)); err != nil {
				return err
			}
		}
		client, err := s.connect(name, call)
		if err != nil {
			return err
		}
		h.peers[call.Service] = client
		if client == nil {
			continue
		}
		callee, err := serviceNamed(call.Service)
		if err != nil {
			return err
		}
		h.backends = append(h.backends, callee.Backend(client))
		check := s.peerCheck(call.Service)
		check.Name = call.Service
		h.checks = append(h.checks, check)
	}
	var err error
	if m.built, err = m.Definition.build(ctx, h); err == nil {
		err = errors.Join(h.check(), m.checkServed(m.register))
	}
	if err != nil {
		return fmt.Errorf("build %s: %w", name, err)
	}
	if m.register == nil {
		return nil
	}
	level := slog.LevelInfo
	if len(s.members) > 1 { // the gateway logs the request that causes the call
		level = slog.LevelDebug
	}
	m.server, err = rpc.NewServer(rpc.ServerConfig{
		Logger: h.logger, Level: level, Authorizer: rpc.ServicesOnly(find[*internalFlags](s.settings).keys, name), Telemetry: s.ops.Telemetry, Internal: true,
		IsUnavailable: database.IsUnavailable,
	}, m.register)
	if err != nil {
		return fmt.Errorf("build %s: %w", name, err)
	}
	return nil
}

// connect returns a client of a service, in process where it is part of the
// stack. It is nil for an optional call without a URL.
func (s *Stack) connect(caller string, call Call) (*connect.Client, error) {
	route := dial.Route{
		Caller: caller, Callee: call.Service, Keys: find[*internalFlags](s.settings).keys, Telemetry: s.ops.Telemetry, Persistent: call.Persistent,
	}
	if callee := s.members[call.Service]; callee != nil && call.later {
		return dial.InProcessLater(route, func() *rpc.Server { return callee.server })
	} else if callee != nil {
		return dial.InProcess(route, callee.server)
	}
	if call.optional && s.settings.peers[call.Service].URL == "" {
		return nil, nil
	}
	if !call.Persistent { // a caller that repeats its calls logs their failures itself
		route.Logger = s.logger.With("service", caller)
	}
	return dial.Dial(route, s.settings.peers[call.Service].URL)
}

// Service returns a service of the stack: an *auth.Service and so on; nil if the
// stack doesn't run it.
func (s *Stack) Service(name string) any {
	if m := s.members[name]; m != nil {
		return m.service
	}
	return nil
}

// Handler answers the callers of the stack's front service.
func (s *Stack) Handler() http.Handler { return s.handler(s.front) }

func (s *Stack) handler(m *member) http.Handler {
	if m.handler != nil {
		return m.handler
	}
	return m.server.Mux(s.publicReady(m))
}

// Ready returns why the front service is not ready; nil if it is.
func (s *Stack) Ready() error {
	if s.front.ready != nil {
		return s.front.ready()
	}
	return s.publicReady(s.front)()
}

// Readiness is public, so these errors name no host and no user.
var (
	errReadOnlyDatabase = errors.New("its database accepts no writes: unless a failover is in progress, name the server that takes writes in its database URL")
	errUnusableDatabase = errors.New("its database can't be used: run gatehouse doctor where the service runs")
)

// publicReady checks a service's database.
func (s *Stack) publicReady(m *member) func() error {
	return func() error {
		if m.db == nil {
			return nil
		}
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		err := databaseUsable(ctx, m.db, m.Name, m.schemaText(s.schema))
		switch {
		case errors.Is(err, database.ErrReadOnly):
			return errReadOnlyDatabase
		case err != nil:
			return errUnusableDatabase
		}
		return nil
	}
}

// checks are the readiness checks that operators see. The front service requires its
// own, and is ready while another service is down.
func (s *Stack) checks() []ops.Check {
	var checks []ops.Check
	if s.front.ready != nil {
		checks = append(checks, ops.Check{Name: s.front.readyCheck, Required: true, Run: func(context.Context) error { return s.front.ready() }})
	}
	if s.front.db != nil {
		check := s.peerCheck(s.front.Name)
		check.Required = true
		checks = append(checks, check)
	}
	for _, service := range Services() {
		peer := s.settings.peers[service.Name]
		if service.Name != s.front.Name && (s.members[service.Name] != nil || peer != nil && peer.URL != "") {
			checks = append(checks, s.peerCheck(service.Name))
		}
	}
	return append(checks, s.front.checks...)
}

// peerCheck checks a service: its database where it runs in this process, its
// own readiness where it runs elsewhere.
func (s *Stack) peerCheck(service string) ops.Check {
	m := s.members[service]
	switch {
	case m == nil:
		return ops.Check{Name: service, Run: func(ctx context.Context) error {
			answer, err := dial.Probe(ctx, s.settings.peers[service].URL)
			if err == nil && !answer.Ready {
				err = errors.New(answer.Text)
			}
			return err
		}}
	case m.db == nil:
		return ops.Check{Name: service, Run: func(context.Context) error { return nil }}
	}
	return ops.Check{Name: "database of " + service, Run: func(ctx context.Context) error {
		return databaseUsable(ctx, m.db, service, m.schemaText(s.schema))
	}}
}

// Run does the background work of all services, and returns when ctx has ended
// and all of it has stopped.
func (s *Stack) Run(ctx context.Context) {
	var group sync.WaitGroup
	for _, m := range s.members {
		if m.run != nil {
			group.Go(func() { m.run(ctx) })
		}
	}
	group.Wait()
}

// Close closes the databases and flushes the telemetry. Call it once nothing is
// served and Run has returned.
func (s *Stack) Close() {
	for _, m := range s.members {
		if m.db != nil {
			m.db.Close()
			m.standby.Close()
		}
	}
	if s.ops != nil {
		s.ops.Stop()
	}
}
