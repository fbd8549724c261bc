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

// cluster is a service with several endpoints, each of which may be frozen: then it
// answers neither calls nor pings.
type cluster struct {
	scripted
	log    bytes.Buffer
	asked  []atomic.Int64
	frozen []atomic.Bool
	takes  []atomic.Int64 // for an answer
	client *connect.Client
}

func newCluster(count int) *cluster {
	c := &cluster{asked: make([]atomic.Int64, count), frozen: make([]atomic.Bool, count), takes: make([]atomic.Int64, count)}
	c.ends = func(ctx context.Context, _ int) error {
		i := dial.EndpointOf(ctx)
		c.asked[i].Add(1)
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
		if !c.frozen[i].Load() && time.Since(began) >= time.Duration(c.takes[i].Load()) {
			return nil
		}
	}
}

// load calls in closed loops for a while. It returns how many calls were answered
// and how many were not.
func (c *cluster) load(t *testing.T, loops int, duration time.Duration, call func(context.Context) error) (answered, failed int64) {
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

func TestAFrozenEndpointIsEjectedAndReturnsWhenItAnswers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(2)
		c.load(t, 8, 2*time.Second, c.read)
		c.frozen[0].Store(true)
		c.load(t, 8, 2*time.Second, c.read)
		if !strings.Contains(c.log.String(), `msg="load balancer: endpoint ejected" service=users endpoint=0 reason=silence`) {
			t.Fatalf("2s after an endpoint froze the log has\n%s", c.log.String())
		}
		c.asked[0].Store(0)
		for name, call := range map[string]func(context.Context) error{"reads": c.read, "writes": c.write} {
			if answered, failed := c.load(t, 8, 2*time.Second, call); failed > 0 || answered < 100 {
				t.Errorf("%s: %d were answered and %d failed, want all answered", name, answered, failed)
			}
		}
		if asked := c.asked[0].Load(); asked > 0 {
			t.Errorf("the ejected endpoint got %d calls", asked)
		}
		c.frozen[0].Store(false)
		time.Sleep(1100 * time.Millisecond)
		c.load(t, 8, time.Second, c.write)
		if c.asked[0].Load() == 0 || !strings.Contains(c.log.String(), "load balancer: endpoint healthy") {
			t.Errorf("after it answers again it got %d calls; the log has\n%s", c.asked[0].Load(), c.log.String())
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
				if answered, failed := c.load(t, 8, time.Second, c.read); failed > 0 || answered == 0 {
					t.Errorf("after all answer again: %d answered, %d failed", answered, failed)
				}
			})
		})
	}
}

func TestASlowEndpointIsEjectedThoughItAnswersPings(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(2)
		c.takes[0].Store(int64(800 * time.Millisecond))
		c.takes[1].Store(int64(10 * time.Millisecond))
		c.load(t, 16, 10*time.Second, c.write)
		if !strings.Contains(c.log.String(), "endpoint=0 reason=latency") || strings.Contains(c.log.String(), "ejected\" service=users endpoint=1") {
			t.Errorf("one endpoint takes 80 times as long: the log has\n%s", c.log.String())
		}
	})
}

// A slow read is asked at the other endpoint too; a write never is.
func TestReadsAreHedgedWithinTheBudgetAndWritesAreNot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(2)
		c.load(t, 8, 2*time.Second, c.read)
		c.takes[0].Store(int64(700 * time.Millisecond))
		began := time.Now()
		for range 5 {
			if err := c.read(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("five reads took %s, want hedges to answer them within 1s", took)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(2)
		c.takes[0].Store(int64(600 * time.Millisecond))
		c.takes[1].Store(int64(600 * time.Millisecond))
		for name, call := range map[string]func(context.Context) error{"reads": c.read, "writes": c.write} {
			c.scripted.asked.Store(0)
			answered, failed := c.load(t, 8, 60*time.Second, call)
			calls, asked := float64(answered+failed), float64(c.scripted.asked.Load())
			if name == "writes" && asked != calls || asked > 1.1*calls+1 {
				t.Errorf("%s: %v calls made %v attempts", name, calls, asked)
			}
		}
	})
}

func TestAllCircuitBreakersOpenAnswersAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(2)
		var answer error = silent()
		c.ends = func(ctx context.Context, _ int) error { c.asked[dial.EndpointOf(ctx)].Add(1); return answer }
		_ = write(t, c.client, 100)
		began, asked := time.Now(), c.scripted.asked.Load()
		for range 100 {
			err := update(t.Context(), c.client)
			rpctest.WantError(t, "open", err, connect.CodeUnavailable, fault.ReasonUnavailable)
			if after, ok := fault.RetryDelay(err); !ok || after <= 0 {
				t.Fatalf("open: got %v, want it to say when to come again", err)
			}
		}
		if time.Since(began) != 0 || c.scripted.asked.Load() != asked {
			t.Errorf("100 calls took %s and made %d attempts, want none", time.Since(began), c.scripted.asked.Load()-asked)
		}
		answer = nil
		time.Sleep(time.Second)
		if err := write(t, c.client, 10); err != nil {
			t.Errorf("1s after it answers again: got %v", err)
		}
	})
}
