package limit_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gatehouse/internal/limit"
)

const target = 250 * time.Millisecond

func newQueue(slots int) *limit.Queue {
	return limit.NewQueue(limit.QueueConfig{Slots: slots, Target: target, Waiting: 4096})
}

func of(name string) limit.Call { return limit.Call{Flow: limit.Flow{Subject: name}} }

// outcomes counts the outcomes of calls.
type outcomes struct {
	served   atomic.Int64
	longest  atomic.Int64 // wait of an admitted call
	mu       sync.Mutex
	refusals map[limit.Refusal]int
}

func (o *outcomes) refused() (n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, count := range o.refusals {
		n += count
	}
	return n
}

func (o *outcomes) of(reason limit.Refusal) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.refusals[reason]
}

// call makes one call whose duration is takes.
func (o *outcomes) call(ctx context.Context, t *testing.T, q *limit.Queue, call limit.Call, takes time.Duration) error {
	waited, err := q.Enter(ctx, call)
	var refusal limit.Refusal
	switch {
	case err == nil:
		for longest := o.longest.Load(); int64(waited) > longest && !o.longest.CompareAndSwap(longest, int64(waited)); longest = o.longest.Load() {
		}
		time.Sleep(takes)
		q.Leave(takes)
		o.served.Add(1)
	case errors.As(err, &refusal):
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.refusals == nil {
			o.refusals = map[limit.Refusal]int{}
		}
		o.refusals[refusal]++
	case ctx.Err() == nil:
		t.Errorf("Enter: %v", err)
	}
	return err
}

// loop makes calls in a closed loop, and retries at once after a refusal.
func (o *outcomes) loop(t *testing.T, q *limit.Queue, call limit.Call, takes, lasts time.Duration) {
	for end := time.Now().Add(lasts); time.Now().Before(end); {
		_ = o.call(t.Context(), t, q, call, takes)
	}
}

// offer makes calls in an open loop, each by a different caller.
func (o *outcomes) offer(t *testing.T, q *limit.Queue, perSecond int, call limit.Call, takes, lasts time.Duration) {
	var group sync.WaitGroup
	for i := range int(lasts.Seconds() * float64(perSecond)) {
		one := call
		one.Flow.Subject = fmt.Sprint(one.Flow.Subject, i)
		group.Go(func() { _ = o.call(t.Context(), t, q, one, takes) })
		time.Sleep(time.Second / time.Duration(perSecond))
	}
	group.Wait()
}

func wantIdle(t *testing.T, q *limit.Queue) {
	t.Helper()
	synctest.Wait()
	if state := q.State(); state.Running != 0 || state.Waiting != 0 || state.Held != 0 {
		t.Errorf("at the end %+v, want nothing running, waiting or held", state)
	}
}

// Ten slots with calls of 10 ms serve 1000 calls per second, so 250 may wait for 250 ms.
func TestNothingIsRefusedWhileTheQueueStaysUnderItsTarget(t *testing.T) {
	t.Parallel()
	for _, connections := range []int{12, 64, 200, 250} {
		synctest.Test(t, func(t *testing.T) {
			q, all := newQueue(10), &outcomes{}
			var group sync.WaitGroup
			for i := range connections {
				group.Go(func() { all.loop(t, q, of(fmt.Sprint(i%7)), 10*time.Millisecond, 5*time.Second) })
			}
			group.Wait()
			if all.refused() != 0 || all.served.Load() < 4990 {
				t.Errorf("%d connections: %d served, refused %v, want 5000 and none", connections, all.served.Load(), all.refusals)
			}
			wantIdle(t, q)
		})
	}
}

func TestABurstIsServedThoughItWaitsLongerThanTheTarget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q, all := newQueue(10), &outcomes{}
		var group sync.WaitGroup
		for i := range 330 {
			group.Go(func() { _ = all.call(t.Context(), t, q, of(fmt.Sprint(i)), 10*time.Millisecond) })
		}
		group.Wait()
		if all.refused() != 0 {
			t.Errorf("of 330 calls at once, refused %v, want none: the last one waits 330 ms, but there is no standing queue", all.refusals)
		}
		wantIdle(t, q)
	})
}

