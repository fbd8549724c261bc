package password

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// hashTime is how long a hash takes in these tests, whose clock is a fake one.
const hashTime = 40 * time.Millisecond

// use takes a slot for as long as a hash.
func (q *queue) use(ctx context.Context, caller Caller) (refusal string, err error) {
	refusal, err = q.enter(ctx, caller, 1)
	if refusal == "" && err == nil {
		time.Sleep(hashTime)
		q.leave(1, hashTime)
	}
	return refusal, err
}

// flood keeps callers trying in a closed loop until ctx ends, and returns what
// waits for them and then tells how many got through and how many didn't.
func (q *queue) flood(ctx context.Context, callers []Caller) (end func() (served, refused int)) {
	var group sync.WaitGroup
	var mu sync.Mutex
	var served, refused int
	for _, caller := range callers {
		group.Go(func() {
			for ctx.Err() == nil {
				refusal, err := q.use(context.WithoutCancel(ctx), caller)
				mu.Lock()
				if refusal == "" && err == nil {
					served++
				} else {
					refused++
				}
				mu.Unlock()
				time.Sleep(time.Millisecond) // a refusal may take no time, and this clock needs some
			}
		})
	}
	return func() (int, int) { group.Wait(); return served, refused }
}

func strangers(n int, flow string) []Caller {
	return slices.Repeat([]Caller{{Class: Stranger, Flow: flow}}, n)
}

// A burst that the slots can serve within seconds is queued, not refused.
func TestABurstIsServed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := queue{free: 1}
		var group sync.WaitGroup
		for i := range 50 {
			group.Go(func() {
				if refusal, err := q.use(t.Context(), Caller{Class: Stranger, Flow: "one"}); refusal != "" || err != nil {
					t.Errorf("call %d of a burst: %q, %v", i, refusal, err)
				}
			})
		}
		group.Wait()
	})
}

// Under a flood that lasts, its calls are refused after the target delay, and
// the slots are never idle.
func TestAFloodIsRefusedByItsDelay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := queue{free: 1}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		end := q.flood(ctx, strangers(100, "one"))
		time.Sleep(10 * time.Second)
		start := time.Now()
		refusal, err := q.use(t.Context(), Caller{Class: Stranger, Flow: "one"})
		if took := time.Since(start); refusal != refusedDelay || err != nil || took > targetDelay+hashTime {
			t.Errorf("a call in the flood: %q, %v after %v; want a refusal by %v", refusal, err, took, targetDelay)
		}
		served, refused := end()
		if least := int(20*time.Second/hashTime) * 95 / 100; served < least || refused == 0 {
			t.Errorf("%d calls were served in 20 s and %d refused, want at least %d served", served, refused, least)
		}
		if q.waiting != 0 || q.free != 1 {
			t.Errorf("%d calls wait and %d slots are free after it, want 0 and 1", q.waiting, q.free)
		}
	})
}

// Guarantee 12: a flood of strangers refuses nobody of another class, and no
// stranger of another network.
func TestAFloodRefusesNobodyElse(t *testing.T) {
	t.Parallel()
	for _, caller := range []Caller{
		{SignedIn, "ada"}, {KnownDevice, "ada"}, {Link, "192.0.2.1"}, {Stranger, "192.0.2.1"},
	} {
		t.Run(classNames[caller.Class], func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				q := queue{free: 1}
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				end := q.flood(ctx, strangers(300, "203.0.113.7")) // more than may wait
				time.Sleep(5 * time.Second)
				for i := range 100 {
					if refusal, err := q.use(t.Context(), caller); refusal != "" || err != nil {
						t.Errorf("call %d: %q, %v", i, refusal, err)
					}
				}
				cancel()
				end()
			})
		})
	}
}

func TestClassesShareByTheirWeights(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := queue{free: 1}
		ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
		defer cancel()
		var ends [classes]func() (int, int)
		for class := range classes {
			ends[class] = q.flood(ctx, slices.Repeat([]Caller{{Class: class, Flow: "one"}}, 20))
		}
		var served [classes]int
		for class, end := range ends {
			served[class], _ = end()
		}
		for class, weight := range classWeights {
			got, want := float64(served[class])/float64(served[Stranger]), weight
			if got < want*0.8 || got > want*1.2 {
				t.Errorf("%s was served %.1f times as often as strangers, want %.0f", classNames[class], got, want)
			}
		}
	})
}

func TestWhatCannotMeetItsDeadlineIsNotHashed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := queue{free: 1}
		for range 50 { // the queue learns how long a hash takes
			if refusal, err := q.use(t.Context(), Caller{}); refusal != "" || err != nil {
				t.Fatal(refusal, err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), hashTime/2)
		defer cancel()
		if refusal, err := q.enter(ctx, Caller{}, 1); refusal != refusedDeadline || err != nil {
			t.Errorf("with a free slot: %q, %v; want a refusal for its deadline", refusal, err)
		}
		go func() { _, _ = q.use(context.WithoutCancel(t.Context()), Caller{}) }()
		synctest.Wait()
		ctx, cancel = context.WithTimeout(t.Context(), hashTime*3/2)
		defer cancel()
		if refusal, err := q.enter(ctx, Caller{}, 1); refusal != refusedDeadline || err != nil {
			t.Errorf("once it is its turn: %q, %v; want a refusal for its deadline", refusal, err)
		}
	})
}

// Memory is bounded: of a class that is full, the longest flow gives way.
func TestAFullClassDropsTheLongestFlow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := queue{}
		var refused sync.Map
		enter := func(flow string) {
			go func() {
				if refusal, _ := q.enter(t.Context(), Caller{Flow: flow}, 1); refusal == refusedFull {
					refused.Store(flow, true)
				}
			}()
			synctest.Wait()
		}
		for range maxWaiting - 1 {
			enter("flood")
		}
		enter("ada")
		for i := range 10 {
			enter(fmt.Sprint("person", i))
		}
		if q.waiting != maxWaiting {
			t.Errorf("%d calls wait, want %d", q.waiting, maxWaiting)
		}
		refused.Range(func(flow, _ any) bool {
			if flow != "flood" {
				t.Errorf("a call of %s was refused, want the flood's alone", flow)
			}
			return true
		})
		if _, ok := refused.Load("flood"); !ok {
			t.Error("nothing of the flood was refused")
		}
		q.leave(maxWaiting, 0)
		synctest.Wait()
	})
}

func TestACallerWhoLeavesGivesTheSlotBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := queue{}
		ctx, cancel := context.WithCancel(t.Context())
		var err error
		go func() { _, err = q.enter(ctx, Caller{}, 1) }()
		synctest.Wait()
		cancel()
		synctest.Wait()
		if err != context.Canceled || q.waiting != 0 {
			t.Errorf("got %v with %d waiting, want context.Canceled and none", err, q.waiting)
		}
	})
}
