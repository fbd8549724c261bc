package challenge

import (
	"context"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"gatehouse/internal/telemetry"
)

var challenges, _ = otel.Meter(telemetry.Scope).Int64Counter("gatehouse.auth.challenges", metric.WithUnit("{challenge}"),
	metric.WithDescription("Challenges for a second proof or a mailed code: begun, by the method that was offered first; completed, wrong or late, by the method of the answer; expired without a right answer, counted when the row is deleted an hour later."))

// Count counts challenges that got to a state, by the method of the proof; "none" without
// one.
func Count(ctx context.Context, state, method string, count int64) {
	challenges.Add(ctx, count, metric.WithAttributes(attribute.String("state", state), attribute.String("method", method)))
}
