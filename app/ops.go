package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.opentelemetry.io/otel/metric"

	"gatehouse/internal/dial"
	"gatehouse/internal/serve"
	"gatehouse/internal/telemetry"
)

// opsFlags say what operators get to see. The variables that begin with OTEL_
// are OpenTelemetry's own.
type opsFlags struct {
	OpsListen string `env:"GATEHOUSE_OPS_LISTEN" placeholder:"ADDRESS" help:"Where operators find /metrics, /debug/pprof and /readyz in detail, such as 127.0.0.1:9001; nowhere if empty. It asks nobody who they are: keep it private."`
	OpsHosts  string `env:"GATEHOUSE_OPS_HOSTS" placeholder:"LIST" help:"Host names by which operators reach that listener, comma-separated. Without any: IP addresses, names without a dot, localhost, .svc, .cluster.local, .internal, and this machine's own name."`
}

// operations is what operators get to see of a process.
type operations struct {
	role, listen string
	hosts        opsHosts
	traces       bool
	// telemetry is nil while there is nobody to tell anything.
	telemetry *telemetry.Telemetry
}

// parse checks the flags of a role, which listens at listen for its callers.
func (f opsFlags) parse(m *mistakes, role, listen string) *operations {
	o := &operations{role: role, listen: f.OpsListen, traces: wantsTraces(m, os.Getenv)}
	if f.OpsListen == "" {
		return o
	}
	o.hosts = parseOpsHosts(m, f.OpsListen, f.OpsHosts)
	if _, _, err := net.SplitHostPort(f.OpsListen); err != nil {
		m.add("GATEHOUSE_OPS_LISTEN", fmt.Sprintf("%q is not an address", f.OpsListen), "give a host and a port, such as 127.0.0.1:9001")
	}
	if f.OpsListen == listen {
		m.add("GATEHOUSE_OPS_LISTEN", fmt.Sprintf("%q is GATEHOUSE_LISTEN too", f.OpsListen), "give it a port of its own, which callers can't reach")
	}
	return o
}

// wantsTraces reports whether the environment names a collector of traces, by
// the names of the OpenTelemetry specification.
func wantsTraces(m *mistakes, getenv func(string) string) bool {
	// The variable that is for traces alone goes before the one for everything.
	first := func(names ...string) (name, value string) {
		for _, name := range names {
			if value := getenv(name); value != "" {
				return name, value
			}
		}
		return "", ""
	}
	name, endpoint := first("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
	if endpoint == "" || getenv("OTEL_SDK_DISABLED") == "true" || getenv("OTEL_TRACES_EXPORTER") == "none" {
		return false
	}
	checkURL(m, name, endpoint)
	if exporter := getenv("OTEL_TRACES_EXPORTER"); exporter != "" && exporter != "otlp" {
		m.add("OTEL_TRACES_EXPORTER", fmt.Sprintf("%q can't be sent", exporter), "set it to otlp or none")
	}
	name, protocol := first("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
	if protocol != "" && protocol != "http/protobuf" && protocol != "http/json" {
		m.add(name, fmt.Sprintf("%q can't be spoken", protocol), "set it to http/protobuf, which collectors take on port 4318")
	}
	return true
}

// start begins to make what is wanted. Without anybody to tell it does nothing.
func (o *operations) start(ctx context.Context, logger *slog.Logger) error {
	if o.listen == "" && !o.traces {
		return nil
	}
	name := "gatehouse"
	if o.role != roleAll {
		name += "-" + o.role
	}
	told, err := telemetry.New(ctx, telemetry.Config{
		Name: name, Version: builtVersion(), Metrics: o.listen != "", Traces: o.traces, Logger: logger,
	})
	if err != nil {
		return err
	}
	told.Use()
	o.telemetry = told
	return nil
}

// lastWords is how long a process that stops waits for its collector.
const lastWords = 2 * time.Second

// stop sends what is left to send. Call it once nothing is served any more.
func (o *operations) stop(logger *slog.Logger) {
	if o.telemetry == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), lastWords)
	defer cancel()
	if err := o.telemetry.Stop(ctx); err != nil {
		logger.Warn("telemetry is lost", "cause", err.Error())
	}
}

// measured is a service that has something to show when metrics are asked for.
type measured interface{ Measure(metric.Meter) error }

func (o *operations) measure(services ...measured) error {
	if o.listen == "" {
		return nil
	}
	meter := o.telemetry.Meters().Meter(telemetry.Scope)
	for _, service := range services {
		if err := service.Measure(meter); err != nil {
			return err
		}
	}
	return nil
}

// begin listens, and returns what serves until its context ends.
func (o *operations) begin(ctx context.Context, parts []part, logger *slog.Logger) (func(context.Context) error, error) {
	if o.listen == "" {
		return func(context.Context) error { return nil }, nil
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", o.listen)
	if err != nil {
		return nil, fmt.Errorf("listen for operators: %w: stop what listens there, or set GATEHOUSE_OPS_LISTEN to another address", err)
	}
	logger.Info("operations", "listen", o.listen)
	return func(ctx context.Context) error {
		return serve.Run(ctx, listener, o.hosts.handler(o.handler(parts)), logger)
	}, nil
}

// handler is what operators see.
func (o *operations) handler(parts []part) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", o.telemetry.Handler())
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write([]byte("ok\n"))
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		now := look(r.Context(), parts)
		now.Role, now.Version = o.role, builtVersion()
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		if !now.Ready {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		_ = encoder.Encode(now)
	})
	return mux
}

// part is something that a role stands on.
type part struct {
	name string
	// needed says that the role can't do its own part without.
	needed bool
	check  func(context.Context) error
}

// readiness is what /readyz tells operators.
type readiness struct {
	Ready   bool        `json:"ready"`
	Role    string      `json:"role"`
	Version string      `json:"version"`
	Parts   []partState `json:"parts"`
}

type partState struct {
	Part   string `json:"part"`
	Ready  bool   `json:"ready"`
	Needed bool   `json:"needed"`
	Reason string `json:"reason,omitempty"`
}

const partLimit = 2 * time.Second

// look checks all parts at the same time.
func look(ctx context.Context, parts []part) readiness {
	ctx, cancel := context.WithTimeout(ctx, partLimit)
	defer cancel()
	now := readiness{Ready: true, Parts: make([]partState, len(parts))}
	var group sync.WaitGroup
	for i, p := range parts {
		group.Go(func() {
			now.Parts[i] = partState{Part: p.name, Ready: true, Needed: p.needed}
			if err := p.check(ctx); err != nil {
				now.Parts[i].Ready, now.Parts[i].Reason = false, err.Error()
			}
		})
	}
	group.Wait()
	for _, state := range now.Parts {
		now.Ready = now.Ready && (state.Ready || !state.Needed)
	}
	return now
}

// databasePart is a service's own tables.
func databasePart(pool *pgxpool.Pool, service string, needed bool) part {
	return part{name: "database of " + service, needed: needed, check: func(ctx context.Context) error {
		return databaseUsable(ctx, pool, service)
	}}
}

// peerPart is another role, without which no role is less ready.
func peerPart(role, url string) part {
	return part{name: role, check: func(ctx context.Context) error {
		answer, err := dial.Probe(ctx, url)
		if err == nil && !answer.Ready {
			err = errors.New(answer.Text)
		}
		return err
	}}
}

// gatewayPart is what a gateway must have before it can answer.
func gatewayPart(ready func() error) part {
	return part{name: "keys and revocations", needed: true, check: func(context.Context) error { return ready() }}
}
