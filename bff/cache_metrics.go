package bff

import (
	"context"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"gatehouse/internal/answercache"
	"gatehouse/internal/calltrace"
	"gatehouse/internal/telemetry"
)

var (
	cacheCalls, _ = otel.Meter(telemetry.Scope).Int64Counter("gatehouse.bff.cache.calls", metric.WithUnit("{call}"),
		metric.WithDescription("Calls of cacheable methods: answered from the cache (hit), by calling the services (miss), by an in-flight call (coalesced), or without the cache because its feed is out of date (bypassed)."))
	cachePurges, _ = otel.Meter(telemetry.Scope).Int64Counter("gatehouse.bff.cache.purges", metric.WithUnit("{tag}"),
		metric.WithDescription("Tags whose cache entries were invalidated, by a write or by a change from a feed."))
)

var cacheResults = [...]string{
	answercache.Hit: "hit", answercache.Miss: "miss", answercache.Coalesced: "coalesced", answercache.Bypassed: "bypassed",
}

// cacheCounter returns the function that counts the cache results of a method's calls.
// It builds the labels once, because counting must cost less than a cache hit.
func cacheCounter(procedure string) func(context.Context, answercache.Result) {
	var labels [len(cacheResults)]metric.MeasurementOption
	for result, name := range cacheResults {
		labels[result] = metric.WithAttributeSet(attribute.NewSet(attribute.String("method", procedure), attribute.String("result", name)))
	}
	return func(ctx context.Context, result answercache.Result) {
		calltrace.At(ctx).SetCache(cacheResults[result])
		if cacheCalls.Enabled(ctx) {
			cacheCalls.Add(ctx, 1, labels[result])
		}
	}
}

// The values of the label that says what invalidated an entry.
var (
	invalidatedByCall = metric.WithAttributeSet(attribute.NewSet(attribute.String("by", "call")))
	invalidatedByFeed = metric.WithAttributeSet(attribute.NewSet(attribute.String("by", "feed")))
)

func countInvalidations(ctx context.Context, tags int, by metric.MeasurementOption) {
	cachePurges.Add(ctx, int64(tags), by)
}
