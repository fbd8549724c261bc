package bff

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"gatehouse/internal/answercache"
)

var cacheResults = [...]string{
	answercache.Hit: "hit", answercache.Miss: "miss", answercache.Coalesced: "coalesced", answercache.Bypassed: "bypassed",
}

// cacheCounter returns the function that counts how a method's calls are answered.
// The labels are made once: a hit costs next to nothing, and so must counting it.
func cacheCounter(procedure string) func(context.Context, answercache.Result) {
	var labels [len(cacheResults)]metric.MeasurementOption
	for result, name := range cacheResults {
		labels[result] = metric.WithAttributeSet(attribute.NewSet(attribute.String("method", procedure), attribute.String("result", name)))
	}
	return func(ctx context.Context, result answercache.Result) {
		if cacheCalls.Enabled(ctx) {
			cacheCalls.Add(ctx, 1, labels[result])
		}
	}
}

// What invalidated an entry.
var (
	invalidatedByCall = metric.WithAttributeSet(attribute.NewSet(attribute.String("by", "call")))
	invalidatedByFeed = metric.WithAttributeSet(attribute.NewSet(attribute.String("by", "feed")))
)

func countInvalidations(ctx context.Context, tags int, by metric.MeasurementOption) {
	cachePurges.Add(ctx, int64(tags), by)
}

func measureCache(meter metric.Meter, cache *answercache.Cache, feeds changeFeeds) error {
	bytes, err1 := meter.Int64ObservableGauge("gatehouse.bff.cache.size", metric.WithUnit("By"),
		metric.WithDescription("Approximate memory of the cache entries."))
	current, err2 := meter.Int64ObservableGauge("gatehouse.bff.cache.current",
		metric.WithDescription("1 while the feed of changes is no older than a second, so that answers are cached."))
	if err := errors.Join(err1, err2); err != nil {
		return fmt.Errorf("register the cache's metrics: %w", err)
	}
	_, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		o.ObserveInt64(bytes, cache.Size())
		for _, feed := range feeds {
			o.ObserveInt64(current, oneIf(feed.isCurrent(time.Now())), metric.WithAttributes(attribute.String("of", feed.name)))
		}
		return nil
	}, bytes, current)
	if err != nil {
		return fmt.Errorf("register the cache's metrics: %w", err)
	}
	return nil
}
