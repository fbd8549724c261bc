package rpc

import (
	"context"
	"fmt"

	"connectrpc.com/connect/v2"
	"connectrpc.com/otelconnect"
	"go.opentelemetry.io/otel/metric"

	"gatehouse/internal/telemetry"
)

// callBuckets are histogram buckets in seconds. A call in process takes half a
// millisecond; one that hashes a password takes a hundred times as long.
var callBuckets = metric.WithExplicitBucketBoundaries(
	0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

func telemetryOptions(t *telemetry.Telemetry) []otelconnect.Option {
	return []otelconnect.Option{
		otelconnect.WithMeterProvider(t.Meters()), otelconnect.WithTracerProvider(t.Tracers()),
		otelconnect.WithPropagator(telemetry.Propagator), otelconnect.WithDurationHistogramOptions(callBuckets),
	}
}

// otherMethod is the label of all unknown methods: callers must not be able to create
// labels.
const otherMethod = "/_OTHER"

// measureServer returns interceptors that measure and trace the calls to a server: one
// for its methods, and one for unknown methods. The span of a call between services
// continues the caller's trace; the span of a public call only links to it.
func measureServer(t *telemetry.Telemetry, internal bool) (measured, other connect.ServerInterceptor, err error) {
	options := telemetryOptions(t)
	if internal {
		options = append(options, otelconnect.WithTrustRemote(), otelconnect.WithRPCSystem(otelconnect.ConnectRPCSystem))
	}
	measured, err = otelconnect.NewServerInterceptor(options...)
	if err != nil {
		return nil, nil, fmt.Errorf("measure the calls: %w", err)
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

// passThrough is the interceptor of a server without telemetry.
func passThrough(next connect.ServerFunc) connect.ServerFunc { return next }

// MeasureCalls returns an interceptor that measures and traces the calls that a client
// makes.
func MeasureCalls(t *telemetry.Telemetry) (connect.ClientInterceptor, error) {
	measured, err := otelconnect.NewClientInterceptor(append(telemetryOptions(t), otelconnect.WithRPCSystem(otelconnect.ConnectRPCSystem))...)
	if err != nil {
		return nil, fmt.Errorf("measure the calls: %w", err)
	}
	return func(next connect.ClientFunc) connect.ClientFunc {
		call := measured(next)
		return func(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
			// The labels that a method sets belong to its own call, not to the calls that
			// it makes.
			return call(otelconnect.ContextWithLabeler(ctx, &otelconnect.Labeler{}), spec)
		}
	}, nil
}