func TestAClosedLoopBeyondTheTargetLosesNoThroughput(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q, all := newQueue(10), &outcomes{}
		var group sync.WaitGroup
		for i := range 1000 {
			group.Go(func() { all.loop(t, q, of(fmt.Sprint(i)), 10*time.Millisecond, 5*time.Second) })
		}
		group.Wait()
		if all.served.Load() < 4900 || all.refused() == 0 {
			t.Errorf("%d served, refused %v, want 5000 and some", all.served.Load(), all.refusals)
		}
		// Clients that retry at once must not make the server spend its time on refusals.
		if all.refused() > 5*1000*5 {
			t.Errorf("%d calls were refused in 5 s, want at most about 4 a second for each connection", all.refused())
		}
		wantIdle(t, q)
	})
}

func TestUnderTripleLoadAdmittedCallsWaitAtMostTheTarget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q, settle, all := newQueue(10), &outcomes{}, &outcomes{}
		settle.offer(t, q, 3000, of("before"), 10*time.Millisecond, time.Second)
		all.offer(t, q, 3000, of("then"), 10*time.Millisecond, 5*time.Second)
		if all.served.Load() < 4900 {
			t.Errorf("%d served, want 5000", all.served.Load())
		}
		if longest := time.Duration(all.longest.Load()); longest > target+20*time.Millisecond {
			t.Errorf("an admitted call waited %s, want at most %s", longest, target)
		}
		// A refusal on arrival costs least.
		if all.of(limit.RefusedArrival) < 2*all.of(limit.RefusedDelay) {
			t.Errorf("refused %v, want most of them on arrival", all.refusals)
		}
		wantIdle(t, q)
	})
}

func TestNothingIsRefusedAfterAnOverload(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q, flood, later := newQueue(10), &outcomes{}, &outcomes{}
		var group sync.WaitGroup
		for i := range 150 { // these alone never wait longer than the target
			group.Go(func() {
				time.Sleep(3 * time.Second)
				later.loop(t, q, of(fmt.Sprint(i)), 10*time.Millisecond, 3*time.Second)
			})
		}
		flood.offer(t, q, 3000, of("flood"), 10*time.Millisecond, 2500*time.Millisecond)
		group.Wait()
		if flood.refused() == 0 || later.refused() != 0 {
			t.Errorf("refused %v during the overload and %v after it, want some and none", flood.refusals, later.refusals)
		}
		wantIdle(t, q)
	})
}

func TestFlowsAreServedRoundRobin(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q, greedy, modest := newQueue(10), &outcomes{}, &outcomes{}
		var group sync.WaitGroup
		for range 2000 {
			group.Go(func() { greedy.loop(t, q, of("greedy"), 10*time.Millisecond, 3*time.Second) })
		}
		for range 5 {
			group.Go(func() { modest.loop(t, q, of("modest"), 10*time.Millisecond, 3*time.Second) })
		}
		group.Wait()
		// Five connections, each waiting one round and then running for 10 ms.
		if modest.refused() != 0 || modest.served.Load() < 500 {
			t.Errorf("%d calls of a modest caller served, refused %v, want none refused", modest.served.Load(), modest.refusals)
		}
		if greedy.refused() == 0 || greedy.served.Load() < 1000 {
			t.Errorf("of the greedy caller's %d served, refused %v, want some of both", greedy.served.Load(), greedy.refusals)
		}
		wantIdle(t, q)
	})
}

func TestSheddableCallsAreRefusedFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q, waitedFor, others := newQueue(10), &outcomes{}, &outcomes{}
		var group sync.WaitGroup
		group.Go(func() { waitedFor.offer(t, q, 800, of("a"), 10*time.Millisecond, 5*time.Second) })
		group.Go(func() {
			others.offer(t, q, 1000, limit.Call{Flow: limit.Flow{Subject: "b"}, Sheddable: true}, 10*time.Millisecond, 5*time.Second)
		})
		group.Wait()
		if waitedFor.refused() != 0 || others.refused() == 0 || others.served.Load() < 900 {
			t.Errorf("refused %v of the critical calls and %v of the sheddable ones, of which %d were served; want none, some, and the spare capacity",
				waitedFor.refusals, others.refusals, others.served.Load())
		}
		wantIdle(t, q)
	})
	synctest.Test(t, func(t *testing.T) {
		q, waitedFor, others := newQueue(10), &outcomes{}, &outcomes{}
		var group sync.WaitGroup
		group.Go(func() { waitedFor.offer(t, q, 2000, of("a"), 10*time.Millisecond, 5*time.Second) })
		group.Go(func() {
			time.Sleep(time.Second)
			others.offer(t, q, 500, limit.Call{Flow: limit.Flow{Subject: "b"}, Sheddable: true}, 10*time.Millisecond, 3*time.Second)
		})
		group.Wait()
		if others.served.Load() > 50 || others.of(limit.RefusedSheddable) == 0 {
			t.Errorf("%d sheddable calls served while critical ones are refused, refused %v", others.served.Load(), others.refusals)
		}
		wantIdle(t, q)
	})
}

