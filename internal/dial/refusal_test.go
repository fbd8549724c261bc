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

// refusing returns a cluster in which the first so many endpoints answer at once
// that they can't serve, as one does whose database is gone; the others take 10 ms.
func refusing(endpoints, refuse int) (c *cluster, repaired *atomic.Bool) {
	c, repaired = newCluster(endpoints), &atomic.Bool{}
	for i := range endpoints {
		c.takes[i].Store(int64(10 * time.Millisecond))
	}
	serve := c.ends
	c.ends = func(ctx context.Context, n int) error {
		if i := dial.EndpointOf(ctx); i < refuse && !repaired.Load() {
			c.asked[i].Add(1)
			return fault.Unavailable().WithRemote()
		}
		return serve(ctx, n)
	}
	return c, repaired
}

// An endpoint that refuses at once has the fewest calls in flight: chosen by load
// alone, it gets nearly all calls.
func TestAnEndpointThatRefusesCallsIsPassedOverAndNotEjected(t *testing.T) {
	t.Parallel()
	for name, call := range map[string]func(*cluster) func(context.Context) error{
		"reads":  func(c *cluster) func(context.Context) error { return c.read },
		"writes": func(c *cluster) func(context.Context) error { return c.write },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c, repaired := refusing(2, 1)
				repaired.Store(true)
				c.load(t, 32, time.Second, call(c)) // earns a budget of retries
				c.asked[0].Store(0)
				repaired.Store(false)
				answered, failed := c.load(t, 32, 5*time.Second, call(c))
				// A write is not made twice: what is under way when the endpoint begins to
				// refuse fails, and one each time that it is asked again.
				if most := map[string]int64{"reads": 0, "writes": 64}[name]; failed > most || answered < 5000 {
					t.Errorf("one of two endpoints refuses at once: %d calls were answered and %d failed, want at most %d", answered, failed, most)
				}
				if asked := c.asked[0].Load(); asked > 100 {
					t.Errorf("the endpoint that refuses got %d calls", asked)
				}
				if log := c.log.String(); strings.Contains(log, "ejected") || strings.Count(log, "endpoint refuses calls") != 1 {
					t.Errorf("want one line about the endpoint that refuses, and no ejection; the log has\n%s", log)
				}
				repaired.Store(true)
				c.load(t, 32, time.Second, c.read)
				c.asked[0].Store(0)
				answered, failed = c.load(t, 32, time.Second, call(c))
				if asked := c.asked[0].Load(); failed > 0 || asked < answered/4 {
					t.Errorf("1s after it serves again it got %d of %d calls; %d failed", asked, answered, failed)
				}
			})
		})
	}
}

func TestNoMoreThanHalfOfTheEndpointsArePassedOverForRefusals(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ endpoints, refuse int }{{1, 1}, {2, 2}, {3, 2}, {3, 3}} {
		synctest.Test(t, func(t *testing.T) {
			c, _ := refusing(test.endpoints, test.refuse)
			c.load(t, 8, 2*time.Second, c.write)
			for i := range c.asked {
				c.asked[i].Store(0)
			}
			c.load(t, 8, 2*time.Second, c.write)
			for i := range c.asked {
				if asked := c.asked[i].Load(); asked < 100 {
					t.Errorf("%d of %d endpoints refuse: endpoint %d got %d calls in 2s", test.refuse, test.endpoints, i, asked)
				}
			}
		})
	}
}

// A refusal is no answer to prefer: the one that is under way elsewhere is waited for.
func TestARefusedHedgeDoesNotEndTheFirstAttempt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, _ := refusing(2, 1)
		c.takes[1].Store(int64(400 * time.Millisecond)) // longer than the wait for a hedge
		c.load(t, 32, 10*time.Second, c.write)          // earns a budget
		for range 20 {
			if err := c.read(t.Context()); err != nil {
				t.Errorf("read: %v, want the slow endpoint's answer", err)
			}
			time.Sleep(6 * time.Second) // the refusals are forgotten
		}
	})
}

func TestAHedgeGoesOnWhenTheFirstAttemptIsRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, repaired := refusing(2, 1)
		repaired.Store(true)
		c.load(t, 32, 10*time.Second, c.write) // earns a budget
		repaired.Store(false)
		serve := c.ends
		c.ends = func(ctx context.Context, n int) error { // both answer after the hedge began
			time.Sleep(400 * time.Millisecond)
			return serve(ctx, n)
		}
		c.asked[1].Store(0)
		const reads = 20
		for range reads {
			if err := c.read(t.Context()); err != nil {
				t.Errorf("read: %v", err)
			}
			time.Sleep(6 * time.Second) // the refusals are forgotten
		}
		if asked := c.asked[1].Load(); asked != reads {
			t.Errorf("the endpoint that serves got %d attempts of %d reads", asked, reads)
		}
	})
}
