package webhooks

import (
	"maps"
	"slices"
	"sync"
	"time"
)

const (
	// perEndpoint bounds the concurrent attempts to an endpoint, of all copies of auth.
	perEndpoint = 4
	// quickFor is how long an attempt takes the place of a quick one.
	quickFor = 250 * time.Millisecond
	// slowAfter is how long an attempt may take before its endpoint counts as slow, for
	// slowMemory. A slow endpoint gets one attempt at a time.
	slowAfter  = time.Second
	slowMemory = 2 * time.Minute
	// maxSlow bounds the attempts that take longer than quickFor, and maxQuick the others:
	// slow endpoints do not take the place of quick ones.
	maxSlow  = 1024
	maxQuick = 256
)

// flights are the attempts under way in this process, by endpoint.
type flights struct {
	mu        *sync.Mutex
	endpoints map[string]*flight
	slow      int // attempts that count against maxSlow
	quick     int
}

// flight is what is known of an endpoint.
type flight struct {
	attempts  int
	slowUntil time.Time
}

func (f *flight) isSlow(now time.Time) bool { return now.Before(f.slowUntil) }

// free returns how many attempts may begin, the endpoints that get none, and the slow ones.
func (f *flights) free(now time.Time) (most int, held, slow []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	maps.DeleteFunc(f.endpoints, func(_ string, one *flight) bool { return one.attempts == 0 && !one.isSlow(now) })
	held, slow = []string{}, []string{} // not nil: that is NULL to Postgres, which nothing differs from
	for id, one := range f.endpoints {
		switch {
		case one.attempts >= perEndpoint, one.isSlow(now) && (one.attempts > 0 || f.slow >= maxSlow):
			held = append(held, id)
		case one.isSlow(now):
			slow = append(slow, id)
		}
	}
	slices.Sort(slow)
	return max(0, maxQuick-f.quick), held, slow
}

// begin counts an attempt; freed is called when it no longer takes a quick one's place. The
// returned function ends it.
func (f *flights) begin(id string, freed func()) (end func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	one := f.endpoints[id]
	if one == nil {
		one = &flight{}
		f.endpoints[id] = one
	}
	one.attempts++
	slow := one.isSlow(time.Now()) && f.slow < maxSlow
	ended := false
	if slow {
		f.slow++
	} else {
		f.quick++
	}
	began := time.Now()
	move := time.AfterFunc(quickFor, func() {
		f.mu.Lock()
		moved := !ended && !slow && f.slow < maxSlow
		if moved {
			slow = true
			f.quick--
			f.slow++
		}
		f.mu.Unlock()
		if moved {
			freed()
		}
	})
	mark := time.AfterFunc(slowAfter, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if !ended {
			one.slowUntil = time.Now().Add(slowMemory)
		}
	})
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		ended = true
		one.attempts--
		move.Stop()
		mark.Stop()
		if time.Since(began) < slowAfter {
			one.slowUntil = time.Time{}
		}
		if slow {
			f.slow--
		} else {
			f.quick--
		}
	}
}
