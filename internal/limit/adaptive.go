package limit

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"time"
)

// ErrFull says that there is no room for a call.
var ErrFull = errors.New("there is no room for the call")

const (
	// maxWait is the longest that a call waits for room. Where many waited in vain,
	// it is no burst that will pass, and waiting would only make everybody late:
	// then it is shortWait (as in B. Maurer, "Fail at Scale", ACM Queue, 2015).
	maxWait   = 10 * time.Millisecond
	shortWait = time.Millisecond
	inVain    = 0.05 // is many
	// yield is for how long after one that somebody waits for was refused nothing
	// else is let in.
	yield = 100 * time.Millisecond

	// The limit is looked at after windowLength with enough calls in it, or after
	// windowMost with any.
	windowLength = 100 * time.Millisecond
	windowMost   = time.Second
	windowCalls  = 20

	// Calls are crowded when they take tolerance times as long as when they are
	// nearly alone, and slack more.
	tolerance = 1.6
	slack     = 500 * time.Microsecond
	// mostCut is what one window leaves of the limit at the least.
	mostCut = 0.7
	// probeInterval is how often, at the limit, it is looked at again how long
	// calls take that are nearly alone.
	probeInterval = 10 * time.Second
	// learned is by how much of the difference one window changes what is known of
	// calls that are alone.
	learned = 0.25
	// reserved is the share of the limit that is kept for what must not wait.
	reserved = 0.25
)

// Adaptive lets a number of calls run at a time, and learns how large it may be.
//
// It compares how long calls take, kind by kind, with how long they take when
// nearly nothing else runs. Where they take much longer, some of them stand in a
// queue somewhere behind, and the limit comes down to what would run without one
// (as in TCP Vegas, and Netflix's concurrency-limits); else it rises again. What
// calls take alone is learned while few run, and under lasting load by letting
// few run for a moment, so that what is slow for long isn't taken for normal.
type Adaptive struct {
	// floor, start and ceiling bound the limit and say where it begins; few is what
	// runs as if alone.
	floor, start, ceiling, few float64

	mu      sync.Mutex
	limit   float64
	running int
	waiting []*waiter // the newest last
	// refused is when the last one was that somebody waits for.
	refused time.Time
	// hopeless says that many waited in vain in the last window, and crowded that
	// its calls were.
	hopeless, crowded bool
	kinds             []kind
	window            window
	probe             probe
}

// kind is how long calls of one kind take.
type kind struct {
	alone time.Duration // nearly alone; zero when it isn't known
	count int
	took  time.Duration // of all in the window
}

// window is what was seen since the limit was looked at last.
type window struct {
	begin, noted time.Time
	calls        int
	area         time.Duration // of running calls over time
	peak         int
	vain         int // how many waited in vain
	refused      bool
}

// probe is the looking again at what calls take alone.
type probe struct {
	last    time.Time
	running bool
	limit   float64 // that was put aside for it
}

type waiter struct {
	// said is closed when it is decided; admitted says how.
	said     chan struct{}
	admitted bool
}

// NewAdaptive returns one for so many kinds of calls.
func NewAdaptive(kinds int) *Adaptive {
	cores := float64(runtime.GOMAXPROCS(0))
	return newAdaptive(kinds, cores)
}

func newAdaptive(kinds int, cores float64) *Adaptive {
	return &Adaptive{
		floor: 2 * cores, start: max(64, 16*cores), ceiling: 4096, few: cores,
		limit: max(64, 16*cores), kinds: make([]kind, kinds),
	}
}

// Fixed returns one whose limit stays as it is.
func Fixed(limit, kinds int) *Adaptive {
	size := float64(limit)
	return &Adaptive{floor: size, start: size, ceiling: size, limit: size, kinds: make([]kind, kinds)}
}

// State is how it is doing.
type State struct{ Limit, Running, Waiting int }

// State returns how it is doing just now.
func (a *Adaptive) State() State {
	a.mu.Lock()
	defer a.mu.Unlock()
	return State{Limit: int(a.limit), Running: a.running, Waiting: len(a.waiting)}
}

// Enter waits for room, for a moment if first says that somebody waits for the
// call, else not at all. Who was let in must Leave. Errors: ErrFull, or ctx's.
func (a *Adaptive) Enter(ctx context.Context, first bool) error {
	a.mu.Lock()
	now := time.Now()
	a.note(now)
	room := a.limit
	if !first {
		room -= a.limit * reserved
	}
	if a.running < int(room) && (first || len(a.waiting) == 0 && now.Sub(a.refused) > yield) {
		a.begin()
		a.mu.Unlock()
		return nil
	}
	if !first {
		a.window.refused = true
		a.mu.Unlock()
		return ErrFull
	}
	w, wait := a.wait(now)
	a.mu.Unlock()

	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-w.said:
	case <-timer.C:
		a.giveUp(w)
	case <-ctx.Done():
		if !a.giveUp(w) {
			return ctx.Err()
		}
	}
	if !w.admitted {
		return ErrFull
	}
	return nil
}

