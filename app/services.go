package app

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"

	"connectrpc.com/connect/v2"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.opentelemetry.io/otel/metric"

	"gatehouse/app/doctor"
	"gatehouse/app/ops"
	"gatehouse/internal/serve"
	"gatehouse/internal/telemetry"
)

// Services returns the definitions of all services. It is the only list of them:
// commands, settings, wiring, database roles, readiness, the doctor and the
// reference pages derive from it. The last one is the gateway, which answers for
// all of them when they run in one process.
func Services() []Definition {
	return []Definition{authService, usersService, bffService}
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
	// Schema says that the service has tables, in the Postgres schema of its
	// name, which schema.sql declares.
	Schema bool
	// Calls are the services that it calls.
	Calls []Call

	// settings returns the groups of settings that it reads besides those that
	// every service reads; nil for none.
	settings func() []group
	// build builds the service.
	build func(ctx context.Context, host *host) (*built, error)
	// probe makes a call that changes nothing, as the service caller. It returns
	// the public URL that the service was started with, if it knows one.
	probe func(ctx context.Context, client *connect.Client, caller string) (publicURL string, err error)
	// examine lets the doctor look at what the service depends on besides its
	// database and the services that it calls; nil for nothing.
	examine func(report *doctor.Report, s *settings, testMail string)
	// examineDatabase lets the doctor look at the service's own tables; nil for
	// nothing.
	examineDatabase func(ctx context.Context, report *doctor.Report, conn *pgx.Conn, s *settings)
}

// Call is a service that another one calls.
type Call struct {
	Service string
	// Persistent says that the caller repeats each call until it succeeds, at a
	// pace of its own: the client then neither retries nor fails fast.
	Persistent bool
}

// host is what a service is built from.
type host struct {
	settings  *settings
	db        *pgxpool.Pool // nil without a schema
	logger    *slog.Logger  // labelled with the service's name
	telemetry *telemetry.Telemetry

	peers  map[string]*connect.Client
	checks []ops.Check
}

// peer returns a client of a service that the definition calls. Whether that
// service runs in this process makes no difference.
func (h *host) peer(service string) *connect.Client { return h.peers[service] }

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
	// ready returns what keeps the service from answering, besides its database;
	// nil for nothing.
	ready func() error
	// readyCheck is the name of the check that calls ready.
	readyCheck string
	// checks examine further dependencies of the service.
	checks []ops.Check
	// pages are for the operators' listener, by pattern; nil for none.
	pages map[string]http.Handler
	// prepare runs before the process listens; nil for nothing.
	prepare func(context.Context) error
	// run runs background work until its context ends.
	run func(context.Context)
	// measure registers metrics.
	measure func(metric.Meter) error
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

// probeAs returns the service's probe for one caller.
func (d Definition) probeAs(caller string) func(context.Context, *connect.Client) (string, error) {
	return func(ctx context.Context, client *connect.Client) (string, error) { return d.probe(ctx, client, caller) }
}
