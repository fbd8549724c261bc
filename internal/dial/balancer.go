package dial

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect/v2"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"gatehouse/internal/rpc"
)

var errBreakersOpen = errors.New("circuit breaker open: no endpoint has responded lately")

// loadBalancer spreads the calls to a service over its endpoints. Of two random
// healthy endpoints, a call goes to the one with fewer calls in flight (Mitzenmacher,
// "The Power of Two Choices in Randomized Load Balancing", 2001).
//
// Each endpoint has a circuit breaker. An endpoint that is silent or slow while others
// respond is ejected (eject.go). Other endpoints are preferred to one that responds that it
// is unavailable (refusal.go). A slow repeatable call is hedged at a second endpoint
// (hedge.go). A write is made once, at an endpoint that is considered healthy.
type loadBalancer struct {
	service   string
	logger    *slog.Logger
	endpoints func(context.Context) ([]*endpoint, error)
	budget    budget
	label     metric.MeasurementOption
	streams   sync.Map // procedure → the *endpoint of the latest stream

	mu sync.Mutex // held while an endpoint is ejected or restored
}

func newLoadBalancer(service string, logger *slog.Logger, endpoints func(context.Context) ([]*endpoint, error)) *loadBalancer {
	b := &loadBalancer{service: service, logger: logger, endpoints: endpoints}
	b.label = metric.WithAttributeSet(attribute.NewSet(attribute.String("service", service)))
	retries.Add(context.Background(), 0, b.label)
	hedges.Add(context.Background(), 0, b.label)
	return b
}

// balance sends each unary call to a chosen endpoint, and retries it where that is safe. It
// opens a stream once: the reader of a stream reopens it.
func (b *loadBalancer) balance(next connect.ClientFunc) connect.ClientFunc {
	return func(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
		if spec.StreamType != connect.StreamTypeUnary {
			return b.openStream(ctx, spec, next)
		}
		again := repeatable(ctx, spec) && attemptsOf(ctx) > 1
		if again { // HTTP/1.1 may lose the call, which is then retried
			ctx = asRepeatable(ctx)
		}
		return &unaryCall{make: func(request, response any) error {
			call := &balancedCall{balancer: b, spec: spec, next: next, request: request, repeatable: again}
			return call.make(ctx, response)
		}}, nil
	}
}

// callOnce sends each call exactly once, even if the circuit breakers are open.
func (b *loadBalancer) callOnce(next connect.ClientFunc) connect.ClientFunc {
	return func(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
		if spec.StreamType != connect.StreamTypeUnary {
			return b.openStream(ctx, spec, next)
		}
		return &unaryCall{make: func(request, response any) error {
			endpoints, err := b.endpoints(ctx)
			if err != nil {
				return lookupError(ctx, err)
			}
			chosen := leastBusy(healthy(endpoints))
			if chosen == nil {
				chosen = endpoints[rand.IntN(len(endpoints))]
			}
			call := &balancedCall{balancer: b, spec: spec, next: next, request: request}
			return call.attempt(ctx, newPlacement(chosen, endpoints, false, true), response)
		}}, nil
	}
}

// openStream avoids the endpoint of the method's latest stream: that stream may have
// ended because the endpoint went silent, which is checked in the background. The streams
// of a feed go where those of other callers go (shared.go).
func (b *loadBalancer) openStream(ctx context.Context, spec connect.Spec, next connect.ClientFunc) (connect.ClientStream, error) {
	endpoints, err := b.endpoints(ctx)
	if err != nil {
		return nil, lookupError(ctx, err)
	}
	if len(endpoints) > 1 {
		var avoid []*endpoint
		if last, ok := b.streams.Load(spec.Procedure); ok {
			avoid = append(avoid, last.(*endpoint))
			b.pingInBackground(last.(*endpoint), endpoints)
		}
		choose := leastBusy
		if isShared(ctx) {
			choose = func(candidates []*endpoint) *endpoint { return common(spec.Procedure, candidates) }
		}
		chosen := choose(without(healthy(endpoints), avoid))
		if chosen == nil {
			chosen = choose(healthy(endpoints))
		}
		if chosen == nil {
			chosen = endpoints[rand.IntN(len(endpoints))]
		}
		ctx = context.WithValue(ctx, placementKey{}, &placement{at: chosen, done: true})
		b.streams.Store(spec.Procedure, chosen)
	}
	return next(ctx, spec)
}

// lookupError maps the error of a lookup to an error with its code, as the HTTP transport
// does.
func lookupError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return rpc.ContextError(ctx.Err())
	}
	return connect.NewError(connect.CodeUnavailable, err.Error()).WithCause(err)
}

