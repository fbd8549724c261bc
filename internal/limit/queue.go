package limit

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// interval is for how long the oldest waiting call must have waited longer than
	// the target before that counts as a standing queue and not as a burst (CoDel,
	// RFC 8289, section 3.2).
	interval = 100 * time.Millisecond
	// resume is for how long after an overload the next one is believed at once, as
	// CoDel does when it has dropped a moment ago.
	resume = 2 * time.Second
	// relief is the share of the target that everybody would have to wait, at most,
	// for the overload to be over.
	relief = 0.8
	// standing is the share of the target for which calls wait under overload, at
	// most, before newcomers are turned away.
	standing = 0.5

	rateWindow = 100 * time.Millisecond
	// rateGain is by how much of the difference one window changes the rate.
	rateGain = 0.3
	// quickestWindow is for how long the quickest call is remembered.
	quickestWindow = 10 * time.Second
)

// Flow is who a call counts for: the verified subject of a token, or where there
// is none, the network that the call comes from.
type Flow struct {
	Subject string
	Network netip.Prefix
}

// Call is what a queue needs to know of a call.
type Call struct {
	Flow Flow
	// Sheddable says that it may be refused before the others.
	Sheddable bool
	// Shed says that it is to be refused now, for calls that are not sheddable wait
	// too long in another queue.
	Shed bool
}

// Refusal is the error of a call that is not let in, and says why.
type Refusal string

// The reasons for which a call is not let in.
const (
	// RefusedDelay: it has waited as long as the target, and calls stand in a queue
	// that doesn't go away.
	RefusedDelay Refusal = "delay"
	// RefusedArrival: the same, but it came when more calls waited than could be let
	// in within the target.
	RefusedArrival Refusal = "arrival"
	// RefusedSheddable: it is sheddable, and calls that are not have to wait too long.
	RefusedSheddable Refusal = "sheddable"
	// RefusedDeadline: it could not be answered before its deadline any more.
	RefusedDeadline Refusal = "deadline"
	// RefusedMemory: as many calls wait as there is memory for.
	RefusedMemory Refusal = "memory"
)

// Refusals are all reasons.
var Refusals = []Refusal{RefusedDelay, RefusedArrival, RefusedSheddable, RefusedDeadline, RefusedMemory}

func (r Refusal) Error() string { return "refused for " + string(r) }

// Queue lets a fixed number of calls run at a time and queues the others.
//
// While the queue moves, nothing is refused: calls wait their turn, first come,
// first served within a flow, and the flows take turns. The queue counts as
// standing once its oldest call has waited longer than the target for a whole
// interval (CoDel: K. Nichols and V. Jacobson, "Controlling Queue Delay", ACM
// Queue, 2012). Then the order is turned round, so that most calls are answered
// soon instead of all of them late (adaptive LIFO: B. Maurer, "Fail at Scale", ACM
// Queue, 2015); what has waited as long as the target is refused; and while more
// calls wait than can be let in within half the target, newcomers are turned away,
// unless their flow has less than its share of the queue. This ends when all who
// wait, and those who were turned away within the last target, could be let in
// within the target.
//
// Calls that are not sheddable go first. While they stand in a queue, sheddable
// calls are refused.
type Queue struct {
	slots, most int
	target      time.Duration
	// overloaded says that a call may have to be turned away, without the lock.
	overloaded atomic.Bool
	// pressed says that calls which are not sheddable wait too long though they move.
	pressed atomic.Bool

	mu       sync.Mutex
	running  int
	critical band
	rest     band // of sheddable calls
	timer    *time.Timer
	drain    drain
	quickest quickest
}

// QueueConfig is what a queue needs.
type QueueConfig struct {
	// Slots is how many calls run at a time.
	Slots int
	// Target is how long a call may wait without being refused.
	Target time.Duration
	// Waiting is how many calls may wait, for the sake of memory.
	Waiting int
}

// NewQueue returns an empty queue.
func NewQueue(config QueueConfig) *Queue {
	return &Queue{slots: config.Slots, most: config.Waiting, target: config.Target, critical: newBand(), rest: newBand()}
}

// QueueState is how a queue is doing.
type QueueState struct {
	Slots, Running, Waiting int
	// Held is how many calls were turned away and are about to be answered so.
	Held       int
	Overloaded bool
}