func TestACallThatCannotMeetItsDeadlineDoesNotRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(1)
		if _, err := q.Enter(t.Context(), of("first")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
		// It would be admitted 50 ms before its deadline, but calls take 100 ms.
		ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
		defer cancel()
		result := make(chan error, 1)
		go func() { _, err := q.Enter(ctx, of("late")); result <- err }()
		synctest.Wait()
		time.Sleep(100 * time.Millisecond)
		q.Leave(100 * time.Millisecond)
		if err := <-result; !errors.Is(err, limit.RefusedDeadline) {
			t.Errorf("a call that can't meet its deadline: %v, want %v", err, limit.RefusedDeadline)
		}
		wantIdle(t, q)
	})
}

func TestACancelledCallLeavesTheQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(1)
		if _, err := q.Enter(t.Context(), of("first")); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		result := make(chan error, 1)
		go func() { _, err := q.Enter(ctx, of("second")); result <- err }()
		synctest.Wait()
		cancel()
		if err := <-result; !errors.Is(err, context.Canceled) {
			t.Errorf("Enter: %v, want %v", err, context.Canceled)
		}
		q.Leave(0)
		wantIdle(t, q)
	})
}

// Calls that wait for an unresponsive service hold all slots.
func TestAStalledQueueRefusesCalls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q, all := newQueue(4), &outcomes{}
		for range 4 {
			if _, err := q.Enter(t.Context(), of("stuck")); err != nil {
				t.Fatal(err)
			}
		}
		all.offer(t, q, 100, of("next"), 0, 2*time.Second)
		if all.refused() != 200 {
			t.Errorf("refused %v, want all 200", all.refusals)
		}
		for range 4 {
			q.Leave(0)
		}
		wantIdle(t, q)
	})
}

func TestAFullQueueRefusesTheLargestFlow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := limit.NewQueue(limit.QueueConfig{Slots: 1, Target: target, Waiting: 100})
		greedy, modest := &outcomes{}, &outcomes{}
		if _, err := q.Enter(t.Context(), of("first")); err != nil {
			t.Fatal(err)
		}
		var group sync.WaitGroup
		for range 150 {
			group.Go(func() { _ = greedy.call(t.Context(), t, q, of("greedy"), 0) })
		}
		synctest.Wait()
		if state := q.State(); state.Waiting != 100 {
			t.Errorf("%+v, want 100 waiting", state)
		}
		group.Go(func() { _ = modest.call(t.Context(), t, q, of("modest"), 0) })
		synctest.Wait()
		if state := q.State(); state.Waiting != 100 {
			t.Errorf("%+v, want 100 waiting", state)
		}
		q.Leave(0)
		group.Wait()
		if modest.served.Load() != 1 || greedy.of(limit.RefusedMemory) != 51 {
			t.Errorf("%d calls of the modest flow served, of the greedy one refused %v, want 1 and 51", modest.served.Load(), greedy.refusals)
		}
		wantIdle(t, q)
	})
}

func TestTheQueueInRealTime(t *testing.T) {
	t.Parallel()
	q, all := newQueue(4), &outcomes{}
	var group sync.WaitGroup
	for i := range 64 {
		group.Go(func() {
			for j := range 50 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(j)*time.Millisecond)
				_ = all.call(ctx, t, q, limit.Call{Flow: limit.Flow{Subject: fmt.Sprint(i % 5)}, Sheddable: i%3 == 0}, time.Millisecond)
				cancel()
			}
		})
	}
	group.Wait()
	if state := q.State(); state.Running != 0 || state.Waiting != 0 {
		t.Errorf("at the end %+v, want nothing running or waiting", state)
	}
}
