package app

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	"connectrpc.com/connect/v2"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.opentelemetry.io/otel/metric"

	"gatehouse/app/doctor"
	"gatehouse/app/ops"
	"gatehouse/auth"
	"gatehouse/bff"
	"gatehouse/internal/database"
	"gatehouse/internal/serve"
	"gatehouse/internal/telemetry"
)

// Services returns the definitions of all services. It is the only list of them:
// commands, settings, wiring, database roles, readiness, the doctor and the
// reference pages derive from it. The last one is the gateway, which answers for
// all of them when they run in one process.
func Services() []Definition {
	return behindGateway([]Definition{authService, usersService, bffService})
}

// behindGateway lets the gateway, the last service, call each service that publishes
// methods, adds a part to GetMe, tells of changes or holds data about people.
func behindGateway(services []Definition) []Definition {
	gateway := &services[len(services)-1]
	gateway.Calls = nil
	for _, service := range services[:len(services)-1] {
		if service.Public.Register != nil || service.Public.Me != nil || len(service.Tells) > 0 || service.Person {
			gateway.Calls = append(gateway.Calls, Call{Service: service.Name})
		}
	}
	return services
}

// backends are the services behind the gateway, without clients.
func backends() []bff.Backend {
	var all []bff.Backend
	for _, service := range Services() {
		all = append(all, service.Backend(nil))
	}
	return all
}

// Backend is the service as the gateway sees it.
func (d Definition) Backend(client *connect.Client) bff.Backend {
	return bff.Backend{Name: d.Name, Client: client, Tells: d.Tells, Person: d.Person, Extension: d.Public}
}

// Definition describes one service.
type Definition struct {
	// Name is the service's command and role, the name of its Postgres schema and
	// of its login role, its label in logs and metrics, and the prefix of its
	// settings: AUTH_URL and AUTH_DATABASE_URL.
	Name string
	// Help is the help line of its command.
	Help string
	// Listen is the default of GATEHOUSE_LISTEN. No two services share a port.
	Listen string
	// Schema is the text of the service's own schema.sql, NAME/schema.sql, which
	// has a number of its own and declares the Postgres schema of its name.
	Schema string
	// RootSchema says that schema.sql at the root declares that schema instead. A
	// service with neither has no database.
	RootSchema bool
	// Serves are the proto services that it serves for other services, such as
	// "users.v1.ProfileService", without those of service.v1.
	Serves []string
	// Calls are the services that it calls. The gateway calls every service that is
	// behind it, without an entry here.
	Calls []Call
	// Tells are the kinds of cache tags that its change feed reports, such as
	// "profile"; none for a service without a change feed.
	Tells []string
	// Public is its part of the public API.
	Public bff.Extension
	// Lifecycle says which changes of accounts it follows.
	Lifecycle Lifecycle
	// Person says that it holds data about people. The data is exported with a person
	// and erased with their account.
	Person bool

	// settings returns the groups of settings that it reads besides those that
	// every service reads; nil for none.
	settings func() []group
	// build builds the service.
	build func(ctx context.Context, host *host) (*built, error)
	// probe makes a call that changes nothing, as the service caller. It returns
	// the public URL that the service was started with, if it knows one. Without
	// it, the doctor calls a method that only reads (see defaultProbe).
	probe func(ctx context.Context, client *connect.Client, caller string) (publicURL string, err error)
	// examine lets the doctor look at what the service depends on besides its
	// database and the services that it calls; nil for nothing.
	examine func(report *doctor.Report, s *settings, testMail string)
	// examineDatabase lets the doctor look at the service's own tables; nil for
	// nothing.
	examineDatabase func(ctx context.Context, report *doctor.Report, conn *pgx.Conn, s *settings)
}

// Lifecycle says which changes of accounts a service follows.
type Lifecycle string

const (
	// LifecycleNone is a service that follows none.
	LifecycleNone Lifecycle = ""
	// LifecycleDeletions is a service that learns which accounts are deleted.
	LifecycleDeletions Lifecycle = "deletions"
	// LifecycleAll is a service that learns of every change of an account.
	LifecycleAll Lifecycle = "all"
)

