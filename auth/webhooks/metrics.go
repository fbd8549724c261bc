package webhooks

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"gatehouse/internal/telemetry"
)

var (
	attempts, _ = otel.Meter(telemetry.Scope).Int64Counter("gatehouse.auth.webhook.attempts", metric.WithUnit("{attempt}"),
		metric.WithDescription("Attempts to send an event to a webhook, by result: sent or failed."))
	sent   = metric.WithAttributeSet(attribute.NewSet(attribute.String("result", "sent")))
	failed = metric.WithAttributeSet(attribute.NewSet(attribute.String("result", "failed")))
)

func countAttempt(ctx context.Context, r result) {
	if r.ok() {
		attempts.Add(ctx, 1, sent)
		return
	}
	attempts.Add(ctx, 1, failed)
}

// backlog is the pending work, as the database has it.
type backlog struct {
	Pending, Failed int64
	Age             float64
	Failing         int64
	Disabled        int64
}

// A delivery of a disabled endpoint waits for an administrator, and does not count.
const selectBacklog = `
	SELECT waiting.n AS pending, waiting.age, (SELECT count(*) FROM auth.deliveries d WHERE d.fail_time IS NOT NULL) AS failed,
		(SELECT count(*) FROM auth.webhooks w WHERE w.enabled AND w.fail_since_time IS NOT NULL) AS failing,
		(SELECT count(*) FROM auth.webhooks w WHERE w.disable_reason IN ('gone', 'failing')) AS disabled
	FROM (SELECT count(*) AS n, coalesce(extract(epoch FROM now() - min(d.event_time)), 0)::float8 AS age
		FROM auth.webhooks w JOIN auth.deliveries d ON d.webhook_id = w.id
		WHERE w.enabled AND w.url <> '' AND ` + pending + `) AS waiting`

func (s *Service) backlog(ctx context.Context) (backlog, error) {
	rows, err := s.db.Query(ctx, selectBacklog)
	if err != nil {
		return backlog{}, fmt.Errorf("read the backlog of webhooks: %w", err)
	}
	found, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[backlog])
	if err != nil {
		return backlog{}, fmt.Errorf("read the backlog of webhooks: %w", err)
	}
	return found, nil
}

// Measure registers the gauges of the backlog. While the database is unreachable they have
// no value, rather than the last one. The counter exists before the first attempt.
func (s *Service) Measure(meter metric.Meter) error {
	attempts.Add(context.Background(), 0, sent)
	attempts.Add(context.Background(), 0, failed)
	deliveries, err1 := meter.Int64ObservableGauge("gatehouse.auth.webhook.deliveries", metric.WithUnit("{delivery}"),
		metric.WithDescription("Deliveries of events to webhooks, pending or failed (dead letters)."))
	age, err2 := meter.Float64ObservableGauge("gatehouse.auth.webhook.oldest", metric.WithUnit("s"),
		metric.WithDescription("Age of the oldest event that waits for an enabled webhook; 0 without one."))
	endpoints, err3 := meter.Int64ObservableGauge("gatehouse.auth.webhook.endpoints", metric.WithUnit("{endpoint}"),
		metric.WithDescription("Webhooks that need attention: failing, or disabled because they failed."))
	if err := errors.Join(err1, err2, err3); err != nil {
		return fmt.Errorf("measure the webhooks: %w", err)
	}
	state := func(name string) metric.MeasurementOption {
		return metric.WithAttributeSet(attribute.NewSet(attribute.String("state", name)))
	}
	waiting, dead, failing, disabled := state("pending"), state("failed"), state("failing"), state("disabled")
	sample := telemetry.NewSample(s.backlog)
	_, err := meter.RegisterCallback(func(ctx context.Context, o metric.Observer) error {
		now, err := sample.Take(ctx)
		if err != nil {
			return err
		}
		o.ObserveInt64(deliveries, now.Pending, waiting)
		o.ObserveInt64(deliveries, now.Failed, dead)
		o.ObserveFloat64(age, now.Age)
		o.ObserveInt64(endpoints, now.Failing, failing)
		o.ObserveInt64(endpoints, now.Disabled, disabled)
		return nil
	}, deliveries, age, endpoints)
	if err != nil {
		return fmt.Errorf("measure the webhooks: %w", err)
	}
	return nil
}
