package rpc

import (
	"context"
	"fmt"

	"connectrpc.com/connect/v2"
	"connectrpc.com/otelconnect"
	"go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"

	"gatehouse/internal/callmetrics"
	"gatehouse/internal/telemetry"
)

// spanOptions lets otelconnect make spans only: callmetrics measures the calls.
func spanOptions(t *telemetry.Telemetry) []otelconnect.Option {
	return []otelconnect.Option{
		otelconnect.WithMeterProvider(noop.NewMeterProvider()), otelconnect.WithTracerProvider(t.Tracers()),
		otelconnect.WithPropagator(telemetry.Propagator),
	}
}

// otherMethod is the label of all unknown methods: callers must not be able to create
// labels.
const otherMethod = "/_OTHER"

// measureServer returns interceptors that measure and trace the calls to a server: one
// for its methods, and one for unknown methods. The span of a call between services
// continues the caller's trace; the span of a public call only links to it.
func measureServer(t *telemetry.Telemetry, internal bool) (measured, other connect.ServerInterceptor, err error) {
	options := spanOptions(t)
	if internal {
		options = append(options, otelconnect.WithTrustRemote(), otelconnect.WithRPCSystem(otelconnect.ConnectRPCSystem))
	}
	spans, err := otelconnect.NewServerInterceptor(options...)
	if err != nil {
		return nil, nil, fmt.Errorf("trace the calls: %w", err)
	}
	measure, err := callmetrics.NewServer(t, internal)
	if err != nil {
		return nil, nil, err
	}
	measured = func(next connect.ServerFunc) connect.ServerFunc {
		untraced := measure(next)
		traced := spans(untraced) // outside, so that the measurement knows its trace
		return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
			if t.Traces() || inTrace(ctx) {
				return traced(ctx, spec, stream)
			}
			return untraced(ctx, spec, stream)
		}
	}
	other = func(next connect.ServerFunc) connect.ServerFunc {
		return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
			unknown := measured(func(ctx context.Context, _ connect.Spec, stream connect.ServerStream) error {
				return next(ctx, spec, stream)
			})
			return unknown(ctx, connect.Spec{Procedure: otherMethod, StreamType: spec.StreamType}, stream)
		}
	}
	return measured, other, nil
}

// inTrace reports whether the caller of a call sent a trace context. It is passed on,
// and its ID logged, even if this process exports no spans.
func inTrace(ctx context.Context) bool {
	info, _ := connect.CallInfoForServerContext(ctx)
	return info.RequestHeader().Get("Traceparent") != "" || trace.SpanContextFromContext(ctx).IsValid()
}

// passThrough is the interceptor of a server without telemetry.
func passThrough(next connect.ServerFunc) connect.ServerFunc { return next }

// MeasureCalls returns an interceptor that measures and traces the calls that a client
// makes.
func MeasureCalls(t *telemetry.Telemetry) (connect.ClientInterceptor, error) {
	spans, err := otelconnect.NewClientInterceptor(append(spanOptions(t), otelconnect.WithRPCSystem(otelconnect.ConnectRPCSystem))...)
	if err != nil {
		return nil, fmt.Errorf("trace the calls: %w", err)
	}
	measure, err := callmetrics.NewClient(t)
	if err != nil {
		return nil, err
	}
	return func(next connect.ClientFunc) connect.ClientFunc {
		untraced := measure(next)
		traced := spans(untraced)
		return func(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
			if t.Traces() || trace.SpanContextFromContext(ctx).IsValid() {
				return traced(ctx, spec)
			}
			return untraced(ctx, spec)
		}
	}, nil
}
