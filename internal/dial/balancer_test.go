package dial_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect/v2"

	"gatehouse/internal/dial"
	"gatehouse/internal/fault"
	"gatehouse/internal/rpctest"
)

// cluster is a service with several endpoints. A frozen endpoint responds to neither calls
// nor pings.
type cluster struct {
	scripted
	log      bytes.Buffer
	requests []atomic.Int64
	frozen   []atomic.Bool
	latency  []atomic.Int64 // of responses, in nanoseconds
	client   *connect.Client
}

func newCluster(count int) *cluster {
	c := &cluster{requests: make([]atomic.Int64, count), frozen: make([]atomic.Bool, count), latency: make([]atomic.Int64, count)}
	c.respond = func(ctx context.Context, _ int) error {
		i := dial.EndpointOf(ctx)
		c.requests[i].Add(1)
		return c.wait(ctx, i)
	}
	logger := slog.New(slog.NewTextHandler(&c.log, nil))
	c.client = connect.NewClient(&c.scripted, dial.Balance("users", logger, count, func(ctx context.Context, i int) error {
		if c.frozen[i].Load() {
			return c.wait(ctx, i)
		}
		return nil
	}))
	return c
}

func (c *cluster) wait(ctx context.Context, i int) error {
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		if err := ctx.Err(); errors.Is(err, context.DeadlineExceeded) {
			return connect.NewError(connect.CodeDeadlineExceeded, "late").WithCause(err)
		} else if err != nil {
			return connect.NewError(connect.CodeCanceled, "left").WithCause(err)
		}
		if !c.frozen[i].Load() && time.Since(began) >= time.Duration(c.latency[i].Load()) {
			return nil
		}
	}
}

// load calls in closed loops for a while. It returns the numbers of successful and failed
// calls.
func (c *cluster) load(t *testing.T, loops int, duration time.Duration, call func(context.Context) error) (succeeded, failed int64) {
	t.Helper()
	var good, bad atomic.Int64
	var callers sync.WaitGroup
	end := time.Now().Add(duration)
	for range loops {
		callers.Go(func() {
			for time.Now().Before(end) {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				if err := call(ctx); err != nil {
					bad.Add(1)
				} else {
					good.Add(1)
				}
				cancel()
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
	callers.Wait()
	return good.Load(), bad.Load()
}

func (c *cluster) read(ctx context.Context) error  { _, err := rpctest.Get(ctx, c.client); return err }
func (c *cluster) write(ctx context.Context) error { return update(ctx, c.client) }

func TestAFrozenEndpointIsEjectedUntilItRespondsAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(2)
		c.load(t, 8, 2*time.Second, c.read)
		c.frozen[0].Store(true)
		c.load(t, 8, 2*time.Second, c.read)
		if !strings.Contains(c.log.String(), `msg="load balancer: endpoint ejected" service=users endpoint=0 reason=silence`) {
			t.Fatalf("2s after an endpoint froze the log has\n%s", c.log.String())
		}
		c.requests[0].Store(0)
		for name, call := range map[string]func(context.Context) error{"reads": c.read, "writes": c.write} {
			if succeeded, failed := c.load(t, 8, 2*time.Second, call); failed > 0 || succeeded < 100 {
				t.Errorf("%s: %d calls succeeded and %d failed, want no failures", name, succeeded, failed)
			}
		}
		if n := c.requests[0].Load(); n > 0 {
			t.Errorf("the ejected endpoint received %d calls", n)
		}
		c.frozen[0].Store(false)
		time.Sleep(1100 * time.Millisecond)
		c.load(t, 8, time.Second, c.write)
		if c.requests[0].Load() == 0 || !strings.Contains(c.log.String(), "load balancer: endpoint healthy") {
			t.Errorf("after the endpoint responds again it received %d calls; the log has\n%s", c.requests[0].Load(), c.log.String())
		}
	})
}

func TestNeverMoreThanHalfOfTheEndpointsAreEjected(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ endpoints, frozen, ejected int }{{1, 1, 0}, {2, 1, 1}, {2, 2, 0}, {3, 2, 1}, {4, 3, 2}, {5, 4, 2}} {
		t.Run(fmt.Sprint(test), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(test.endpoints)
				c.load(t, 8, time.Second, c.read)
				for i := range test.frozen {
					c.frozen[i].Store(true)
				}
				c.load(t, 8, 5*time.Second, c.read)
				if got := strings.Count(c.log.String(), "endpoint ejected"); got != test.ejected {
					t.Errorf("%d of %d endpoints froze: %d were ejected, want %d:\n%s", test.frozen, test.endpoints, got, test.ejected, c.log.String())
				}
				for i := range test.frozen {
					c.frozen[i].Store(false)
				}
				c.load(t, 8, 3*time.Second, c.read)
				if succeeded, failed := c.load(t, 8, time.Second, c.read); failed > 0 || succeeded == 0 {
					t.Errorf("after all endpoints respond again: %d calls succeeded, %d failed", succeeded, failed)
				}
			})
		})
	}
}

func TestASlowEndpointIsEjectedThoughItRespondsToPings(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(2)
		c.latency[0].Store(int64(800 * time.Millisecond))
		c.latency[1].Store(int64(10 * time.Millisecond))
		c.load(t, 16, 10*time.Second, c.write)
		if !strings.Contains(c.log.String(), "endpoint=0 reason=latency") || strings.Contains(c.log.String(), "ejected\" service=users endpoint=1") {
			t.Errorf("one endpoint is 80 times slower: the log has\n%s", c.log.String())
		}
	})
}

// A slow read is hedged at the other endpoint; a write never is.
func TestReadsAreHedgedWithinTheBudgetAndWritesAreNot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(2)
		c.load(t, 8, 2*time.Second, c.read)
		c.latency[0].Store(int64(700 * time.Millisecond))
		began := time.Now()
		for range 5 {
			if err := c.read(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("five reads took %s, want them within 1s because of the hedges", took)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(2)
		c.latency[0].Store(int64(600 * time.Millisecond))
		c.latency[1].Store(int64(600 * time.Millisecond))
		for name, call := range map[string]func(context.Context) error{"reads": c.read, "writes": c.write} {
			c.scripted.requests.Store(0)
			succeeded, failed := c.load(t, 8, 60*time.Second, call)
			calls, attempts := float64(succeeded+failed), float64(c.scripted.requests.Load())
			if name == "writes" && attempts != calls || attempts > 1.1*calls+1 {
				t.Errorf("%s: %v calls made %v attempts", name, calls, attempts)
			}
		}
	})
}

func TestACallFailsAtOnceWhileAllCircuitBreakersAreOpen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(2)
		var answer error = connectionReset()
		c.respond = func(ctx context.Context, _ int) error { c.requests[dial.EndpointOf(ctx)].Add(1); return answer }
		_ = write(t, c.client, 100)
		began, requests := time.Now(), c.scripted.requests.Load()
		for range 100 {
			err := update(t.Context(), c.client)
			rpctest.WantError(t, "open", err, connect.CodeUnavailable, fault.ReasonUnavailable)
			if after, ok := fault.RetryDelay(err); !ok || after <= 0 {
				t.Fatalf("open: got %v, want a retry delay", err)
			}
		}
		if time.Since(began) != 0 || c.scripted.requests.Load() != requests {
			t.Errorf("100 calls took %s and made %d attempts, want none", time.Since(began), c.scripted.requests.Load()-requests)
		}
		answer = nil
		time.Sleep(time.Second)
		if err := write(t, c.client, 10); err != nil {
			t.Errorf("1s after the endpoints respond again: got %v", err)
		}
	})
}
