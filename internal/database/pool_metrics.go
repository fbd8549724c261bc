package database

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// ObservePool measures a service's connections to its database.
func ObservePool(meter metric.Meter, service string, pool *pgxpool.Pool) error {
	connections, err1 := meter.Int64ObservableUpDownCounter("gatehouse.database.connections",
		metric.WithUnit("{connection}"), metric.WithDescription("Connections to Postgres."))
	most, err2 := meter.Int64ObservableGauge("gatehouse.database.connections.max",
		metric.WithUnit("{connection}"), metric.WithDescription("Maximum number of connections to Postgres."))
	acquires, err3 := meter.Int64ObservableCounter("gatehouse.database.acquires",
		metric.WithUnit("{acquire}"), metric.WithDescription("Connections that were acquired from the pool."))
	waits, err4 := meter.Int64ObservableCounter("gatehouse.database.acquire.waits",
		metric.WithUnit("{acquire}"), metric.WithDescription("Acquires that found no idle connection and had to wait for one or open one."))
	waited, err5 := meter.Float64ObservableCounter("gatehouse.database.acquire.wait_time",
		metric.WithUnit("s"), metric.WithDescription("Total time spent waiting for connections."))
	canceled, err6 := meter.Int64ObservableCounter("gatehouse.database.acquires.canceled",
		metric.WithUnit("{acquire}"), metric.WithDescription("Acquires that were cancelled while they waited for a connection."))
	if err := errors.Join(err1, err2, err3, err4, err5, err6); err != nil {
		return fmt.Errorf("measure the pool of %s: %w", service, err)
	}
	of := attribute.String("service", service)
	labels := metric.WithAttributeSet(attribute.NewSet(of))
	used := metric.WithAttributeSet(attribute.NewSet(of, attribute.String("state", "used")))
	idle := metric.WithAttributeSet(attribute.NewSet(of, attribute.String("state", "idle")))
	_, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		now := pool.Stat()
		o.ObserveInt64(connections, int64(now.AcquiredConns()), used)
		o.ObserveInt64(connections, int64(now.IdleConns()), idle)
		o.ObserveInt64(most, int64(now.MaxConns()), labels)
		o.ObserveInt64(acquires, now.AcquireCount(), labels)
		o.ObserveInt64(waits, now.EmptyAcquireCount(), labels)
		o.ObserveFloat64(waited, now.EmptyAcquireWaitTime().Seconds(), labels)
		o.ObserveInt64(canceled, now.CanceledAcquireCount(), labels)
		return nil
	}, connections, most, acquires, waits, waited, canceled)
	if err != nil {
		return fmt.Errorf("measure the pool of %s: %w", service, err)
	}
	return nil
}