func (a *Adaptive) begin() {
	a.running++
	a.window.peak = max(a.window.peak, a.running)
}

// refuse notes that one that somebody waits for is refused.
func (a *Adaptive) refuse(now time.Time) {
	a.refused, a.window.refused = now, true
	a.window.vain++
}

// wait puts one more in the queue, out of which the oldest falls.
func (a *Adaptive) wait(now time.Time) (*waiter, time.Duration) {
	if len(a.waiting) >= max(1, int(a.limit)) {
		a.refuse(now)
		close(a.waiting[0].said)
		a.waiting = slices.Delete(a.waiting, 0, 1)
	}
	w := &waiter{said: make(chan struct{})}
	a.waiting = append(a.waiting, w)
	if a.hopeless {
		return w, shortWait
	}
	return w, maxWait
}

// giveUp takes a waiter out of the queue, and returns whether it has been let in
// before that.
func (a *Adaptive) giveUp(w *waiter) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if i := slices.Index(a.waiting, w); i >= 0 {
		a.waiting = slices.Delete(a.waiting, i, i+1)
		a.refuse(time.Now())
	}
	return w.admitted
}

// Leave ends a call that was let in. Where it went as calls of its kind go, took
// is how long it ran; else zero, for what was refused soon says nothing of the
// rest.
func (a *Adaptive) Leave(of int, took time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	a.note(now)
	a.running--
	// What began before a probe did has stood in the crowd that was there then.
	if took > 0 && !(a.probe.running && now.Sub(a.window.begin) < took) {
		a.kinds[of].count++
		a.kinds[of].took += took
		a.window.calls++
	}
	if since := now.Sub(a.window.begin); since >= windowMost || since >= windowLength && a.window.calls >= windowCalls {
		a.look(now)
	}
	// The newest first: the others have waited in vain already.
	for len(a.waiting) > 0 && a.running < int(a.limit) {
		last := len(a.waiting) - 1
		w := a.waiting[last]
		a.waiting = a.waiting[:last]
		w.admitted = true
		a.begin()
		close(w.said)
	}
}

// note adds up how many were running until now.
func (a *Adaptive) note(now time.Time) {
	w := &a.window
	if w.begin.IsZero() {
		w.begin, w.noted = now, now
	}
	w.area += now.Sub(w.noted) * time.Duration(a.running)
	w.noted = now
}

// look ends a window, and sets the limit by what was seen in it.
func (a *Adaptive) look(now time.Time) {
	w := a.window
	a.window = window{begin: now, noted: now, peak: a.running}
	a.hopeless = float64(w.vain) > inVain*float64(w.calls)
	if a.floor == a.ceiling {
		return
	}
	if a.probe.running {
		a.learn(1, 1)
		a.limit, a.probe = a.probe.limit, probe{last: now}
		return
	}
	crowd := float64(w.area) / float64(now.Sub(w.begin))
	alone := crowd <= a.few
	raise := 0.0
	if alone {
		raise = learned
	}
	allowed, took := a.learn(raise, learned)
	before := a.crowded
	a.crowded = crowd >= a.floor && took > allowed
	switch {
	case a.crowded && !before: // it may have been odd
	case a.crowded:
		size := min(a.limit, float64(w.peak))
		a.limit = max(a.floor, size*max(mostCut, float64(allowed)/float64(took)))
	case float64(w.peak) >= a.limit/2:
		a.limit = min(a.ceiling, a.limit+max(1, a.limit/20))
	case a.limit < a.start:
		a.limit++
	}
	switch {
	case alone:
		a.probe.last = now
	case w.refused && now.Sub(a.probe.last) >= probeInterval:
		a.probe = probe{running: true, limit: a.limit}
		a.limit = a.few
	}
}

// learn takes over how long the window's calls took: by so much of the
// difference what calls take alone is raised or lowered. It returns how long they
// might have taken in all without being crowded, and how long they took.
func (a *Adaptive) learn(raise, lower float64) (allowed, took time.Duration) {
	for i := range a.kinds {
		k := &a.kinds[i]
		if k.count == 0 {
			continue
		}
		mean := k.took / time.Duration(k.count)
		by := raise
		if mean < k.alone {
			by = lower
		}
		if k.alone == 0 {
			by = 1
		}
		k.alone += time.Duration(by * float64(mean-k.alone))
		allowed += time.Duration(float64(k.count) * (tolerance*float64(k.alone) + float64(slack)))
		took += k.took
		k.count, k.took = 0, 0
	}
	return allowed, took
}
