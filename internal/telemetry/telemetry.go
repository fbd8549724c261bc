// Package telemetry owns what a process tells of itself: metrics, to whoever
// scrapes them, and traces, to the collector that OTEL_EXPORTER_OTLP_ENDPOINT
// names. It hides the OpenTelemetry SDK and its exporters; what is measured
// stands beside the code that it is about, and asks OpenTelemetry's API alone.
//
// A label never holds what a caller chose, nor anything about a person.
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
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	notrace "go.opentelemetry.io/otel/trace/noop"
)

// Scope is the name of the instrumentation that is ours.
const Scope = "gatehouse"

// Propagator carries traces from hop to hop (W3C Trace Context). Baggage isn't
// carried: what a stranger writes there would reach every service.
var Propagator propagation.TextMapPropagator = propagation.TraceContext{}

// Config says what a process tells.
type Config struct {
	// Name and Version are of the service in traces, unless OTEL_SERVICE_NAME or
	// OTEL_RESOURCE_ATTRIBUTES say otherwise.
	Name, Version string
	// Metrics are made for Handler to serve.
	Metrics bool
	// Traces are sent, as the environment's OTEL_… variables say.
	Traces bool
	Logger *slog.Logger
}

// Telemetry is what a process tells of itself. Where it is nil, nothing is told.
type Telemetry struct {
	meters   metric.MeterProvider
	tracers  trace.TracerProvider
	registry *prometheus.Registry
	logger   *slog.Logger
	stops    []func(context.Context) error
}

// New prepares to tell what config says. The caller must stop it.
func New(ctx context.Context, config Config) (*Telemetry, error) {
	t := &Telemetry{meters: nometric.NewMeterProvider(), tracers: notrace.NewTracerProvider(), logger: config.Logger}
	about, err := resource.New(ctx,
		// By their names in the conventions, which come in a version of their own.
		resource.WithAttributes(attribute.String("service.name", config.Name), attribute.String("service.version", config.Version)),
		resource.WithTelemetrySDK(),
		resource.WithFromEnv(), // the last one wins
	)
	if err != nil {
		return nil, fmt.Errorf("read OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	if config.Metrics {
		if err := t.measure(about); err != nil {
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

func (t *Telemetry) measure(about *resource.Resource) error {
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
	meters := sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter), sdkmetric.WithResource(about))
	t.meters, t.stops = meters, append(t.stops, meters.Shutdown)
	return nil
}

// Use makes t what OpenTelemetry's own API reaches, for all of the process.
func (t *Telemetry) Use() {
	otel.SetMeterProvider(t.meters)
	otel.SetTracerProvider(t.tracers)
	otel.SetTextMapPropagator(Propagator)
	otel.SetErrorHandler(&complaints{logger: t.logger})
}

// Meters makes the instruments of metrics.
func (t *Telemetry) Meters() metric.MeterProvider { return t.meters }

// Tracers makes traces.
func (t *Telemetry) Tracers() trace.TracerProvider { return t.tracers }

// scrapes bounds how many scrapes are answered at a time.
const scrapes = 4

// Handler serves the metrics in Prometheus' formats.
func (t *Telemetry) Handler() http.Handler {
	if t.registry == nil {
		return http.NotFoundHandler()
	}
	return promhttp.HandlerFor(t.registry, promhttp.HandlerOpts{
		// One that fails leaves the others be.
		ErrorHandling: promhttp.ContinueOnError, EnableOpenMetrics: true, MaxRequestsInFlight: scrapes,
	})
}

// Stop sends what is left to send, for as long as ctx allows.
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

// quiet is how long nothing more is said of what goes wrong.
const quiet = time.Minute

// complaints says in the log that some telemetry is lost. Nothing waits for it:
// neither for a collector that is away nor for a database.
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
