package password

import (
	"context"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"gatehouse/internal/telemetry"
)

// Counters of the process.
var (
	meter = otel.Meter(telemetry.Scope)

	hashDuration, _ = meter.Float64Histogram("gatehouse.auth.password.duration", metric.WithUnit("s"),
		metric.WithDescription("Duration of hashing or checking a password, without the time in the queue."),
		metric.WithExplicitBucketBoundaries(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5))
	hashesRunning, _ = meter.Int64UpDownCounter("gatehouse.auth.password.running", metric.WithUnit("{hash}"),
		metric.WithDescription("Passwords being hashed or checked."))
	hashesRefused, _ = meter.Int64Counter("gatehouse.auth.password.refusals", metric.WithUnit("{refusal}"),
		metric.WithDescription("Calls refused by the password queue, by class of caller and reason: delay, deadline or full."))
	queueLength, _ = meter.Int64UpDownCounter("gatehouse.auth.password.queue.length", metric.WithUnit("{call}"),
		metric.WithDescription("Calls in the password queue, by class of caller."))
	queueDelay, _ = meter.Float64Histogram("gatehouse.auth.password.queue.delay", metric.WithUnit("s"),
		metric.WithDescription("Time of a call in the password queue until it was admitted or refused, by class of caller."),
		metric.WithExplicitBucketBoundaries(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5))
)

// classAttributes are the metric attributes of the classes.
var classAttributes = func() (sets [classes]metric.MeasurementOption) {
	for class, name := range classNames {
		sets[class] = metric.WithAttributeSet(attribute.NewSet(attribute.String("class", name)))
	}
	return sets
}()

func countRefusal(ctx context.Context, class Class, reason string, n int64) {
	hashesRefused.Add(ctx, n, metric.WithAttributes(attribute.String("class", classNames[class]), attribute.String("reason", reason)))
}

// timeHash records the start of a hash, and returns a function that records its end
// and duration.
func timeHash(ctx context.Context) func() time.Duration {
	start := time.Now()
	hashesRunning.Add(ctx, 1)
	return func() time.Duration {
		took := time.Since(start)
		hashesRunning.Add(ctx, -1)
		hashDuration.Record(ctx, took.Seconds())
		return took
	}
}
