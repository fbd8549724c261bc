package federation

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"gatehouse/internal/provider"
	"gatehouse/internal/telemetry"
)

var visits, _ = otel.Meter(telemetry.Scope).Int64Counter("gatehouse.auth.provider.answers", metric.WithUnit("{answer}"),
	metric.WithDescription("Answers of other providers, by provider and outcome: accepted, refused, or unavailable if the provider failed."))

func countVisit(ctx context.Context, id string, err error) {
	outcome := "accepted"
	switch {
	case errors.Is(err, provider.ErrUnavailable):
		outcome = "unavailable"
	case err != nil:
		outcome = "refused"
	}
	visits.Add(ctx, 1, metric.WithAttributes(attribute.String("provider", id), attribute.String("outcome", outcome)))
}