// pick chooses the endpoint of an attempt and enters its circuit breaker. It reports
// false when no endpoint accepts a call now.
func pick(endpoints, avoid []*endpoint, repeatable bool) (*placement, bool) {
	if len(endpoints) == 1 && len(avoid) == 0 {
		return enter(endpoints, endpoints[0])
	}
	now := time.Now()
	var probes, avoided, ejected []*endpoint
	for _, one := range without(endpoints, avoid) {
		switch {
		case one.ejected.Load():
			ejected = append(ejected, one)
		case one.breaker.isOpen():
			if one.breaker.wantsProbe() {
				probes = append(probes, one)
			}
		case one.isAvoided(now):
			avoided = append(avoided, one)
		case repeatable && one.refusals.takeProbe(now):
			probes = append(probes, one)
		}
	}
	// A probe may fail, so only a repeatable call is used as one.
	if repeatable {
		if at, ok := enter(endpoints, probes...); ok {
			return at, true
		}
	}
	if chosen := leastBusy(without(healthy(endpoints), avoid)); chosen != nil {
		if at, ok := enter(endpoints, chosen); ok {
			return at, true
		}
	}
	return enter(endpoints, slices.Concat(probes, avoided, ejected)...)
}

// enter enters the circuit breaker of the first endpoint whose breaker admits a call.
func enter(endpoints []*endpoint, candidates ...*endpoint) (*placement, bool) {
	for _, one := range candidates {
		if probe, ok := one.breaker.enter(); ok {
			return newPlacement(one, endpoints, probe, false), true
		}
	}
	return nil, false
}

// healthy returns the endpoints that are not ejected, not avoided, and whose circuit
// breaker is closed.
func healthy(endpoints []*endpoint) []*endpoint {
	now := time.Now()
	suitable := func(e *endpoint) bool { return !e.ejected.Load() && !e.breaker.isOpen() && !e.isAvoided(now) }
	if !slices.ContainsFunc(endpoints, func(e *endpoint) bool { return !suitable(e) || e.refusals.isRefusing(now) }) {
		return endpoints
	}
	var found []*endpoint
	for _, one := range endpoints {
		if suitable(one) {
			found = append(found, one)
		}
	}
	return withoutRefusing(found, endpoints, now)
}

func without(endpoints, avoid []*endpoint) []*endpoint {
	if len(avoid) == 0 {
		return endpoints
	}
	return slices.DeleteFunc(slices.Clone(endpoints), func(e *endpoint) bool { return slices.Contains(avoid, e) })
}

// leastBusy returns the one of two random endpoints that has fewer calls in flight;
// nil when there are none.
func leastBusy(endpoints []*endpoint) *endpoint {
	if len(endpoints) == 0 {
		return nil
	}
	i := rand.IntN(len(endpoints))
	if len(endpoints) == 1 {
		return endpoints[i]
	}
	j := (i + 1 + rand.IntN(len(endpoints)-1)) % len(endpoints)
	if endpoints[j].inFlight.Load() < endpoints[i].inFlight.Load() {
		return endpoints[j]
	}
	return endpoints[i]
}

type placementKey struct{}

// placement is the endpoint of an attempt. The transport moves it to another endpoint when
// a dial fails.
type placement struct {
	mu            sync.Mutex
	at            *endpoint
	endpoints     []*endpoint
	probe         bool // the attempt is the probe of the circuit breaker
	bypassBreaker bool // the circuit breaker neither blocks nor counts the attempt
	done          bool // the outcome was recorded
}

// newPlacement counts the attempt as in flight until finish is called.
func newPlacement(at *endpoint, endpoints []*endpoint, probe, bypassBreaker bool) *placement {
	at.beginCall()
	return &placement{at: at, endpoints: endpoints, probe: probe, bypassBreaker: bypassBreaker}
}

func placementFrom(ctx context.Context) *placement {
	p, _ := ctx.Value(placementKey{}).(*placement)
	return p
}

// endpoint returns the chosen endpoint; nil if none was chosen.
func (p *placement) endpoint() *endpoint {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.at
}

// moveTo moves the attempt to another endpoint after dialling the previous one failed.
// timedOut reports that the dial timed out, rather than being refused.
func (p *placement) moveTo(next *endpoint, timedOut bool) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done || p.at == next {
		return
	}
	p.release(timedOut)
	next.beginCall()
	p.at, p.probe = next, false
}

func (p *placement) release(timedOut bool) {
	p.at.inFlight.Add(-1)
	how := outcomeUnknown
	if timedOut {
		how = outcomeNoResponse
	}
	if !p.bypassBreaker {
		p.at.breaker.leave(p.probe, how)
	}
}

// finish records the outcome of the attempt and returns its endpoint.
func (p *placement) finish(how outcome) *endpoint {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done = true
	p.at.inFlight.Add(-1)
	if !p.bypassBreaker {
		p.at.breaker.leave(p.probe, how)
	}
	return p.at
}
