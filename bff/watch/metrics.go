package watch

import (
	"context"
	"fmt"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"gatehouse/internal/telemetry"
)

var (
	meter = otel.Meter(telemetry.Scope)

	streamEvents, _ = meter.Int64Counter("gatehouse.bff.watch.events", metric.WithUnit("{event}"),
		metric.WithDescription("Events that live streams sent, by kind."))
	streamEnds, _ = meter.Int64Counter("gatehouse.bff.watch.ends", metric.WithUnit("{stream}"),
		metric.WithDescription("Live streams that ended, by reason; closed if the client closed its stream."))
	streamRefusals, _ = meter.Int64Counter("gatehouse.bff.watch.refusals", metric.WithUnit("{stream}"),
		metric.WithDescription("Live streams that were refused because their caller, or the gateway, had too many."))
)

var (
	changedLabel = eventLabel("changed")
	endedLabel   = eventLabel("ended")
	refreshLabel = eventLabel("refresh_due")
	aliveLabel   = eventLabel("alive")
)

func eventLabel(kind string) metric.MeasurementOption {
	return metric.WithAttributeSet(attribute.NewSet(attribute.String("kind", kind)))
}

func countEvent(event Event) {
	label := aliveLabel
	switch {
	case event.Ended != nil:
		label = endedLabel
	case event.RefreshDue:
		label = refreshLabel
	case event.Complete || len(event.Parts) > 0:
		label = changedLabel
	}
	streamEvents.Add(context.Background(), 1, label)
}

func countEnd(reason string) {
	streamEnds.Add(context.Background(), 1, metric.WithAttributes(attribute.String("reason", reason)))
}

// Measure registers the gauge of the open streams.
func (h *Hub) Measure(meter metric.Meter) error {
	ctx := context.Background()
	for _, label := range []metric.MeasurementOption{changedLabel, endedLabel, refreshLabel, aliveLabel} {
		streamEvents.Add(ctx, 0, label) // export 0 before the first event
	}
	streamRefusals.Add(ctx, 0)
	streamEnds.Add(ctx, 0, metric.WithAttributes(attribute.String("reason", "closed")))
	_, err := meter.Int64ObservableGauge("gatehouse.bff.watch.streams", metric.WithUnit("{stream}"),
		metric.WithDescription("Live streams that are open."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			o.Observe(int64(h.Open()))
			return nil
		}))
	if err != nil {
		return fmt.Errorf("measure the live streams: %w", err)
	}
	return nil
}
