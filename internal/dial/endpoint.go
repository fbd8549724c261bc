package dial

import (
	"context"
	"log/slog"
	"math"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// endpoint is one resolved address of a service, with the state of its health.
type endpoint struct {
	service, address string
	url              *url.URL
	http2            *http.Transport
	http1            roundTripper // for repeatable calls
	version          atomic.Int32 // an httpVersion
	versionAt        atomic.Int64 // when the version may be probed again, in Unix nanoseconds
	ping             func(context.Context) error

	breaker    breaker
	refusals   refusals
	inFlight   atomic.Int64
	avoidUntil atomic.Int64 // until when other endpoints are preferred after a failed dial, in Unix nanoseconds
	ejected    atomic.Bool
	removed    atomic.Bool // the service no longer has this address

	monitored   atomic.Bool  // a check by the load balancer is scheduled
	busySince   atomic.Int64 // when the calls in flight last rose from zero, in Unix nanoseconds
	respondedAt atomic.Int64 // the time of the last response, in Unix nanoseconds
	timeouts    atomic.Int64 // since the last response

	latencies sync.Map // procedure → *latencies

	// The mutex of the load balancer guards the rest.
	ejections int       // in a row
	ejectedAt time.Time // the last time
	holdUntil time.Time // the earliest end of the ejection
}

// roundTripper sends HTTP requests to one address.
type roundTripper interface {
	http.RoundTripper
	CloseIdleConnections()
}

func newEndpoint(service, address string, logger *slog.Logger) *endpoint {
	e := &endpoint{service: service, address: address, breaker: newBreaker(service, address, logger)}
	e.ping = func(context.Context) error { return nil }
	e.report()
	return e
}

func (e *endpoint) isAvoided(now time.Time) bool { return now.UnixNano() < e.avoidUntil.Load() }

func (e *endpoint) beginCall() {
	if e.inFlight.Add(1) == 1 {
		e.busySince.Store(time.Now().UnixNano())
	}
}

func (e *endpoint) recordResponse() {
	e.respondedAt.Store(time.Now().UnixNano())
	e.timeouts.Store(0)
}

// silentFor returns how long the endpoint has had calls in flight without a response.
func (e *endpoint) silentFor() time.Duration {
	return time.Duration(time.Now().UnixNano() - max(e.busySince.Load(), e.respondedAt.Load()))
}

// latenciesOf returns the latencies of a method.
func (e *endpoint) latenciesOf(procedure string) *latencies {
	if known, ok := e.latencies.Load(procedure); ok {
		return known.(*latencies)
	}
	known, _ := e.latencies.LoadOrStore(procedure, &latencies{})
	return known.(*latencies)
}

// latencies is a histogram of response times in which old samples decay. Each bucket is
// 2^(1/4) times as wide as the one before.
type latencies struct {
	mu      sync.Mutex
	buckets [64]uint32
	total   uint32
}

const (
	latencyUnit    = 100 * time.Microsecond
	latencySamples = 1024 // after so many, all counts are halved
)

func (l *latencies) add(took time.Duration) {
	i := 0
	if took > latencyUnit {
		i = min(int(4*math.Log2(float64(took)/float64(latencyUnit)))+1, len(l.buckets)-1)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buckets[i]++
	if l.total++; l.total < latencySamples {
		return
	}
	l.total = 0
	for i := range l.buckets {
		l.buckets[i] /= 2
		l.total += l.buckets[i]
	}
}

// quantile returns the q-quantile of the latencies. It reports false if there are fewer than
// minSamples.
func (l *latencies) quantile(q float64, minSamples uint32) (time.Duration, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.total < minSamples {
		return 0, false
	}
	var sum uint32
	for i, n := range l.buckets {
		if sum += n; float64(sum) >= q*float64(l.total) {
			return time.Duration(float64(latencyUnit) * math.Exp2(float64(i)/4)), true
		}
	}
	return time.Duration(float64(latencyUnit) * math.Exp2(float64(len(l.buckets))/4)), true
}

var (
	endpointsEjected, _ = breakerMeter.Int64Gauge("gatehouse.rpc.endpoint.ejected",
		metric.WithDescription("1 while the load balancer sends an endpoint no calls, because it was silent or slow while others answered."))
	ejections, _ = breakerMeter.Int64Counter("gatehouse.rpc.endpoint.ejections", metric.WithUnit("{ejection}"),
		metric.WithDescription("How often the load balancer ejected an endpoint, by reason: silence or latency."))
	retries, _ = breakerMeter.Int64Counter("gatehouse.rpc.retries", metric.WithUnit("{attempt}"),
		metric.WithDescription("Attempts that were made because the one before got no answer."))
	hedges, _ = breakerMeter.Int64Counter("gatehouse.rpc.hedges", metric.WithUnit("{attempt}"),
		metric.WithDescription("Attempts that were made at another endpoint because the first one took long."))
)

func endpointLabel(service, endpoint string, more ...attribute.KeyValue) metric.MeasurementOption {
	return metric.WithAttributeSet(attribute.NewSet(append(more, attribute.String("service", service), attribute.String("endpoint", endpoint))...))
}

// report updates the metrics. A removed endpoint counts as neither ejected nor open.
func (e *endpoint) report() {
	ctx, label := context.Background(), endpointLabel(e.service, e.address)
	ejected := int64(0)
	if e.ejected.Load() && !e.removed.Load() {
		ejected = 1
	}
	endpointsEjected.Record(ctx, ejected, label)
	if e.removed.Load() {
		breakersOpen.Record(ctx, 0, label)
	}
	for _, reason := range []string{ejectedForSilence, ejectedForLatency} {
		ejections.Add(ctx, 0, endpointLabel(e.service, e.address, attribute.String("reason", reason)))
	}
}
