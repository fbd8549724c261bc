package rpc

import (
	"context"
	"fmt"

	"connectrpc.com/connect/v2"
	"connectrpc.com/otelconnect"
	"go.opentelemetry.io/otel/metric"

	"gatehouse/internal/telemetry"
)

// callBuckets are of seconds: a call within a process takes half a millisecond,
// one that hashes a password a hundred times as long.
var callBuckets = metric.WithExplicitBucketBoundaries(
	0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

func telemetryOptions(t *telemetry.Telemetry) []otelconnect.Option {
	return []otelconnect.Option{
		otelconnect.WithMeterProvider(t.Meters()), otelconnect.WithTracerProvider(t.Tracers()),
		otelconnect.WithPropagator(telemetry.Propagator), otelconnect.WithDurationHistogramOptions(callBuckets),
	}
}

// otherMethod stands for every method that there isn't: what callers make up
// must not become labels.
const otherMethod = "/_OTHER"

// measureServer returns interceptors that measure and trace the calls that a server
// answers: one for its methods, and one for unknown methods. Between services the
// caller's trace is continued; that of a stranger is only linked to.
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
			// Labels that a method gives the call that it answers are not of the
			// calls that it makes.
			return call(otelconnect.ContextWithLabeler(ctx, &otelconnect.Labeler{}), spec)
		}
	}, nil
}
