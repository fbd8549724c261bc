package dial_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gatehouse/internal/dial"
	"gatehouse/internal/fault"
)

// newRefusingCluster returns a cluster in which the first refuse endpoints respond at once
// with "unavailable", as without their database, until repaired is set. The latency of the
// others is 10 ms.
func newRefusingCluster(endpoints, refuse int) (c *cluster, repaired *atomic.Bool) {
	c, repaired = newCluster(endpoints), &atomic.Bool{}
	for i := range endpoints {
		c.latency[i].Store(int64(10 * time.Millisecond))
	}
	serve := c.respond
	c.respond = func(ctx context.Context, n int) error {
		if i := dial.EndpointOf(ctx); i < refuse && !repaired.Load() {
			c.requests[i].Add(1)
			return fault.Unavailable().WithRemote()
		}
		return serve(ctx, n)
	}
	return c, repaired
}

// An endpoint that refuses at once has the fewest calls in flight, so a choice by load alone
// would send it nearly all calls.
func TestAnEndpointThatRefusesCallsIsAvoidedAndNotEjected(t *testing.T) {
	t.Parallel()
	for name, call := range map[string]func(*cluster) func(context.Context) error{
		"reads":  func(c *cluster) func(context.Context) error { return c.read },
		"writes": func(c *cluster) func(context.Context) error { return c.write },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c, repaired := newRefusingCluster(2, 1)
				repaired.Store(true)
				c.load(t, 32, time.Second, call(c)) // earns a retry budget
				c.requests[0].Store(0)
				repaired.Store(false)
				succeeded, failed := c.load(t, 32, 5*time.Second, call(c))
				// Writes are not retried: those in flight when the endpoint begins to refuse
				// fail, and one for each probe.
				if most := map[string]int64{"reads": 0, "writes": 64}[name]; failed > most || succeeded < 5000 {
					t.Errorf("one of two endpoints refuses at once: %d calls succeeded and %d failed, want at most %d failures", succeeded, failed, most)
				}
				if n := c.requests[0].Load(); n > 100 {
					t.Errorf("the endpoint that refuses received %d calls", n)
				}
				if log := c.log.String(); strings.Contains(log, "ejected") || strings.Count(log, "endpoint refuses calls") != 1 {
					t.Errorf("want one line about the endpoint that refuses, and no ejection; the log has\n%s", log)
				}
				repaired.Store(true)
				c.load(t, 32, time.Second, c.read)
				c.requests[0].Store(0)
				succeeded, failed = c.load(t, 32, time.Second, call(c))
				if n := c.requests[0].Load(); failed > 0 || n < succeeded/4 {
					t.Errorf("1s after the endpoint serves again it received %d of %d calls; %d failed", n, succeeded, failed)
				}
			})
		})
	}
}

func TestAtMostHalfOfTheEndpointsAreAvoidedForRefusals(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ endpoints, refuse int }{{1, 1}, {2, 2}, {3, 2}, {3, 3}} {
		synctest.Test(t, func(t *testing.T) {
			c, _ := newRefusingCluster(test.endpoints, test.refuse)
			c.load(t, 8, 2*time.Second, c.write)
			for i := range c.requests {
				c.requests[i].Store(0)
			}
			c.load(t, 8, 2*time.Second, c.write)
			for i := range c.requests {
				if n := c.requests[i].Load(); n < 100 {
					t.Errorf("%d of %d endpoints refuse: endpoint %d received %d calls in 2s", test.refuse, test.endpoints, i, n)
				}
			}
		})
	}
}

// After the hedge is refused, the call waits for the first attempt.
func TestARefusedHedgeDoesNotEndTheFirstAttempt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, _ := newRefusingCluster(2, 1)
		c.latency[1].Store(int64(400 * time.Millisecond)) // longer than the wait for a hedge
		c.load(t, 32, 10*time.Second, c.write)            // earns a budget
		for range 20 {
			if err := c.read(t.Context()); err != nil {
				t.Errorf("read: %v, want the response of the slow endpoint", err)
			}
			time.Sleep(6 * time.Second) // longer than refusalMemory
		}
	})
}

func TestAHedgeContinuesWhenTheFirstAttemptIsRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, repaired := newRefusingCluster(2, 1)
		repaired.Store(true)
		c.load(t, 32, 10*time.Second, c.write) // earns a budget
		repaired.Store(false)
		serve := c.respond
		c.respond = func(ctx context.Context, n int) error { // both respond after the hedge started
			time.Sleep(400 * time.Millisecond)
			return serve(ctx, n)
		}
		c.requests[1].Store(0)
		const reads = 20
		for range reads {
			if err := c.read(t.Context()); err != nil {
				t.Errorf("read: %v", err)
			}
			time.Sleep(6 * time.Second) // longer than refusalMemory
		}
		if n := c.requests[1].Load(); n != reads {
			t.Errorf("the endpoint that serves received %d attempts of %d reads", n, reads)
		}
	})
}
