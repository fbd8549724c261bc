// Package telemetry exports a process's metrics to a Prometheus scraper and its traces
// to the collector at OTEL_EXPORTER_OTLP_ENDPOINT. It hides the OpenTelemetry SDK and
// its exporters. The instruments are defined next to the code that they measure, which
// uses only the OpenTelemetry API.
//
// A label never holds a value that a caller chose, nor personal data.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	nometric "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/exemplar"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	notrace "go.opentelemetry.io/otel/trace/noop"
)

// Scope is the name of Gatehouse's instrumentation scope.
const Scope = "gatehouse"

// Propagator propagates trace contexts between services (W3C Trace Context). It does not
// propagate baggage, because a client's baggage would reach every service.
var Propagator propagation.TextMapPropagator = propagation.TraceContext{}

// Config configures the telemetry of a process.
type Config struct {
	// Name and Version are the service's name and version in traces.
	// OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES override them.
	Name, Version string
	// Metrics enables the metrics, which Handler serves. With Traces, they have exemplars.
	Metrics bool
	// Traces enables the export of traces, which the OTEL_… environment variables
	// configure.
	Traces bool
	Logger *slog.Logger
}

// Telemetry provides a process's metrics and traces.
type Telemetry struct {
	meters   metric.MeterProvider
	tracers  trace.TracerProvider
	traces   bool
	registry *prometheus.Registry
	logger   *slog.Logger
	stops    []func(context.Context) error
}

// New sets up the telemetry that config enables. The caller must call Stop.
func New(ctx context.Context, config Config) (*Telemetry, error) {
	t := &Telemetry{meters: nometric.NewMeterProvider(), tracers: notrace.NewTracerProvider(), traces: config.Traces, logger: config.Logger}
	about, err := resource.New(ctx,
		// Named by string, because the packages of the semantic conventions are versioned
		// separately.
		resource.WithAttributes(attribute.String("service.name", config.Name), attribute.String("service.version", config.Version)),
		resource.WithTelemetrySDK(),
		resource.WithFromEnv(), // the last one wins
	)
	if err != nil {
		return nil, fmt.Errorf("read OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	if config.Metrics {
		if err := t.measure(about, config.Traces); err != nil {
			return nil, err
		}
	}
	if config.Traces {
		exporter, err := otlptracehttp.New(ctx)
		if err != nil {
			return nil, fmt.Errorf("prepare to send traces: %w", err)
		}
		tracers := sdktrace.NewTracerProvider(
			sdktrace.WithResource(about),
			sdktrace.WithBatcher(exporter),
		)
		t.tracers, t.stops = tracers, append(t.stops, tracers.Shutdown)
	}
	return t, nil
}

func (t *Telemetry) measure(about *resource.Resource, traces bool) error {
	t.registry = prometheus.NewRegistry()
	exporter, err := otelprometheus.New(otelprometheus.WithRegisterer(t.registry), otelprometheus.WithoutScopeInfo())
	if err != nil {
		return fmt.Errorf("prepare the metrics: %w", err)
	}
	for _, collector := range []prometheus.Collector{
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
		if err := t.registry.Register(collector); err != nil {
			return fmt.Errorf("prepare the metrics of the process: %w", err)
		}
	}
	// An exemplar leads from a measurement to its trace. Without traces of our own, the
	// context holds the trace that the caller named.
	exemplars := exemplar.AlwaysOffFilter
	if traces {
		exemplars = exemplar.TraceBasedFilter
	}
	meters := sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter), sdkmetric.WithResource(about), sdkmetric.WithExemplarFilter(exemplars))
	t.meters, t.stops = meters, append(t.stops, meters.Shutdown)
	return nil
}

// Use sets t's providers as OpenTelemetry's globals.
func (t *Telemetry) Use() {
	otel.SetMeterProvider(t.meters)
	otel.SetTracerProvider(t.tracers)
	otel.SetTextMapPropagator(Propagator)
	otel.SetErrorHandler(&complaints{logger: t.logger})
}

// Meters returns the provider of meters.
func (t *Telemetry) Meters() metric.MeterProvider { return t.meters }

// Tracers returns the provider of tracers.
func (t *Telemetry) Tracers() trace.TracerProvider { return t.tracers }

// Traces reports whether traces are exported.
func (t *Telemetry) Traces() bool { return t.traces }

// scrapes is the maximum number of concurrent scrapes.
const scrapes = 4

// Handler serves the metrics in Prometheus' formats.
func (t *Telemetry) Handler() http.Handler {
	if t.registry == nil {
		return http.NotFoundHandler()
	}
	return promhttp.HandlerFor(t.registry, promhttp.HandlerOpts{
		// A collector that fails does not affect the others.
		ErrorHandling: promhttp.ContinueOnError, EnableOpenMetrics: true, MaxRequestsInFlight: scrapes,
	})
}

// Stop flushes the remaining telemetry and shuts the exporters down, until ctx ends.
func (t *Telemetry) Stop(ctx context.Context) error {
	var faults []error
	for _, stop := range t.stops {
		faults = append(faults, stop(ctx))
	}
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("send the last telemetry: %w", err)
	}
	return nil
}

// quiet is the minimum interval between two warnings.
const quiet = time.Minute

// complaints logs that telemetry was lost. Nothing else depends on the export: neither
// calls nor readiness wait for an unreachable collector.
type complaints struct {
	logger *slog.Logger
	mu     sync.Mutex
	said   time.Time
}

// Handle implements otel.ErrorHandler.
func (c *complaints) Handle(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.said) < quiet {
		return
	}
	c.said = time.Now()
	c.logger.Warn("telemetry is lost", "cause", err.Error())
}