// State returns how the queue is doing.
func (q *Queue) State() QueueState {
	q.mu.Lock()
	defer q.mu.Unlock()
	return QueueState{
		Slots: q.slots, Running: q.running, Waiting: q.waiting(), Held: q.critical.held + q.rest.held,
		Overloaded: q.critical.overloaded || q.rest.overloaded,
	}
}

func (q *Queue) waiting() int { return q.critical.waiting + q.rest.waiting }

// bandOf returns where a call waits.
func (q *Queue) bandOf(call Call) *band {
	if call.Sheddable {
		return &q.rest
	}
	return &q.critical
}

// Enter waits for a slot and returns for how long it has waited. Who got one must
// [Queue.Leave]. Errors: a [Refusal], or ctx's.
func (q *Queue) Enter(ctx context.Context, call Call) (time.Duration, error) {
	q.mu.Lock()
	if q.running < q.slots && q.waiting() == 0 && !call.Shed {
		q.running++
		q.mu.Unlock()
		return 0, nil
	}
	now := time.Now()
	q.control(now)
	if refusal := q.admission(call); refusal != "" {
		q.hold(ctx, call)
		return time.Since(now), refusal
	}
	e := q.bandOf(call).push(ctx, call, now)
	q.arm(now)
	q.mu.Unlock()

	select {
	case <-e.decided:
	case <-ctx.Done():
		q.withdraw(e)
	}
	waited := time.Since(now)
	switch {
	case e.refusal == "" && ctx.Err() == nil:
		return waited, nil
	case e.refusal == "": // it was let in as its context ended
		q.Leave(0)
		return waited, ctx.Err()
	case ctx.Err() != nil:
		return waited, ctx.Err()
	}
	return waited, e.refusal
}

// Overloaded reports whether TurnAway may refuse a call.
func (q *Queue) Overloaded() bool { return q.overloaded.Load() }

// Pressed reports whether calls that are not sheddable wait too long although calls
// leave: where none do, something behind is silent, and that is no load.
func (q *Queue) Pressed() bool { return q.pressed.Load() }

// TurnAway refuses a call that Enter would refuse at once, as soon as that is
// decided and before anything else is done for it: it returns the reason, or ""
// for a call that may Enter.
func (q *Queue) TurnAway(ctx context.Context, call Call) Refusal {
	q.mu.Lock()
	q.control(time.Now())
	refusal := q.turnAway(call)
	if refusal == "" {
		q.mu.Unlock()
		return ""
	}
	q.hold(ctx, call)
	return refusal
}

// hold lets a call that is turned away wait for as long as the target, so that a
// client that asks again at once doesn't spend the time of all on refusals. It is
// called with the lock and returns without.
func (q *Queue) hold(ctx context.Context, call Call) {
	b := q.bandOf(call)
	if q.critical.held+q.rest.held >= q.most {
		q.mu.Unlock()
		return
	}
	b.held++
	q.mu.Unlock()
	timer := time.NewTimer(q.target)
	select {
	case <-timer.C:
	case <-ctx.Done():
		timer.Stop()
	}
	q.mu.Lock()
	b.held--
	q.mu.Unlock()
}

// Leave gives the slot of a call back. ran is how long the call has run, or zero
// where that says nothing about how long a call takes.
func (q *Queue) Leave(ran time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	q.running--
	q.quickest.note(now, ran)
	q.drain.left++
	q.control(now)
	for q.running < q.slots {
		e := q.next(now)
		if e == nil {
			break
		}
		q.running++
		e.decide("")
	}
	q.control(now)
}

// next takes the call out of the queue whose turn it is, and refuses those that
// can't be answered in time any more.
func (q *Queue) next(now time.Time) *entry {
	for _, b := range []*band{&q.critical, &q.rest} {
		for b.waiting > 0 {
			e := b.pop()
			if e.tooLate(now.Add(q.quickest.least())) {
				e.decide(RefusedDeadline)
				continue
			}
			return e
		}
	}
	return nil
}

