package password

import (
	"context"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"

	"gatehouse/internal/telemetry"
)

// What is counted as it happens, for the whole process.
var (
	meter = otel.Meter(telemetry.Scope)

	hashDuration, _ = meter.Float64Histogram("gatehouse.auth.password.duration", metric.WithUnit("s"),
		metric.WithDescription("How long it took to hash a password, or to check one, once it was its turn."),
		metric.WithExplicitBucketBoundaries(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5))
	hashesRunning, _ = meter.Int64UpDownCounter("gatehouse.auth.password.running", metric.WithUnit("{hash}"),
		metric.WithDescription("Passwords that are being hashed or checked just now."))
	hashesRefused, _ = meter.Int64Counter("gatehouse.auth.password.refusals", metric.WithUnit("{refusal}"),
		metric.WithDescription("Calls that were refused because too many passwords waited to be hashed."))
)

// timeHash notes that a password's turn has come, and returns what notes that
// it is over.
func timeHash(ctx context.Context) func() {
	start := time.Now()
	hashesRunning.Add(ctx, 1)
	return func() {
		hashesRunning.Add(ctx, -1)
		hashDuration.Record(ctx, time.Since(start).Seconds())
	}
}
