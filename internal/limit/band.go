package limit

import (
	"context"
	"time"
)

// band holds the waiting calls of one priority. Each call is in two linked lists: that of its
// flow, and that of the band.
type band struct {
	flows          map[Flow]*flow
	first, last    *flow  // the round robin order of the flows
	oldest, newest *entry // of all
	waiting, held  int

	// aboveTargetSince is when the wait of the oldest call exceeded the target; zero if it
	// does not.
	aboveTargetSince time.Time
	overloaded       bool
	overloadEnd      time.Time // of the last overload
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
	// Neighbours in the list of the band, and in that of the flow.
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

// refuse removes the waiting call from its band and refuses it.
func (e *entry) refuse(refusal Refusal) {
	e.band.remove(e)
	e.decide(refusal)
}

// tooLate reports whether the call's context has ended, or ends before done.
func (e *entry) tooLate(done time.Time) bool {
	deadline, ok := e.ctx.Deadline()
	return e.ctx.Err() != nil || ok && deadline.Before(done)
}

// waitingOf returns the number of waiting calls of a flow.
func (b *band) waitingOf(key Flow) int {
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

// pop removes and returns the next call: the oldest of the first flow or, under overload, the
// newest of the last flow.
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

// detectOverload detects the start and the end of a standing queue. During one, it refuses
// the calls that have waited too long. delay is how long calls would wait if none were
// refused; free reports whether there is a free slot.
func (b *band) detectOverload(now time.Time, target, delay time.Duration, free bool) {
	switch {
	case b.oldest == nil && (free || !b.overloaded):
		b.endOverload(now)
		return
	case b.overloaded:
		if delay < time.Duration(recoveryFraction*float64(target)) {
			b.endOverload(now)
		}
	case now.Sub(b.oldest.at) < target:
		b.aboveTargetSince = time.Time{}
	case b.aboveTargetSince.IsZero():
		b.aboveTargetSince = now
		b.overloaded = now.Sub(b.overloadEnd) < relapseWindow
	default:
		b.overloaded = now.Sub(b.aboveTargetSince) >= interval
	}
	if !b.overloaded {
		return
	}
	for b.oldest != nil && now.Sub(b.oldest.at) >= target {
		b.oldest.refuse(RefusedDelay)
	}
}

func (b *band) endOverload(now time.Time) {
	if b.overloaded {
		b.overloadEnd = now
	}
	b.overloaded, b.aboveTargetSince = false, time.Time{}
}

func (b *band) refuseAll(refusal Refusal) {
	for b.oldest != nil {
		b.oldest.refuse(refusal)
	}
}

// nextCheck returns the time until detectOverload must run again.
func (b *band) nextCheck(now time.Time, target time.Duration) time.Duration {
	switch {
	case b.oldest == nil:
		return target
	case b.aboveTargetSince.IsZero():
		return max(b.oldest.at.Add(target).Sub(now), 0)
	case b.overloaded:
		return max(b.oldest.at.Add(target).Sub(now), 0)
	}
	return max(b.aboveTargetSince.Add(interval).Sub(now), 0)
}
