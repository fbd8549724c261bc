package users

import (
	"context"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"gatehouse/internal/database"
	"gatehouse/internal/telemetry"
)

// heard counts nothing until the process has something to tell.
var heard, _ = otel.Meter(telemetry.Scope).Int64Counter("gatehouse.users.relay.heard", metric.WithUnit("{account}"),
	metric.WithDescription("Accounts' states that auth's relay told."))

func countHeard(ctx context.Context, deleted, applied bool) {
	heard.Add(ctx, 1, metric.WithAttributes(attribute.Bool("deleted", deleted), attribute.Bool("news", applied)))
}

// Measure measures what is to be looked at when somebody asks.
func (s *Service) Measure(meter metric.Meter) error {
	return database.ObservePool(meter, "users", s.db.Pool)
}
