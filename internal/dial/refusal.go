package dial

import (
	"sync/atomic"
	"time"

	"connectrpc.com/connect/v2"

	"gatehouse/internal/fault"
)

const (
	// refusalsMost is how many calls in a row an endpoint may answer with
	// "unavailable", as it does when its database is unreachable. Such an endpoint
	// has the fewest calls in flight, so the choice by load alone would prefer it.
	refusalsMost = 3
	// refusalProbe is how often one repeatable call finds out whether it serves again.
	refusalProbe = 500 * time.Millisecond
	// refusalMemory bounds how long it is passed over when no such call is made.
	refusalMemory = 5 * time.Second
)

// refusals counts the calls in a row that a live endpoint said it can't serve.
type refusals struct {
	count   atomic.Int64
	probeAt atomic.Int64 // when the next probe is due, in Unix nanoseconds
}

// isRefusal reports whether the error is an endpoint's answer that a dependency of it
// is unavailable. A load shedder's refusal is none: to pass a busy endpoint over
// would only move its load.
func isRefusal(err error) bool {
	return connect.CodeOf(err) == connect.CodeUnavailable && fault.Reason(err) == fault.ReasonUnavailable
}

// isRefusing reports whether the endpoint should be passed over.
func (r *refusals) isRefusing(now time.Time) bool {
	return r.count.Load() >= refusalsMost && now.UnixNano() < r.probeAt.Load()+int64(refusalMemory)
}

// takeProbe reports whether the caller should probe the endpoint: one does at a time.
func (r *refusals) takeProbe(now time.Time) bool {
	due := r.probeAt.Load()
	return r.isRefusing(now) && now.UnixNano() >= due && r.probeAt.CompareAndSwap(due, now.Add(refusalProbe).UnixNano())
}

// noteRefusal counts an answer that is a refusal. Only success ends a row: a request
// that is invalid is refused without a look at the database.
func (b *loadBalancer) noteRefusal(e *endpoint, endpoints []*endpoint, err error) {
	switch {
	case len(endpoints) == 1:
	case isRefusal(err):
		e.refusals.probeAt.Store(time.Now().Add(refusalProbe).UnixNano())
		if e.refusals.count.Add(1) == refusalsMost {
			b.logger.Warn("load balancer: endpoint refuses calls, others are preferred", "service", b.service, "endpoint", e.address)
		}
	case err == nil && e.refusals.count.Load() > 0:
		if e.refusals.count.Swap(0) >= refusalsMost {
			b.logger.Info("load balancer: endpoint serves calls again", "service", b.service, "endpoint", e.address)
		}
	}
}

// withoutRefusing leaves out the endpoints that refuse calls, unless more than half
// of all would then get none, or none would be left.
func withoutRefusing(healthy, endpoints []*endpoint, now time.Time) []*endpoint {
	var serving []*endpoint
	for _, one := range healthy {
		if !one.refusals.isRefusing(now) {
			serving = append(serving, one)
		}
	}
	if len(serving) == 0 || 2*len(serving) < len(endpoints) {
		return healthy
	}
	return serving
}

// mayServeElsewhere reports whether a call that was refused may be made at a healthy
// endpoint that it has not tried.
func (c *balancedCall) mayServeElsewhere(endpoints []*endpoint, err error) bool {
	return c.repeatable && isRefusal(err) && len(without(healthy(endpoints), c.tried)) > 0
}
