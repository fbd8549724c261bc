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

// What is counted as it happens. These are the process's, as OpenTelemetry's
// API means it, and count nothing until the process has something to tell.
var (
	meter = otel.Meter(telemetry.Scope)

	verifications, _ = meter.Int64Counter("gatehouse.bff.token.verifications", metric.WithUnit("{token}"),
		metric.WithDescription("Access tokens that were looked at."))
	rateRefusals, _ = meter.Int64Counter("gatehouse.bff.rate.refusals", metric.WithUnit("{call}"),
		metric.WithDescription("Calls that were refused because their caller, or their address, makes too many."))
	sheds, _ = meter.Int64Counter("gatehouse.bff.sheds", metric.WithUnit("{call}"),
		metric.WithDescription("Calls that were refused because there was more to do than could be done."))
	queueDelay, _ = meter.Float64Histogram("gatehouse.bff.queue.delay", metric.WithUnit("s"),
		metric.WithDescription("How long calls waited in the queue, those that were refused in it among them."),
		metric.WithExplicitBucketBoundaries(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1))
	missingParts, _ = meter.Int64Counter("gatehouse.bff.parts.missing", metric.WithUnit("{part}"),
		metric.WithDescription("Optional parts that answers had to do without."))
	cacheCalls, _ = meter.Int64Counter("gatehouse.bff.cache.calls", metric.WithUnit("{call}"),
		metric.WithDescription("Calls of methods whose answers may be kept: answered by a kept one (hit), by asking the services (miss), by what another call asked for (coalesced), or past the cache, which a feed has left out of date (bypassed)."))
	cachePurges, _ = meter.Int64Counter("gatehouse.bff.cache.purges", metric.WithUnit("{tag}"),
		metric.WithDescription("Tags whose cache entries were invalidated, by a write or by a change from a feed."))
)

// verified are the labels of each result, made once: a token that was seen
// before costs next to nothing to verify, and its counting may cost no more.
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

// Measure measures what is to be looked at when somebody asks.
func (s *Service) Measure(meter metric.Meter) error {
	for _, by := range []metric.MeasurementOption{invalidatedByCall, invalidatedByFeed} {
		countInvalidations(context.Background(), 0, by)
	}
	if err := errors.Join(s.shedder.measure(meter), s.measureClock(meter), measureCache(meter, s.cache, s.changes)); err != nil {
		return err
	}
	age, err1 := meter.Float64ObservableGauge("gatehouse.bff.feed.age", metric.WithUnit("s"),
		metric.WithDescription("How long ago auth's stream of revocations spoke last; nothing before it has."))
	mode, err2 := meter.Int64ObservableGauge("gatehouse.bff.feed.mode",
		metric.WithDescription("1 for how the gateway learns what is revoked: from the stream, or by asking auth about each call."))
	held, err3 := meter.Int64ObservableGauge("gatehouse.bff.revocations", metric.WithUnit("{revocation}"),
		metric.WithDescription("Revocations that access tokens are held against."))
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

// feedState is how the stream of revocations is doing.
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
