package audit

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/metric"

	"gatehouse/internal/database"
	"gatehouse/internal/telemetry"
)

// Storage is the state of the tables of the audit log.
type Storage struct {
	// OpenAge is the age of the oldest event in the open table; 0 without one.
	OpenAge time.Duration
	// Closed is the number of closed tables.
	Closed int64
}

// MaxOpenAge is the age from which the open table should have been closed: an event of the
// first of a month waits at most a month, and the janitor tries every hour.
const MaxOpenAge = 35 * 24 * time.Hour

const selectStorage = `
	SELECT coalesce((SELECT extract(epoch FROM clock_timestamp() - e.create_time) FROM ONLY auth.audit_events e ORDER BY e.id LIMIT 1), 0)::float8,
		(SELECT count(*) FROM pg_catalog.pg_inherits WHERE inhparent = 'auth.audit_events'::regclass)`

// ReadStorage reads the state of the tables.
func ReadStorage(ctx context.Context, db database.Querier) (Storage, error) {
	var storage Storage
	var seconds float64
	if err := db.QueryRow(ctx, selectStorage).Scan(&seconds, &storage.Closed); err != nil {
		return Storage{}, fmt.Errorf("read the state of the audit log: %w", err)
	}
	storage.OpenAge = database.Seconds(max(seconds, 0))
	return storage, nil
}

// Measure registers the gauges of the tables. While the database is unreachable they have no
// value.
func Measure(meter metric.Meter, db *database.Pool) error {
	open, err1 := meter.Float64ObservableGauge("gatehouse.auth.audit.open_age", metric.WithUnit("s"),
		metric.WithDescription("Age of the oldest event in the open table of the audit log, which is closed every month; 0 without one."))
	closed, err2 := meter.Int64ObservableGauge("gatehouse.auth.audit.closed_tables", metric.WithUnit("{table}"),
		metric.WithDescription("Closed tables of the audit log, one for each month until its retention has ended."))
	if err := errors.Join(err1, err2); err != nil {
		return fmt.Errorf("measure the audit log: %w", err)
	}
	sample := telemetry.NewSample(func(ctx context.Context) (Storage, error) { return ReadStorage(ctx, db) })
	_, err := meter.RegisterCallback(func(ctx context.Context, o metric.Observer) error {
		now, err := sample.Take(ctx)
		if err != nil {
			return err
		}
		o.ObserveFloat64(open, now.OpenAge.Seconds())
		o.ObserveInt64(closed, now.Closed)
		return nil
	}, open, closed)
	if err != nil {
		return fmt.Errorf("measure the audit log: %w", err)
	}
	return nil
}
