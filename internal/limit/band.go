package limit

import (
	"context"
	"time"
)

// band holds the waiting calls of one priority. Each call is in two lists: the list of
// its flow, and the list of all arrivals.
type band struct {
	flows          map[Flow]*flow
	first, last    *flow  // the order in which flows take turns
	oldest, newest *entry // of all
	waiting, held  int

	// above is the time since which the oldest call has waited longer than the target.
	above      time.Time
	overloaded bool
	relieved   time.Time // when the last overload ended
}

// flow holds the waiting calls of one caller.
type flow struct {
	key            Flow
	before, after  *flow
	oldest, newest *entry
	waiting        int
}

// entry is a waiting call.
type entry struct {
	ctx  context.Context //nolint:containedctx // an entry belongs to one call
	at   time.Time
	band *band
	flow *flow
	// Neighbours among all arrivals, and within the flow.
	older, newer         *entry
	flowOlder, flowNewer *entry
	// decided is closed when the call may run or is refused.
	decided chan struct{}
	refusal Refusal
}

func newBand() band { return band{flows: map[Flow]*flow{}} }

func (e *entry) decide(refusal Refusal) {
	e.refusal = refusal
	close(e.decided)
}

// refuse takes the waiting call out of its band and refuses it.
func (e *entry) refuse(refusal Refusal) {
	e.band.remove(e)
	e.decide(refusal)
}

// tooLate reports whether the call's context has ended, or its deadline is before done.
func (e *entry) tooLate(done time.Time) bool {
	deadline, ok := e.ctx.Deadline()
	return e.ctx.Err() != nil || ok && deadline.Before(done)
}

// of returns the number of waiting calls of a flow.
func (b *band) of(key Flow) int {
	if f := b.flows[key]; f != nil {
		return f.waiting
	}
	return 0
}

func (b *band) push(ctx context.Context, call Call, now time.Time) *entry {
	f := b.flows[call.Flow]
	if f == nil {
		f = &flow{key: call.Flow}
		b.flows[call.Flow] = f
		b.toBack(f)
	}
	e := &entry{ctx: ctx, at: now, band: b, flow: f, older: b.newest, flowOlder: f.newest, decided: make(chan struct{})}
	if e.older != nil {
		e.older.newer = e
	} else {
		b.oldest = e
	}
	if e.flowOlder != nil {
		e.flowOlder.flowNewer = e
	} else {
		f.oldest = e
	}
	b.newest, f.newest = e, e
	b.waiting++
	f.waiting++
	return e
}

// pop takes out the call whose turn it is. Under overload the turns go the other
// way round.
func (b *band) pop() *entry {
	f := b.first
	e := f.oldest
	if b.overloaded {
		f = b.last
		e = f.newest
	}
	b.remove(e)
	if f.waiting == 0 {
		return e
	}
	b.unlink(f)
	if b.overloaded {
		b.toFront(f)
	} else {
		b.toBack(f)
	}
	return e
}

func (b *band) remove(e *entry) {
	if e.older != nil {
		e.older.newer = e.newer
	} else {
		b.oldest = e.newer
	}
	if e.newer != nil {
		e.newer.older = e.older
	} else {
		b.newest = e.older
	}
	f := e.flow
	if e.flowOlder != nil {
		e.flowOlder.flowNewer = e.flowNewer
	} else {
		f.oldest = e.flowNewer
	}
	if e.flowNewer != nil {
		e.flowNewer.flowOlder = e.flowOlder
	} else {
		f.newest = e.flowOlder
	}
	b.waiting--
	if f.waiting--; f.waiting == 0 {
		b.unlink(f)
		delete(b.flows, f.key)
	}
}

func (b *band) unlink(f *flow) {
	if f.before != nil {
		f.before.after = f.after
	} else {
		b.first = f.after
	}
	if f.after != nil {
		f.after.before = f.before
	} else {
		b.last = f.before
	}
	f.before, f.after = nil, nil
}

func (b *band) toBack(f *flow) {
	if f.before = b.last; f.before != nil {
		f.before.after = f
	} else {
		b.first = f
	}
	b.last = f
}

func (b *band) toFront(f *flow) {
	if f.after = b.first; f.after != nil {
		f.after.before = f
	} else {
		b.last = f
	}
	b.first = f
}

// look detects when a standing queue forms and when it ends. While there is one, it
// refuses the calls that have waited too long. delay is how long calls would wait if
// none were refused; free reports whether a slot is free for the next call.
func (b *band) look(now time.Time, target, delay time.Duration, free bool) {
	switch {
	case b.oldest == nil && (free || !b.overloaded):
		b.relieve(now)
		return
	case b.overloaded:
		if delay < time.Duration(relief*float64(target)) {
			b.relieve(now)
		}
	case now.Sub(b.oldest.at) < target:
		b.above = time.Time{}
	case b.above.IsZero():
		b.above = now
		b.overloaded = now.Sub(b.relieved) < resume
	default:
		b.overloaded = now.Sub(b.above) >= interval
	}
	if !b.overloaded {
		return
	}
	for b.oldest != nil && now.Sub(b.oldest.at) >= target {
		b.oldest.refuse(RefusedDelay)
	}
}

func (b *band) relieve(now time.Time) {
	if b.overloaded {
		b.relieved = now
	}
	b.overloaded, b.above = false, time.Time{}
}

func (b *band) refuseAll(refusal Refusal) {
	for b.oldest != nil {
		b.oldest.refuse(refusal)
	}
}

// due returns the time until look must run again.
func (b *band) due(now time.Time, target time.Duration) time.Duration {
	switch {
	case b.oldest == nil:
		return target
	case b.above.IsZero():
		return max(b.oldest.at.Add(target).Sub(now), 0)
	case b.overloaded:
		return max(b.oldest.at.Add(target).Sub(now), 0)
	}
	return max(b.above.Add(interval).Sub(now), 0)
}
