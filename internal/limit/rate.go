package limit

import (
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"
)

// Rate limits a caller to one call per Interval on average, with bursts of up to Burst
// calls.
type Rate struct {
	Interval time.Duration
	Burst    int
}

// Network returns the network that is limited as one caller. For IPv6 it is the /64,
// which usually belongs to one customer.
func Network(address netip.Addr) netip.Prefix {
	address = address.Unmap().WithZone("")
	bits := address.BitLen()
	if address.Is6() {
		bits = 64
	}
	return netip.PrefixFrom(address, bits).Masked()
}

// window is the time in which an exhausted burst becomes fully available again.
func (r Rate) window() time.Duration { return r.Interval * time.Duration(r.Burst) }

// Verdict is the decision on one call.
type Verdict struct {
	// Wait is how long the caller must wait before it retries; zero when the call is
	// admitted.
	Wait time.Duration
	// Left is how many more calls would be admitted now.
	Left int
	// Full is how long it takes until the whole burst is available again.
	Full time.Duration
}

// verdict returns the Verdict for a caller. used is the time until the whole burst is
// available again; over is the time until the call would be admitted, or at most zero.
func (r Rate) verdict(used, over time.Duration) Verdict {
	return Verdict{Wait: max(over, 0), Left: int(max(r.window()-used, 0) / r.Interval), Full: used}
}

// Local enforces rates in this process. It stores a fixed number of callers, and evicts
// those that have called rarely or not recently.
type Local[Key comparable] struct {
	// Now is the clock.
	Now func() time.Time

	free *otter.Cache[Key, *atomic.Int64] // in Unix nanoseconds
}

// NewLocal returns a Local that stores up to that many callers.
func NewLocal[Key comparable](callers int) (*Local[Key], error) {
	free, err := otter.New(&otter.Options[Key, *atomic.Int64]{MaximumSize: callers})
	if err != nil {
		return nil, fmt.Errorf("create the store of callers: %w", err)
	}
	return &Local[Key]{Now: time.Now, free: free}, nil
}

// Take counts one call if the rate admits it.
func (l *Local[Key]) Take(key Key, rate Rate) Verdict {
	free, ok := l.free.GetIfPresent(key)
	if !ok {
		free, _ = l.free.ComputeIfAbsent(key, func() (*atomic.Int64, bool) { return new(atomic.Int64), false })
	}
	for {
		now, before := l.Now().UnixNano(), free.Load()
		used := time.Duration(max(before-now, 0))
		if used > rate.window() { // the clock was set back
			free.CompareAndSwap(before, now+int64(rate.window()))
			continue
		}
		if over := used + rate.Interval - rate.window(); over > 0 {
			return rate.verdict(used, over)
		}
		if free.CompareAndSwap(before, now+int64(used+rate.Interval)) {
			return rate.verdict(used+rate.Interval, 0)
		}
	}
}

// GiveBack undoes one Take that admitted a call.
func (l *Local[Key]) GiveBack(key Key, rate Rate) {
	free, ok := l.free.GetIfPresent(key)
	if !ok {
		return
	}
	for {
		now, before := l.Now().UnixNano(), free.Load()
		if before <= now || free.CompareAndSwap(before, max(before-int64(rate.Interval), now)) {
			return
		}
	}
}

// Callers returns the approximate number of stored callers.
func (l *Local[Key]) Callers() int {
	l.free.CleanUp()
	return l.free.EstimatedSize()
}
