// Package ops serves a process's operators: a private listener with metrics,
// profiles and readiness in detail, and the telemetry behind them.
package ops

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"

	"gatehouse/internal/serve"
	"gatehouse/internal/telemetry"
)

// Config configures what operators can see of a process.
type Config struct {
	// Role is what /readyz calls the process.
	Role string
	// Name and Version describe the process in traces and metrics.
	Name, Version string
	// Listen is the address of the operators' listener; empty for none.
	Listen string
	// Hosts are the host names that the listener answers.
	Hosts Hosts
	// Traces sends traces to the collector that the OTEL_ variables name.
	Traces bool
	Logger *slog.Logger
}

// Operations is the telemetry of a process and its operators' listener.
type Operations struct {
	Config
	// Telemetry is nil if there is neither a listener nor a collector of traces.
	Telemetry *telemetry.Telemetry
	// Pages are the services' handlers on this listener, by pattern. Add to it before Open.
	Pages map[string]http.Handler
}

// Start starts the telemetry that the configuration asks for. Call Stop at the end.
func Start(ctx context.Context, config Config) (*Operations, error) {
	o := &Operations{Config: config, Pages: map[string]http.Handler{}}
	if o.Listen == "" && !o.Traces {
		return o, nil
	}
	started, err := telemetry.New(ctx, telemetry.Config{
		Name: o.Name, Version: o.Version, Metrics: o.Listen != "", Traces: o.Traces, Logger: o.Logger,
	})
	if err != nil {
		return nil, err
	}
	started.Use()
	o.Telemetry = started
	return o, nil
}

// flushLimit is how long Stop waits for the collector of traces.
const flushLimit = 2 * time.Second

// Stop flushes the telemetry. Call it once nothing is served any more.
func (o *Operations) Stop() {
	if o.Telemetry == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), flushLimit)
	defer cancel()
	if err := o.Telemetry.Stop(ctx); err != nil {
		o.Logger.Warn("telemetry: flush failed, the last spans are lost", "cause", err.Error())
	}
}

// Measure registers a service's metrics, if there is a listener to serve them.
func (o *Operations) Measure(register func(metric.Meter) error) error {
	if o.Listen == "" {
		return nil
	}
	return register(o.Telemetry.Meters().Meter(telemetry.Scope))
}

// Open opens the listener, and returns a function that serves it until its
// context ends.
func (o *Operations) Open(ctx context.Context, checks []Check) (run func(context.Context) error, err error) {
	if o.Listen == "" {
		return func(context.Context) error { return nil }, nil
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", o.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen for operators: %w: stop what listens there, or set GATEHOUSE_OPS_LISTEN to another address", err)
	}
	o.Logger.Info("operators' listener opened", "listen", o.Listen)
	return func(ctx context.Context) error {
		return serve.Run(ctx, listener, o.Hosts.handler(o.handler(checks)), o.Logger)
	}, nil
}

// handler serves metrics, profiles and readiness.
func (o *Operations) handler(checks []Check) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", o.Telemetry.Handler())
	for pattern, page := range o.Pages {
		mux.Handle(pattern, page)
	}
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
		now := runChecks(r.Context(), checks)
		now.Role, now.Version = o.Role, o.Version
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

// Check is one readiness check.
type Check struct {
	Name string
	// Required says that the process is unready while the check fails.
	Required bool
	Run      func(context.Context) error
}

// readiness is the body of /readyz.
type readiness struct {
	Ready   bool     `json:"ready"`
	Role    string   `json:"role"`
	Version string   `json:"version"`
	Checks  []result `json:"parts"`
}

type result struct {
	Name     string `json:"part"`
	Ready    bool   `json:"ready"`
	Required bool   `json:"needed"`
	Reason   string `json:"reason,omitempty"`
}

const checkLimit = 2 * time.Second

// runChecks runs all checks at the same time.
func runChecks(ctx context.Context, checks []Check) readiness {
	ctx, cancel := context.WithTimeout(ctx, checkLimit)
	defer cancel()
	now := readiness{Ready: true, Checks: make([]result, len(checks))}
	var group sync.WaitGroup
	for i, check := range checks {
		group.Go(func() {
			now.Checks[i] = result{Name: check.Name, Ready: true, Required: check.Required}
			if err := check.Run(ctx); err != nil {
				now.Checks[i].Ready, now.Checks[i].Reason = false, err.Error()
			}
		})
	}
	group.Wait()
	for _, result := range now.Checks {
		now.Ready = now.Ready && (result.Ready || !result.Required)
	}
	return now
}
