package dial

import (
	"sync/atomic"
	"time"

	"connectrpc.com/connect/v2"

	"gatehouse/internal/fault"
)

const (
	// refusalThreshold is how many consecutive "unavailable" responses make other endpoints
	// preferred. Such an endpoint, for example one whose database is unreachable, has the
	// fewest calls in flight, so a choice by load alone would prefer it.
	refusalThreshold = 3
	// refusalProbe is the interval at which a repeatable call probes the endpoint.
	refusalProbe = 500 * time.Millisecond
	// refusalMemory is how long other endpoints are preferred if no call probes.
	refusalMemory = 5 * time.Second
)

// refusals counts the consecutive refusals of an endpoint that is alive.
type refusals struct {
	count   atomic.Int64
	probeAt atomic.Int64 // when the next probe is due, in Unix nanoseconds
}

// isRefusal reports whether the error is the response of an endpoint that a dependency of it
// is unavailable. It excludes the refusals of a load shedder: avoiding a busy endpoint would
// only move its load.
func isRefusal(err error) bool {
	return connect.CodeOf(err) == connect.CodeUnavailable && fault.Reason(err) == fault.ReasonUnavailable
}

// isRefusing reports whether other endpoints should be preferred.
func (r *refusals) isRefusing(now time.Time) bool {
	return r.count.Load() >= refusalThreshold && now.UnixNano() < r.probeAt.Load()+int64(refusalMemory)
}

// takeProbe reports whether the caller should probe the endpoint. It returns true once per
// refusalProbe.
func (r *refusals) takeProbe(now time.Time) bool {
	due := r.probeAt.Load()
	return r.isRefusing(now) && now.UnixNano() >= due && r.probeAt.CompareAndSwap(due, now.Add(refusalProbe).UnixNano())
}

// recordRefusal counts a response that is a refusal. Only a success resets the count: other
// errors, such as an invalid request, do not show that the dependency is available.
func (b *loadBalancer) recordRefusal(e *endpoint, endpoints []*endpoint, err error) {
	switch {
	case len(endpoints) == 1:
	case isRefusal(err):
		e.refusals.probeAt.Store(time.Now().Add(refusalProbe).UnixNano())
		if e.refusals.count.Add(1) == refusalThreshold {
			b.logger.Warn("load balancer: endpoint refuses calls, others are preferred", "service", b.service, "endpoint", e.address)
		}
	case err == nil && e.refusals.count.Load() > 0:
		if e.refusals.count.Swap(0) >= refusalThreshold {
			b.logger.Info("load balancer: endpoint serves calls again", "service", b.service, "endpoint", e.address)
		}
	}
}

// withoutRefusing removes the endpoints that refuse calls, unless fewer than half of all
// endpoints would remain.
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

// mayTryAnother reports whether a refused call may be made at another healthy endpoint.
func (c *balancedCall) mayTryAnother(endpoints []*endpoint, err error) bool {
	return c.repeatable && isRefusal(err) && len(without(healthy(endpoints), c.tried)) > 0
}
