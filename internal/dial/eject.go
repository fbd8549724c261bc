package dial

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/attribute"
)

const (
	// An endpoint with calls in flight that has not responded for silentAfter is pinged. It
	// is silent if it does not respond within pingTimeout.
	silentAfter  = 300 * time.Millisecond
	pingTimeout  = 700 * time.Millisecond
	pingInterval = time.Second
	// An endpoint is ejected after maxTimeouts consecutive timeouts and at least timeoutPeriod
	// without a response, while other endpoints respond.
	maxTimeouts   = 5
	timeoutPeriod = time.Second
	// An endpoint is slow if its median latency for a method is slowFactor times that of
	// another endpoint and at least slowMedian, over at least slowSamples calls.
	slowFactor  = 5
	slowMedian  = 100 * time.Millisecond
	slowSamples = 20
	// slowHold is the minimum ejection time of a slow endpoint, which a ping cannot
	// distinguish from a healthy one. Ejections within slowMemory of each other multiply it,
	// by at most maxSlowHolds.
	slowHold     = 5 * time.Second
	maxSlowHolds = 6
	slowMemory   = time.Minute
	// recentResponse is how recently another endpoint must have responded.
	recentResponse = time.Second
)

const (
	ejectedForSilence = "silence"
	ejectedForLatency = "latency"
)

// pingHTTP requests /livez over HTTP/1.1. A connection is not enough: the kernel accepts
// connections for a frozen process.
func (e *endpoint) pingHTTP(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, e.url.Scheme+"://"+e.url.Host+"/livez", nil)
	if err != nil {
		return fmt.Errorf("create a ping: %w", err)
	}
	response, err := e.transportFor(ctx, true).RoundTrip(request)
	if err != nil {
		return fmt.Errorf("ping: %w", err)
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 1024))
	return nil
}

// respondsToPing reports whether the endpoint responds to a ping. A refused connection is a
// response: the process has ended, which the next dial detects.
func (e *endpoint) respondsToPing() bool { return !errors.Is(pingOnce(e), errSilentPing) }

var errSilentPing = errors.New("no response to a ping")

func pingOnce(e *endpoint) error {
	ctx, cancel := context.WithTimeout(context.Background(), pingTimeout)
	defer cancel()
	err := e.ping(ctx)
	if err != nil && ctx.Err() != nil {
		return errSilentPing
	}
	return err
}

// monitor checks an endpoint until it has no calls in flight, if there are other endpoints.
func (b *loadBalancer) monitor(e *endpoint, endpoints []*endpoint) {
	if len(endpoints) > 1 && !e.ejected.Load() && e.monitored.CompareAndSwap(false, true) {
		time.AfterFunc(silentAfter, func() { b.check(e, endpoints) })
	}
}

func (b *loadBalancer) check(e *endpoint, endpoints []*endpoint) {
	wait := silentAfter - e.silentFor()
	switch {
	case e.removed.Load() || e.ejected.Load():
		e.monitored.Store(false)
		return
	case e.inFlight.Load() == 0:
		e.monitored.Store(false)
		if e.inFlight.Load() > 0 { // a call began in between
			b.monitor(e, endpoints)
		}
		return
	case wait > 0:
	case !e.respondsToPing() && b.eject(e, endpoints, ejectedForSilence):
		e.monitored.Store(false)
		return
	default:
		wait = pingInterval
	}
	time.AfterFunc(wait, func() { b.check(e, endpoints) })
}

// pingInBackground pings an endpoint that may be silent, and ejects it if it is.
func (b *loadBalancer) pingInBackground(e *endpoint, endpoints []*endpoint) {
	if len(endpoints) > 1 && !e.ejected.Load() && !e.removed.Load() {
		time.AfterFunc(0, func() {
			if !e.respondsToPing() {
				b.eject(e, endpoints, ejectedForSilence)
			}
		})
	}
}

// recordResponse records a response and its latency. ok reports that it is not an error.
func (b *loadBalancer) recordResponse(e *endpoint, endpoints []*endpoint, procedure string, took time.Duration, ok bool) {
	e.recordResponse()
	if len(endpoints) == 1 {
		return
	}
	if ok {
		e.latenciesOf(procedure).add(took)
	}
	if e.ejected.Load() {
		b.restore(e)
	} else if ok && took >= slowMedian && isSlow(e, endpoints, procedure) {
		b.eject(e, endpoints, ejectedForLatency)
	}
}

