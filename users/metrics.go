package users

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"gatehouse/internal/database"
	"gatehouse/internal/telemetry"
)

var received, _ = otel.Meter(telemetry.Scope).Int64Counter("gatehouse.users.relay.heard", metric.WithUnit("{account}"),
	metric.WithDescription("Account states received from auth."))

func countReceived(ctx context.Context, deleted, applied bool) {
	received.Add(ctx, 1, metric.WithAttributes(attribute.Bool("deleted", deleted), attribute.Bool("news", applied)))
}

// Measure registers the gauges, which are read when the metrics are collected.
func (s *Service) Measure(meter metric.Meter) error {
	return errors.Join(database.ObservePool(meter, "users", s.db.Pool), s.changes.Observe(meter, "users"), s.reads.Measure(meter, "users"))
}