// withdraw takes a call whose context has ended out of the queue, unless that is
// decided already.
func (q *Queue) withdraw(e *entry) {
	q.mu.Lock()
	defer q.mu.Unlock()
	select {
	case <-e.decided:
	default:
		e.band.remove(e)
		e.decide(RefusedDeadline)
	}
}

// control looks at how long calls have waited, and refuses those that waited too
// long. It is called with the lock, whenever something changes.
func (q *Queue) control(now time.Time) {
	q.drain.measure(now, q.waiting() > 0)
	free := q.running < q.slots
	q.critical.look(now, q.target, q.delay(q.critical.waiting+q.critical.held), free)
	if q.critical.overloaded {
		q.rest.refuseAll(RefusedSheddable)
	}
	q.rest.look(now, q.target, q.delay(q.waiting()+q.critical.held+q.rest.held), free)
	q.overloaded.Store(q.critical.overloaded || q.rest.overloaded)
	q.pressed.Store(q.critical.overloaded && q.drain.perSecond*q.target.Seconds() >= float64(q.slots))
}

// delay is how long it takes until so many calls are let in.
func (q *Queue) delay(calls int) time.Duration {
	if !q.drain.known {
		return 0
	}
	return time.Duration(min(float64(calls)/q.drain.perSecond, 3600) * float64(time.Second))
}

// turnAway decides whether a call is refused before it waits.
func (q *Queue) turnAway(call Call) Refusal {
	if call.Shed || call.Sheddable && q.critical.overloaded {
		return RefusedSheddable
	}
	b := q.bandOf(call)
	if !b.overloaded {
		return ""
	}
	size := max(int(q.drain.perSecond*q.target.Seconds()*standing), 1)
	if b.waiting < size {
		return ""
	}
	// A flow that has less than its share may come in as long as others have more.
	if b.of(call.Flow) < max(1, size/len(b.flows)) && b.waiting > len(b.flows) {
		return ""
	}
	return RefusedArrival
}

// admission is turnAway, and makes room where too many wait.
func (q *Queue) admission(call Call) Refusal {
	if refusal := q.turnAway(call); refusal != "" {
		return refusal
	}
	if q.waiting() < q.most {
		return ""
	}
	b := q.bandOf(call)
	if !call.Sheddable && q.rest.waiting > 0 {
		q.rest.pop().decide(RefusedMemory)
		return ""
	}
	if b.waiting == 0 {
		return RefusedMemory
	}
	share := max(1, q.most/(len(b.flows)+1))
	if b.of(call.Flow) >= share {
		return RefusedMemory
	}
	for _, f := range b.flows {
		if f.waiting > share {
			e := f.newest
			b.remove(e)
			e.decide(RefusedMemory)
			return ""
		}
	}
	return RefusedMemory
}

// arm sees to it that the queue is looked at though nothing else happens.
func (q *Queue) arm(now time.Time) {
	next := min(q.critical.due(now, q.target), q.rest.due(now, q.target))
	if q.timer == nil {
		q.timer = time.AfterFunc(next, q.ring)
		return
	}
	q.timer.Reset(next)
}

func (q *Queue) ring() {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	q.control(now)
	if q.waiting() > 0 {
		q.arm(now)
	}
}

// drain is how many calls leave in a second while others wait.
type drain struct {
	begin     time.Time
	left      int
	busy      bool // somebody waited when the window began
	known     bool
	perSecond float64
}

func (d *drain) measure(now time.Time, waiting bool) {
	took := now.Sub(d.begin)
	if took < rateWindow {
		return
	}
	if d.busy && waiting {
		rate := float64(d.left) / took.Seconds()
		if !d.known {
			d.perSecond, d.known = rate, true
		}
		d.perSecond += rateGain * (rate - d.perSecond)
	}
	d.begin, d.left, d.busy = now, 0, waiting
}

// quickest is how long the quickest call has taken lately.
type quickest struct {
	begin        time.Time
	before, this time.Duration
}

func (c *quickest) note(now time.Time, ran time.Duration) {
	if ran <= 0 {
		return
	}
	if now.Sub(c.begin) > quickestWindow {
		c.begin, c.before, c.this = now, c.this, ran
	}
	c.this = min(c.this, ran)
}

func (c *quickest) least() time.Duration {
	if c.before == 0 {
		return c.this
	}
	return min(c.before, c.this)
}
