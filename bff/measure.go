package bff

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"gatehouse/bff/access"
	"gatehouse/internal/answercache"
	"gatehouse/internal/telemetry"
)

// Measure registers the observable gauges of the gateway.
func (s *Service) Measure(meter metric.Meter) error {
	for _, by := range []metric.MeasurementOption{invalidatedByCall, invalidatedByFeed} {
		countInvalidations(context.Background(), 0, by)
	}
	return errors.Join(s.shedder.Measure(meter), measureRevocations(meter, s.revoked), measureClock(meter, s.revoked), measureCache(meter, s.cache.Cache, s.changes), s.live.Measure(meter))
}

func measureCache(meter metric.Meter, cache *answercache.Cache, feeds changeFeeds) error {
	bytes, err1 := meter.Int64ObservableGauge("gatehouse.bff.cache.size", metric.WithUnit("By"),
		metric.WithDescription("Approximate memory of the cache entries."))
	current, err2 := meter.Int64ObservableGauge("gatehouse.bff.cache.current",
		metric.WithDescription("1 while the latest update of the change feed is at most a second old, so that the cache is in use; else 0."))
	if err := errors.Join(err1, err2); err != nil {
		return fmt.Errorf("register the cache's metrics: %w", err)
	}
	_, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		o.ObserveInt64(bytes, cache.Size())
		for _, feed := range feeds {
			o.ObserveInt64(current, telemetry.OneIf(feed.isCurrent(time.Now())), metric.WithAttributes(attribute.String("of", feed.name)))
		}
		return nil
	}, bytes, current)
	if err != nil {
		return fmt.Errorf("register the cache's metrics: %w", err)
	}
	return nil
}

func measureRevocations(meter metric.Meter, revoked *access.Revocations) error {
	age, err1 := meter.Float64ObservableGauge("gatehouse.bff.feed.age", metric.WithUnit("s"),
		metric.WithDescription("Time since the last message of auth's revocation stream; absent before the first message."))
	mode, err2 := meter.Int64ObservableGauge("gatehouse.bff.feed.mode",
		metric.WithDescription("1 for the source of revocations that is in use: the stream, or a request to auth for each call; else 0."))
	held, err3 := meter.Int64ObservableGauge("gatehouse.bff.revocations", metric.WithUnit("{revocation}"),
		metric.WithDescription("Revocations of unexpired access tokens that the gateway holds."))
	if err := errors.Join(err1, err2, err3); err != nil {
		return fmt.Errorf("measure the feed: %w", err)
	}
	labelled := func(name, value string) metric.MeasurementOption {
		return metric.WithAttributeSet(attribute.NewSet(attribute.String(name, value)))
	}
	stream, asking := labelled("mode", "stream"), labelled("mode", "asking")
	sessions, accounts := labelled("of", "session"), labelled("of", "account")
	_, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		now := revoked.State()
		if now.Ready {
			o.ObserveFloat64(age, now.Age.Seconds())
		}
		o.ObserveInt64(mode, telemetry.OneIf(now.Fresh), stream)
		o.ObserveInt64(mode, telemetry.OneIf(!now.Fresh), asking)
		o.ObserveInt64(held, int64(now.Sessions), sessions)
		o.ObserveInt64(held, int64(now.Accounts), accounts)
		return nil
	}, age, mode, held)
	if err != nil {
		return fmt.Errorf("measure the feed: %w", err)
	}
	return nil
}

func measureClock(meter metric.Meter, revoked *access.Revocations) error {
	offset, err1 := meter.Float64ObservableGauge("gatehouse.bff.clock.offset", metric.WithUnit("s"),
		metric.WithDescription("Offset of auth's clock to the clock of this process; negative if auth is behind."))
	_, err2 := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		if now := revoked.State(); now.ClockKnown {
			o.ObserveFloat64(offset, now.ClockAhead.Seconds())
		}
		return nil
	}, offset)
	if err := errors.Join(err1, err2); err != nil {
		return fmt.Errorf("measure the clock: %w", err)
	}
	return nil
}
