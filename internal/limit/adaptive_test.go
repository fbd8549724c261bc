package limit

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// machine is a server of so many cores. A call waits for something else and for
// a core, in turn.
type machine struct {
	cores chan struct{}
	// work is how long a call keeps a core, and wait how long it then waits for
	// something else, on average, in each of three pieces.
	work, wait time.Duration
}

func newMachine(cores int, work, wait time.Duration) *machine {
	return &machine{cores: make(chan struct{}, cores), work: work, wait: wait}
}

func (m *machine) run(random *rand.Rand) {
	for range 3 {
		work, wait := m.work/3, m.wait/3
		m.cores <- struct{}{}
		time.Sleep(time.Duration(float64(work) * (0.5 + random.Float64())))
		<-m.cores
		time.Sleep(time.Duration(float64(wait) * (0.5 + random.Float64())))
	}
}

// caller is a stream of calls that come at their times, whatever becomes of
// those before (an open loop).
type caller struct {
	perSecond float64
	first     bool
	kind      int
	on        *machine

	mu                sync.Mutex
	answered, refused []time.Duration // how long it took
}

// load sends the callers' calls for so long; those of the first two seconds
// don't count.
func load(t *testing.T, gate *Adaptive, length time.Duration, callers ...*caller) {
	t.Helper()
	const settle = 2 * time.Second
	var group sync.WaitGroup
	for i, c := range callers {
		random := rand.New(rand.NewPCG(1, uint64(i)))
		group.Go(func() {
			begin := time.Now()
			for time.Since(begin) < settle+length {
				time.Sleep(time.Duration(random.ExpFloat64() / c.perSecond * float64(time.Second)))
				own, at := rand.New(rand.NewPCG(random.Uint64(), 1)), time.Now()
				group.Go(func() {
					err := gate.Enter(context.Background(), c.first)
					if err != nil && !errors.Is(err, ErrFull) {
						t.Errorf("Enter: %v", err)
					}
					if err == nil {
						entered := time.Now()
						c.on.run(own)
						gate.Leave(c.kind, time.Since(entered))
					}
					if at.Sub(begin) < settle {
						return
					}
					c.mu.Lock()
					defer c.mu.Unlock()
					if err == nil {
						c.answered = append(c.answered, time.Since(at))
					} else {
						c.refused = append(c.refused, time.Since(at))
					}
				})
			}
		})
	}
	group.Wait()
	if left := gate.State(); left.Running != 0 || left.Waiting != 0 {
		t.Errorf("when all is over: %+v, want nothing running and nobody waiting", left)
	}
}

func (c *caller) share() float64 {
	return float64(len(c.answered)) / float64(len(c.answered)+len(c.refused))
}

func p99(times []time.Duration) time.Duration {
	slices.Sort(times)
	if len(times) == 0 {
		return 0
	}
	return times[(len(times)-1)*99/100]
}

// unbounded lets everything in, to see what the machine by itself does.
func unbounded() *Adaptive { return Fixed(1<<30, 1) }

func TestUnderThreeTimesItsCapacityAMachineAnswersNearlyAsMuchAsItCanInGoodTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const length = 20 * time.Second
		m := func() *machine { return newMachine(2, 2*time.Millisecond, time.Millisecond) } // 1000 a second
		alone := &caller{perSecond: 100, first: true, on: m()}
		load(t, unbounded(), length, alone)
		const peak = 1000.0

		gate := newAdaptive(1, 2)
		over := &caller{perSecond: 3 * peak, first: true, on: m()}
		load(t, gate, length, over)
		goodput := float64(len(over.answered)) / length.Seconds()
		t.Logf("%.0f a second of %.0f are answered, p99 %s (alone %s), p99 of refusals %s; %+v",
			goodput, peak, p99(over.answered), p99(alone.answered), p99(over.refused), gate.State())
		if goodput < 0.9*peak {
			t.Errorf("%.0f a second are answered, want at least 90 %% of %.0f", goodput, peak)
		}
		if p99(over.answered) > 2*p99(alone.answered) {
			t.Errorf("p99 is %s, want less than twice the %s of a tenth of the load", p99(over.answered), p99(alone.answered))
		}
		if p99(over.refused) > maxWait {
			t.Errorf("refusals come after %s, want within %s", p99(over.refused), maxWait)
		}
	})
}

func TestNobodyIsRefusedAtANormalLoad(t *testing.T) {
	for _, c := range []struct {
		name      string
		perSecond float64
		on        *machine
		most      float64 // share that is refused
	}{
		{"half of what it can do", 500, newMachine(2, 2*time.Millisecond, time.Millisecond), 0},
		// Here calls do wait for each other now and then.
		{"three quarters of it", 750, newMachine(2, 2*time.Millisecond, time.Millisecond), 0.005},
		{"many that wait long for something else", 2000, newMachine(64, time.Millisecond, 30*time.Millisecond), 0},
		{"next to nothing", 2, newMachine(2, 20*time.Millisecond, time.Second), 0},
		{"what is too short to tell", 3000, newMachine(2, 100*time.Microsecond, 50*time.Microsecond), 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c.on.cores = make(chan struct{}, cap(c.on.cores)) // of this bubble
				gate := newAdaptive(1, 2)
				calls := &caller{perSecond: c.perSecond, first: true, on: c.on}
				load(t, gate, 60*time.Second, calls)
				t.Logf("%d are answered, %d refused; %+v", len(calls.answered), len(calls.refused), gate.State())
				if refused := 1 - calls.share(); refused > c.most {
					t.Errorf("%d of %d are refused, want a share of at most %g", len(calls.refused), len(calls.answered)+len(calls.refused), c.most)
				}
			})
		})
	}
}

