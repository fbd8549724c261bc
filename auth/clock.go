package auth

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/metric"

	"gatehouse/internal/telemetry"
)

const selectClock = `SELECT extract(epoch FROM clock_timestamp())::float8`

// clockOffset returns how far Postgres' clock is ahead of this process' clock, to
// within half a round trip.
func (s *Service) clockOffset(ctx context.Context) (time.Duration, error) {
	var theirs float64
	asked := time.Now()
	if err := s.db.QueryRow(ctx, selectClock).Scan(&theirs); err != nil {
		return 0, fmt.Errorf("read Postgres' clock: %w", err)
	}
	ours := asked.Add(time.Since(asked) / 2)
	return time.UnixMicro(int64(theirs * 1e6)).Sub(ours), nil
}

// measureClock registers the gauge of the clock offset.
func (s *Service) measureClock(meter metric.Meter) error {
	offset, err1 := meter.Float64ObservableGauge("gatehouse.auth.clock.offset", metric.WithUnit("s"),
		metric.WithDescription("How far Postgres' clock is ahead of this process' clock; negative when it is behind."))
	sample := telemetry.NewSample(s.clockOffset)
	_, err2 := meter.RegisterCallback(func(ctx context.Context, o metric.Observer) error {
		now, err := sample.Take(ctx)
		if err != nil {
			return err
		}
		o.ObserveFloat64(offset, now.Seconds())
		return nil
	}, offset)
	if err := errors.Join(err1, err2); err != nil {
		return fmt.Errorf("measure the clock: %w", err)
	}
	return nil
}