// recordTimeout records an attempt that got no response in time. An endpoint that responds
// to pings, but not to calls, is slow.
func (b *loadBalancer) recordTimeout(e *endpoint, endpoints []*endpoint) {
	timeouts := e.timeouts.Add(1)
	silence := time.Since(time.Unix(0, e.respondedAt.Load()))
	if len(endpoints) == 1 || timeouts < maxTimeouts || silence < timeoutPeriod || e.ejected.Load() {
		return
	}
	time.AfterFunc(0, func() {
		reason := ejectedForLatency
		if !e.respondsToPing() {
			reason = ejectedForSilence
		}
		if e.timeouts.Load() >= maxTimeouts {
			b.eject(e, endpoints, reason)
		}
	})
}

// isSlow reports whether the endpoint is much slower for a method than another one.
func isSlow(e *endpoint, endpoints []*endpoint, procedure string) bool {
	median, known := e.latenciesOf(procedure).quantile(0.5, slowSamples)
	if !known || median < slowMedian {
		return false
	}
	for _, other := range endpoints {
		if other != e && !other.ejected.Load() {
			if fast, known := other.latenciesOf(procedure).quantile(0.5, slowSamples); known && median > slowFactor*fast {
				return true
			}
		}
	}
	return false
}

// eject ejects an endpoint, unless that would eject more than half of the endpoints or no
// other endpoint responds. It reports whether the endpoint is ejected.
func (b *loadBalancer) eject(e *endpoint, endpoints []*endpoint, reason string) bool {
	if e.ejected.Load() {
		return true
	}
	if !b.anotherResponds(e, endpoints, reason == ejectedForSilence) {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	ejected := 1
	for _, other := range endpoints {
		if other.ejected.Load() {
			ejected++
		}
	}
	if e.ejected.Load() || e.removed.Load() || 2*ejected > len(endpoints) {
		return e.ejected.Load()
	}
	now := time.Now()
	if now.Sub(e.ejectedAt) > slowMemory {
		e.ejections = 0
	}
	e.ejections, e.ejectedAt, e.holdUntil = e.ejections+1, now, now
	if reason == ejectedForLatency {
		e.holdUntil = now.Add(time.Duration(min(e.ejections, maxSlowHolds)) * slowHold)
	}
	e.ejected.Store(true)
	e.report()
	ejections.Add(context.Background(), 1, endpointLabel(b.service, e.address, attribute.String("reason", reason)))
	b.logger.Warn("load balancer: endpoint ejected", "service", b.service, "endpoint", e.address, "reason", reason)
	time.AfterFunc(pingInterval, func() { b.probe(e) })
	return true
}

// anotherResponds reports whether another endpoint has responded recently or, if ping is
// set, responds to a ping.
func (b *loadBalancer) anotherResponds(e *endpoint, endpoints []*endpoint, ping bool) bool {
	since := time.Now().Add(-recentResponse).UnixNano()
	for _, other := range endpoints {
		if other != e && !other.ejected.Load() && other.respondedAt.Load() > since {
			return true
		}
	}
	for _, other := range endpoints {
		if ping && other != e && !other.ejected.Load() && pingOnce(other) == nil {
			return true
		}
	}
	return false
}

// probe pings an ejected endpoint once a second until it is restored.
func (b *loadBalancer) probe(e *endpoint) {
	if e.removed.Load() || !e.ejected.Load() {
		return
	}
	if pingOnce(e) != nil || !b.restore(e) {
		time.AfterFunc(pingInterval, func() { b.probe(e) })
	}
}

// restore ends an ejection whose minimum time is over. It reports whether the endpoint is
// not ejected.
func (b *loadBalancer) restore(e *endpoint) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !e.ejected.Load() || time.Now().Before(e.holdUntil) {
		return !e.ejected.Load()
	}
	e.latencies.Clear()
	e.recordResponse()
	e.avoidUntil.Store(0)
	e.breaker.circuit.Close()
	e.ejected.Store(false)
	e.report()
	b.logger.Info("load balancer: endpoint healthy", "service", b.service, "endpoint", e.address, "after", time.Since(e.ejectedAt).Round(time.Millisecond).String())
	return true
}