// A burst that is over in a moment waits or runs, whatever was before.
func TestABurstIsLetIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate, m := newAdaptive(1, 2), newMachine(2, time.Millisecond, time.Millisecond)
		burst := func(when string) {
			var group sync.WaitGroup
			for i := range 40 {
				group.Go(func() {
					if err := gate.Enter(t.Context(), true); err != nil {
						t.Errorf("%s: call %d of 40: %v", when, i+1, err)
						return
					}
					begin := time.Now()
					m.run(rand.New(rand.NewPCG(1, uint64(i))))
					gate.Leave(0, time.Since(begin))
				})
			}
			group.Wait()
		}
		burst("at the start")
		load(t, gate, 10*time.Second, &caller{perSecond: 6000, first: true, on: m})
		if after := gate.State().Limit; after > 20 {
			t.Errorf("under overload the limit is %d, want it low", after)
		}
		load(t, gate, 30*time.Second, &caller{perSecond: 200, first: true, on: m})
		burst("after an overload and half a minute")
	})
}

func TestWhatNobodyWaitsForIsRefusedFirst(t *testing.T) {
	for _, c := range []struct {
		name            string
		first, rest     float64 // a second, of 1000
		least           float64 // share of the first that is answered
		mostOfTheOthers float64
		leastInAll      float64 // a second
	}{
		{"half of what there is room for, and five times as much of the rest", 500, 2500, 0.99, 0.25, 800},
		{"three times as much as there is room for, and as much of the rest", 3000, 3000, 0.3, 0.001, 950},
		{"nothing but the rest", 1e-9, 3000, 0, 1, 700},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const length = 20 * time.Second
				m := newMachine(2, 2*time.Millisecond, time.Millisecond)
				gate := newAdaptive(2, 2)
				first, rest := &caller{perSecond: max(c.first, 0.5), first: true, on: m}, &caller{perSecond: c.rest, kind: 1, on: m}
				load(t, gate, length, first, rest)
				inAll := float64(len(first.answered)+len(rest.answered)) / length.Seconds()
				t.Logf("of what somebody waits for %.3f, of the rest %.3f, in all %.0f a second; %+v", first.share(), rest.share(), inAll, gate.State())
				if first.share() < c.least {
					t.Errorf("of what somebody waits for, %.3f is answered, want at least %.3f", first.share(), c.least)
				}
				if rest.share() > c.mostOfTheOthers {
					t.Errorf("of the rest, %.3f is answered, want at most %.3f", rest.share(), c.mostOfTheOthers)
				}
				if inAll < c.leastInAll {
					t.Errorf("%.0f a second are answered in all, want at least %.0f", inAll, c.leastInAll)
				}
			})
		})
	}
}

// What has become slow for good isn't taken for a crowd for ever, and what was
// overloaded from its first moment on isn't taken for slow.
func TestWhatCallsTakeAloneIsLearnedAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := newAdaptive(1, 2)
		load(t, gate, 10*time.Second, &caller{perSecond: 300, first: true, on: newMachine(2, 2*time.Millisecond, time.Millisecond)})
		slow := newMachine(2, 2*time.Millisecond, 40*time.Millisecond) // 300 a second are 12 at a time
		load(t, gate, 60*time.Second, &caller{perSecond: 300, first: true, on: slow})
		after := &caller{perSecond: 300, first: true, on: slow}
		load(t, gate, 30*time.Second, after)
		t.Logf("of what is slow for good, %.3f is answered; %+v", after.share(), gate.State())
		if after.share() < 0.999 {
			t.Errorf("a minute after it became slow, %.3f is answered, want all", after.share())
		}
	})
}

func TestOneWaitsAtMostTenMillisecondsAndTheNewestGoesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := Fixed(3, 1)
		for range 3 {
			if err := gate.Enter(t.Context(), true); err != nil {
				t.Fatal(err)
			}
		}
		begin := time.Now()
		if err := gate.Enter(t.Context(), false); !errors.Is(err, ErrFull) || time.Since(begin) > 0 {
			t.Errorf("what nobody waits for: %v after %s, want ErrFull at once", err, time.Since(begin))
		}
		time.Sleep(time.Second)
		begin = time.Now()
		if err := gate.Enter(t.Context(), true); !errors.Is(err, ErrFull) || time.Since(begin) != maxWait {
			t.Errorf("what somebody waits for: %v after %s, want ErrFull after %s", err, time.Since(begin), maxWait)
		}

		var order []int
		var mu sync.Mutex
		var group sync.WaitGroup
		for i := range 4 { // the queue has room for three
			group.Go(func() {
				err := gate.Enter(t.Context(), true)
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					i = -i - 1
				}
				order = append(order, i)
			})
			synctest.Wait()
		}
		for range 3 {
			gate.Leave(0, 0)
			synctest.Wait()
		}
		group.Wait()
		if !slices.Equal(order, []int{-1, 3, 2, 1}) {
			t.Errorf("they came out as %v, want the oldest refused (-1) and the others from the newest on", order)
		}
		gone, cancel := context.WithTimeout(t.Context(), shortWait/2)
		defer cancel()
		if err := gate.Enter(gone, true); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("whose own time is over: %v, want its context's error", err)
		}
		for range 3 {
			gate.Leave(0, 0)
		}
		if left := gate.State(); left != (State{Limit: 3}) {
			t.Errorf("at the end %+v, want nothing running or waiting", left)
		}
	})
}