// AllCalls are the services that it calls, with auth if it reads changes of accounts.
func (d Definition) AllCalls() []Call {
	if d.Lifecycle == LifecycleNone || slices.ContainsFunc(d.Calls, func(c Call) bool { return c.Service == roleAuth }) {
		return d.Calls
	}
	return append(slices.Clone(d.Calls), accountFeed)
}

// accountFeed is the call of a service that reads changes of accounts. It repeats
// each read until auth answers. auth may call the service too, so auth is built
// later where both run in one process.
var accountFeed = Call{Service: roleAuth, Persistent: true, later: true}

// accountReaders are the services that read changes of accounts.
func accountReaders() []auth.Reader {
	var readers []auth.Reader
	for _, service := range Services() {
		if service.Lifecycle != LifecycleNone {
			readers = append(readers, auth.Reader{Service: service.Name, DeletionsOnly: service.Lifecycle == LifecycleDeletions})
		}
	}
	return readers
}

// Call is a service that another one calls.
type Call struct {
	Service string
	// Persistent says that the caller repeats each call until it succeeds, at a
	// pace of its own: the client then neither retries nor fails fast.
	Persistent bool
	// later says that the callee may be built after the caller, which does not call
	// it before it runs.
	later bool
	// optional says that the caller works without it if the URL is not set.
	optional bool
}

// host has the dependencies from which a service is built.
type host struct {
	settings  *settings
	db        *pgxpool.Pool     // nil without a schema
	standby   *database.Standby // nil without one
	logger    *slog.Logger      // labelled with the service's name
	telemetry *telemetry.Telemetry

	peers    map[string]*connect.Client
	missing  []string // services that were asked for, and that the definition does not call
	backends []bff.Backend
	checks   []ops.Check
	// accountReaders are the services that read changes of accounts.
	accountReaders []auth.Reader
}

// peer returns a client of a service that the definition calls. Whether that
// service runs in this process makes no difference. The start is refused when a
// service asks for one that its definition does not call. The client of an optional
// call without a URL is nil.
func (h *host) peer(service string) *connect.Client {
	client, called := h.peers[service]
	if !called {
		h.missing = append(h.missing, service)
	}
	return client
}

// check returns an error for peers that are missing.
func (h *host) check() error {
	if len(h.missing) > 0 {
		return fmt.Errorf("it asks for the service %s, which its definition does not call: add it to Calls", strings.Join(h.missing, ", "))
	}
	return nil
}

// built is a service as it was built.
type built struct {
	// service is what was built: *auth.Service and so on.
	service any
	// register registers the methods that other services call. A service
	// without it answers the public, with handler.
	register func(*connect.Server)
	handler  http.Handler
	// connLimits bound the connections of the public; nil for no limits.
	connLimits *serve.ConnLimits
	// ready returns why the service is not ready, besides its database. The field
	// is nil if there is no other reason.
	ready func() error
	// readyCheck is the name of the check that calls ready.
	readyCheck string
	// checks examine further dependencies of the service.
	checks []ops.Check
	// pages are for the operators' listener, by pattern; nil for none.
	pages map[string]http.Handler
	// prepare runs before the process listens; nil for nothing.
	prepare func(context.Context) error
	// run runs background work until its context ends; nil for none.
	run func(context.Context)
	// measure registers metrics; nil for none.
	measure func(metric.Meter) error
}

// HasTables reports whether the service has a database.
func (d Definition) HasTables() bool { return d.RootSchema || d.Schema != "" }

// schemaText returns the text that declares the service's tables. root is that of
// schema.sql at the root.
func (d Definition) schemaText(root string) string {
	if d.RootSchema {
		return root
	}
	return d.Schema
}

// ownSchemas are the texts of the services that have a schema.sql of their own.
func ownSchemas() map[string]string {
	texts := map[string]string{}
	for _, service := range Services() {
		if service.Schema != "" {
			texts[service.Name] = service.Schema
		}
	}
	return texts
}

// serviceNamed returns the definition with that name.
func serviceNamed(name string) (Definition, error) {
	all := Services()
	i := slices.IndexFunc(all, func(d Definition) bool { return d.Name == name })
	if i < 0 {
		return Definition{}, fmt.Errorf("unknown service %q", name)
	}
	return all[i], nil
}
