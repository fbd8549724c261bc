package auth

import (
	"context"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"gatehouse/auth/accountlog"
	"gatehouse/internal/telemetry"
)

// measureLifecycle registers the lag of the services that read the account log. While
// the database is unreachable it has no value, rather than the last one.
func (s *Service) measureLifecycle(meter metric.Meter) error {
	lag, err := meter.Float64ObservableGauge("gatehouse.auth.lifecycle.lag", metric.WithUnit("s"),
		metric.WithDescription("Age of the oldest change of an account that a service has not confirmed; 0 without one."))
	if err != nil {
		return fmt.Errorf("measure the lifecycle: %w", err)
	}
	sample := telemetry.NewSample(func(ctx context.Context) ([]accountlog.Lag, error) { return s.events.Lags(ctx, s.readers) })
	_, err = meter.RegisterCallback(func(ctx context.Context, o metric.Observer) error {
		lags, err := sample.Take(ctx)
		if err != nil {
			return err
		}
		for _, one := range lags {
			o.ObserveFloat64(lag, one.Oldest.Seconds(), metric.WithAttributeSet(attribute.NewSet(attribute.String("service", one.Service))))
		}
		return nil
	}, lag)
	if err != nil {
		return fmt.Errorf("measure the lifecycle: %w", err)
	}
	return nil
}
