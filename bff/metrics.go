package bff

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"gatehouse/internal/policy"
	"gatehouse/internal/telemetry"
)

// The counters and histograms of the gateway. They use OpenTelemetry's global meter,
// and record nothing until the process sets a meter provider.
var (
	meter = otel.Meter(telemetry.Scope)

	verifications, _ = meter.Int64Counter("gatehouse.bff.token.verifications", metric.WithUnit("{token}"),
		metric.WithDescription("Access tokens that were verified, whatever the result."))
	rateRefusals, _ = meter.Int64Counter("gatehouse.bff.rate.refusals", metric.WithUnit("{call}"),
		metric.WithDescription("Calls that were refused because their caller or IP address exceeded its rate."))
	sheds, _ = meter.Int64Counter("gatehouse.bff.sheds", metric.WithUnit("{call}"),
		metric.WithDescription("Calls that the load shedder refused."))
	queueDelay, _ = meter.Float64Histogram("gatehouse.bff.queue.delay", metric.WithUnit("s"),
		metric.WithDescription("How long calls waited in the queue, including refused calls."),
		metric.WithExplicitBucketBoundaries(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1))
	missingParts, _ = meter.Int64Counter("gatehouse.bff.parts.missing", metric.WithUnit("{part}"),
		metric.WithDescription("Optional parts that were missing from responses."))
	cacheCalls, _ = meter.Int64Counter("gatehouse.bff.cache.calls", metric.WithUnit("{call}"),
		metric.WithDescription("Calls of cacheable methods: answered from the cache (hit), by calling the services (miss), by an in-flight call (coalesced), or without the cache because its feed is out of date (bypassed)."))
	cachePurges, _ = meter.Int64Counter("gatehouse.bff.cache.purges", metric.WithUnit("{tag}"),
		metric.WithDescription("Tags whose cache entries were invalidated, by a write or by a change from a feed."))
)

// verified holds the labels of each result. They are made once, because counting must
// cost no more than finding a verified token in memory.
var verified = func() map[string][2]metric.MeasurementOption {
	labels := map[string][2]metric.MeasurementOption{}
	for _, result := range []string{"valid", "expired", "invalid", "no_keys"} {
		of := func(remembered bool) metric.MeasurementOption {
			return metric.WithAttributeSet(attribute.NewSet(attribute.String("result", result), attribute.Bool("remembered", remembered)))
		}
		labels[result] = [2]metric.MeasurementOption{of(false), of(true)}
	}
	return labels
}()

func countVerification(remembered bool, err error) {
	ctx := context.Background()
	if !verifications.Enabled(ctx) {
		return
	}
	result := "valid"
	switch {
	case err == nil:
	case errors.Is(err, errTokenExpired):
		result = "expired"
	case connect.CodeOf(err) == connect.CodeUnavailable:
		result = "no_keys"
	default:
		result = "invalid"
	}
	labels := verified[result][0]
	if remembered {
		labels = verified[result][1]
	}
	verifications.Add(ctx, 1, labels)
}

// methodLabel returns the labels of a metric that counts by method. Call it once for
// each method, not for each call.
func methodLabel(plan *policy.Method, more ...string) metric.MeasurementOption {
	labels := []attribute.KeyValue{attribute.String("rpc_method", strings.TrimPrefix(plan.Procedure, "/"))}
	for i := 0; i+1 < len(more); i += 2 {
		labels = append(labels, attribute.String(more[i], more[i+1]))
	}
	return metric.WithAttributeSet(attribute.NewSet(labels...))
}

func countMissing(ctx context.Context, part string, code connect.Code) {
	missingParts.Add(ctx, 1, metric.WithAttributes(attribute.String("part", part), attribute.String("code", code.String())))
}

// Measure registers the observable gauges of the gateway.
func (s *Service) Measure(meter metric.Meter) error {
	for _, by := range []metric.MeasurementOption{invalidatedByCall, invalidatedByFeed} {
		countInvalidations(context.Background(), 0, by)
	}
	if err := errors.Join(s.shedder.measure(meter), s.measureClock(meter), measureCache(meter, s.cache, s.changes)); err != nil {
		return err
	}
	age, err1 := meter.Float64ObservableGauge("gatehouse.bff.feed.age", metric.WithUnit("s"),
		metric.WithDescription("Time since the last message of auth's stream of revocations; absent before the first."))
	mode, err2 := meter.Int64ObservableGauge("gatehouse.bff.feed.mode",
		metric.WithDescription("1 for the current way to learn of revocations: from the stream, or by asking auth about each call."))
	held, err3 := meter.Int64ObservableGauge("gatehouse.bff.revocations", metric.WithUnit("{revocation}"),
		metric.WithDescription("Revocations that access tokens are checked against."))
	if err := errors.Join(err1, err2, err3); err != nil {
		return fmt.Errorf("measure the feed: %w", err)
	}
	labelled := func(name, value string) metric.MeasurementOption {
		return metric.WithAttributeSet(attribute.NewSet(attribute.String(name, value)))
	}
	stream, asking := labelled("mode", "stream"), labelled("mode", "asking")
	sessions, accounts := labelled("of", "session"), labelled("of", "account")
	_, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		now := s.revoked.state()
		if now.spoken {
			o.ObserveFloat64(age, now.age.Seconds())
		}
		o.ObserveInt64(mode, oneIf(now.fresh), stream)
		o.ObserveInt64(mode, oneIf(!now.fresh), asking)
		o.ObserveInt64(held, int64(now.sessions), sessions)
		o.ObserveInt64(held, int64(now.accounts), accounts)
		return nil
	}, age, mode, held)
	if err != nil {
		return fmt.Errorf("measure the feed: %w", err)
	}
	return nil
}

func oneIf(holds bool) int64 {
	if holds {
		return 1
	}
	return 0
}

// feedState is the state of the stream of revocations.
type feedState struct {
	spoken, fresh      bool
	age                time.Duration
	sessions, accounts int
}

func (r *revocations) state() feedState {
	r.mu.RLock()
	defer r.mu.RUnlock()
	age := r.now().Sub(r.heard)
	spoken := !r.heard.IsZero()
	return feedState{spoken: spoken, fresh: spoken && age <= silence, age: age, sessions: len(r.sessions), accounts: len(r.versions)}
}
