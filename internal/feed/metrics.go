package feed

import (
	"context"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// Observe measures the watchers of a service's feed.
func (t *Tags) Observe(meter metric.Meter, service string) error {
	watchers, err := meter.Int64ObservableGauge("gatehouse.change.watchers", metric.WithUnit("{stream}"),
		metric.WithDescription("Open change streams of gateways. While all copies of a service are healthy, one of them has all of these streams, and the others rarely query for changes."))
	if err != nil {
		return fmt.Errorf("measure the change feed: %w", err)
	}
	label := metric.WithAttributeSet(attribute.NewSet(attribute.String("service", service)))
	_, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		_, open := t.Count()
		o.ObserveInt64(watchers, int64(open), label)
		return nil
	}, watchers)
	if err != nil {
		return fmt.Errorf("measure the change feed: %w", err)
	}
	return nil
}
