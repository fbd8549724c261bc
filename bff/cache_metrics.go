package bff

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// cacheResult is how a call of a method whose answers may be kept was answered.
type cacheResult int

const (
	cacheHit cacheResult = iota
	cacheMiss
	cacheCoalesced
	cacheBypassed
)

var cacheResults = [...]string{cacheHit: "hit", cacheMiss: "miss", cacheCoalesced: "coalesced", cacheBypassed: "bypassed"}

// cacheCounts are a method's labels for each result, made once: a hit costs next
// to nothing, and its counting may cost no more.
type cacheCounts [len(cacheResults)]metric.MeasurementOption

func newCacheCounts(procedure string) *cacheCounts {
	var counts cacheCounts
	for result, name := range cacheResults {
		counts[result] = metric.WithAttributeSet(attribute.NewSet(attribute.String("method", procedure), attribute.String("result", name)))
	}
	return &counts
}

func (c *cacheCounts) add(ctx context.Context, result cacheResult) {
	if cacheCalls.Enabled(ctx) {
		cacheCalls.Add(ctx, 1, c[result])
	}
}

// Who purged.
var (
	purgedByCall = metric.WithAttributeSet(attribute.NewSet(attribute.String("by", "call")))
	purgedByFeed = metric.WithAttributeSet(attribute.NewSet(attribute.String("by", "feed")))
)

func countPurges(ctx context.Context, tags int, by metric.MeasurementOption) {
	cachePurges.Add(ctx, int64(tags), by)
}

func (c *cache) measure(meter metric.Meter) error {
	bytes, err1 := meter.Int64ObservableGauge("gatehouse.bff.cache.size", metric.WithUnit("By"),
		metric.WithDescription("About how much memory kept answers take."))
	current, err2 := meter.Int64ObservableGauge("gatehouse.bff.cache.current",
		metric.WithDescription("1 while the stream of changes is no older than a second, so that answers are kept."))
	if err := errors.Join(err1, err2); err != nil {
		return fmt.Errorf("measure the cache: %w", err)
	}
	_, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		o.ObserveInt64(bytes, int64(c.kept.WeightedSize()))
		for _, feed := range c.feeds {
			o.ObserveInt64(current, oneIf(feed.isCurrent(c.now())), metric.WithAttributes(attribute.String("of", feed.source)))
		}
		return nil
	}, bytes, current)
	if err != nil {
		return fmt.Errorf("measure the cache: %w", err)
	}
	return nil
}
