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
	// An endpoint with calls in flight that has answered none for silentAfter is
	// pinged. One that doesn't answer within pingLimit is silent.
	silentAfter  = 300 * time.Millisecond
	pingTimeout  = 700 * time.Millisecond
	pingInterval = time.Second
	// unansweredMost is how many attempts in a row, over unansweredFor, may get no
	// answer in time while other endpoints answer.
	maxUnanswered = 5
	unansweredFor = time.Second
	// An endpoint is slow whose median is slowTimes that of another, for the same
	// method, and at least slowLeast.
	slowFactor  = 5
	slowMedian  = 100 * time.Millisecond
	slowSamples = 20
	// slowHold is for how long a slow endpoint stays ejected at least, which a ping
	// can't tell from a healthy one. It grows with each ejection in a row.
	slowHold     = 5 * time.Second
	maxSlowHolds = 6
	slowMemory   = time.Minute
	// answeredLately is how recently another endpoint must have answered.
	answeredLately = time.Second
)

const (
	ejectedForSilence = "silence"
	ejectedForLatency = "latency"
)

// pingHTTP asks whether the process lives, over HTTP/1.1. A process that is frozen
// has a kernel that still accepts connections; HTTP/2 has pings of its own.
func (e *endpoint) pingHTTP(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, e.url.Scheme+"://"+e.url.Host+"/livez", nil)
	if err != nil {
		return fmt.Errorf("make a ping: %w", err)
	}
	response, err := e.transportFor(ctx, true).RoundTrip(request)
	if err != nil {
		return fmt.Errorf("ping: %w", err)
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 1024))
	return nil
}

// answersPing reports whether the endpoint answers a ping. A refusal is an answer:
// a process that has ended isn't silent, and the next dial finds out.
func (e *endpoint) answersPing() bool { return !errors.Is(pingOnce(e), errSilentPing) }

var errSilentPing = errors.New("no answer to a ping")

func pingOnce(e *endpoint) error {
	ctx, cancel := context.WithTimeout(context.Background(), pingTimeout)
	defer cancel()
	err := e.ping(ctx)
	if err != nil && ctx.Err() != nil {
		return errSilentPing
	}
	return err
}

// watch looks at an endpoint until it has no calls in flight, if there are others.
func (b *loadBalancer) watch(e *endpoint, endpoints []*endpoint) {
	if len(endpoints) > 1 && !e.ejected.Load() && e.watched.CompareAndSwap(false, true) {
		time.AfterFunc(silentAfter, func() { b.check(e, endpoints) })
	}
}

func (b *loadBalancer) check(e *endpoint, endpoints []*endpoint) {
	wait := silentAfter - e.silentFor()
	switch {
	case e.removed.Load() || e.ejected.Load():
		e.watched.Store(false)
		return
	case e.inFlight.Load() == 0:
		e.watched.Store(false)
		if e.inFlight.Load() > 0 { // since
			b.watch(e, endpoints)
		}
		return
	case wait > 0:
	case !e.answersPing() && b.eject(e, endpoints, ejectedForSilence):
		e.watched.Store(false)
		return
	default:
		wait = pingInterval
	}
	time.AfterFunc(wait, func() { b.check(e, endpoints) })
}

// suspect pings an endpoint that may be silent, without waiting for the result.
func (b *loadBalancer) suspect(e *endpoint, endpoints []*endpoint) {
	if len(endpoints) > 1 && !e.ejected.Load() && !e.removed.Load() {
		time.AfterFunc(0, func() {
			if !e.answersPing() {
				b.eject(e, endpoints, ejectedForSilence)
			}
		})
	}
}

// recordAnswer records that an endpoint answered, and how fast.
func (b *loadBalancer) recordAnswer(e *endpoint, endpoints []*endpoint, procedure string, took time.Duration, ok bool) {
	e.recordAnswer()
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

// recordSilence records that an attempt got no answer in time. An endpoint that
// answers pings, but no calls for a while, is slow.
func (b *loadBalancer) recordSilence(e *endpoint, endpoints []*endpoint) {
	unanswered := e.unanswered.Add(1)
	quiet := time.Since(time.Unix(0, e.answeredAt.Load()))
	if len(endpoints) == 1 || unanswered < maxUnanswered || quiet < unansweredFor || e.ejected.Load() {
		return
	}
	time.AfterFunc(0, func() {
		reason := ejectedForLatency
		if !e.answersPing() {
			reason = ejectedForSilence
		}
		if e.unanswered.Load() >= maxUnanswered {
			b.eject(e, endpoints, reason)
		}
	})
}

// isSlow reports whether the endpoint answers a method much later than another.
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

// eject takes an endpoint out, unless half of them are out or no other answers. It
// reports whether the endpoint is out.
func (b *loadBalancer) eject(e *endpoint, endpoints []*endpoint, reason string) bool {
	if e.ejected.Load() {
		return true
	}
	if !b.anotherAnswers(e, endpoints, reason == ejectedForSilence) {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	out := 1
	for _, other := range endpoints {
		if other.ejected.Load() {
			out++
		}
	}
	if e.ejected.Load() || e.removed.Load() || 2*out > len(endpoints) {
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

// anotherAnswers reports whether another endpoint has answered lately, or, where
// there were no calls to answer, does answer a ping.
func (b *loadBalancer) anotherAnswers(e *endpoint, endpoints []*endpoint, ask bool) bool {
	lately := time.Now().Add(-answeredLately).UnixNano()
	for _, other := range endpoints {
		if other != e && !other.ejected.Load() && other.answeredAt.Load() > lately {
			return true
		}
	}
	for _, other := range endpoints {
		if ask && other != e && !other.ejected.Load() && pingOnce(other) == nil {
			return true
		}
	}
	return false
}

// probe pings an ejected endpoint once a second until it answers.
func (b *loadBalancer) probe(e *endpoint) {
	if e.removed.Load() || !e.ejected.Load() {
		return
	}
	if pingOnce(e) != nil || !b.restore(e) {
		time.AfterFunc(pingInterval, func() { b.probe(e) })
	}
}

// restore lets an ejected endpoint have calls again, unless it is too soon.
func (b *loadBalancer) restore(e *endpoint) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !e.ejected.Load() || time.Now().Before(e.holdUntil) {
		return !e.ejected.Load()
	}
	e.latencies.Clear()
	e.recordAnswer()
	e.avoidUntil.Store(0)
	e.breaker.circuit.Close()
	e.ejected.Store(false)
	e.report()
	b.logger.Info("load balancer: endpoint healthy", "service", b.service, "endpoint", e.address, "after", time.Since(e.ejectedAt).Round(time.Millisecond).String())
	return true
}
