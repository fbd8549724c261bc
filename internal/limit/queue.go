package limit

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// interval is how long the delay of the oldest waiting call must exceed the target
	// before the queue is a standing queue rather than a burst (CoDel, RFC 8289,
	// section 3.2).
	interval = 100 * time.Millisecond
	// relapseWindow is how long after an overload the queue detects the next one without
	// waiting for an interval, as CoDel does shortly after it has dropped packets.
	relapseWindow = 2 * time.Second
	// recoveryFraction is the fraction of the target below which the expected delay must fall for
	// an overload to end.
	recoveryFraction = 0.8
	// arrivalFraction is the fraction of the target that the expected delay may reach under
	// overload before the queue refuses new calls.
	arrivalFraction = 0.5

	rateWindow = 100 * time.Millisecond
	// rateGain is the weight of one window in the moving average of the rate.
	rateGain = 0.3
	// minDurationWindow is the window of the minimum call duration.
	minDurationWindow = 10 * time.Second
)

// Flow identifies the caller: the verified subject of a token or, without a token, the
// network of the client's address.
type Flow struct {
	Subject string
	Network netip.Prefix
}

// Call describes a call to the queue.
type Call struct {
	Flow Flow
	// Sheddable calls are refused before the others.
	Sheddable bool
	// Shed makes the queue refuse the call, because calls that are not sheddable wait
	// too long in another queue.
	Shed bool
}

// Refusal is the error of a call that the queue refuses. Its value is the reason.
type Refusal string

// The reasons for a refusal.
const (
	// RefusedDelay: the call has waited as long as the target in a standing queue.
	RefusedDelay Refusal = "delay"
	// RefusedArrival: the call arrived at a standing queue that already held too many
	// calls.
	RefusedArrival Refusal = "arrival"
	// RefusedSheddable: the call is sheddable, and calls that are not wait too long.
	RefusedSheddable Refusal = "sheddable"
	// RefusedDeadline: the call could no longer finish before its deadline.
	RefusedDeadline Refusal = "deadline"
	// RefusedMemory: the queue is full (QueueConfig.Waiting).
	RefusedMemory Refusal = "memory"
)

// Refusals lists all reasons.
var Refusals = []Refusal{RefusedDelay, RefusedArrival, RefusedSheddable, RefusedDeadline, RefusedMemory}

func (r Refusal) Error() string { return "refused for " + string(r) }

// Queue lets a fixed number of calls run at a time and queues the others.
//
// Without overload, the queue is first in, first out within a flow and round robin
// between flows. The overload begins when the oldest call has waited longer than the
// target for a whole interval, which is a standing queue (CoDel: K. Nichols and V.
// Jacobson, "Controlling Queue Delay", ACM Queue, 2012). Under overload the queue is
// last in, first out, so that it serves most calls early rather than all calls late
// (adaptive LIFO: B. Maurer, "Fail at Scale", ACM Queue, 2015). It refuses calls that
// have waited as long as the target. While more calls wait than it can admit within
// half the target, it also refuses new calls, unless their flow has less than its
// share of the queue. The overload ends when the queue could admit all waiting calls,
// and those that it refused within the last target, within the target.
//
// Calls that are not sheddable have priority. While they are in a standing queue, the
// queue refuses sheddable calls.
type Queue struct {
	slots, most int
	target      time.Duration
	// overloaded is the result of Overloaded, without the lock.
	overloaded atomic.Bool
	// pressed is the result of Pressed, without the lock.
	pressed atomic.Bool

	mu          sync.Mutex
	running     int
	critical    band
	rest        band // of sheddable calls
	timer       *time.Timer
	drain       drain
	minDuration minDuration
}

// QueueConfig configures a queue.
type QueueConfig struct {
	// Slots is the concurrency limit.
	Slots int
	// Target is how long a call may wait without being refused.
	Target time.Duration
	// Waiting is the maximum number of waiting calls. It bounds memory.
	Waiting int
}

// NewQueue returns an empty queue.
func NewQueue(config QueueConfig) *Queue {
	return &Queue{slots: config.Slots, most: config.Waiting, target: config.Target, critical: newBand(), rest: newBand()}
}

// QueueState is a snapshot of a queue.
type QueueState struct {
	Slots, Running, Waiting int
	// Held is the number of refused calls whose responses are delayed.
	Held       int
	Overloaded bool
}

// State returns a snapshot of the queue.
func (q *Queue) State() QueueState {
	q.mu.Lock()
	defer q.mu.Unlock()
	return QueueState{
		Slots: q.slots, Running: q.running, Waiting: q.waiting(), Held: q.critical.held + q.rest.held,
		Overloaded: q.critical.overloaded || q.rest.overloaded,
	}
}

func (q *Queue) waiting() int { return q.critical.waiting + q.rest.waiting }

// bandOf returns the band of a call's priority.
func (q *Queue) bandOf(call Call) *band {
	if call.Sheddable {
		return &q.rest
	}
	return &q.critical
}

// Enter waits for a slot and returns how long it waited. After a nil error the caller
// must call [Queue.Leave]. Errors: a [Refusal], or the error of ctx.
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
	q.scheduleControl(now)
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
	case e.refusal == "": // it was admitted, but its context has ended
		q.Leave(0)
		return waited, ctx.Err()
	case ctx.Err() != nil:
		return waited, ctx.Err()
	}
	return waited, e.refusal
}

// Overloaded reports whether TurnAway may refuse a call.
func (q *Queue) Overloaded() bool { return q.overloaded.Load() }

// Pressed reports whether calls that are not sheddable wait too long although running calls
// finish. If no calls finish, a dependency does not respond, which is not overload.
func (q *Queue) Pressed() bool { return q.pressed.Load() }

// TurnAway refuses a call that Enter would refuse at once, before any other work is done for
// the call. It returns the reason, or "" for a call that may enter.
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

// hold delays the response to a refused call by the target, so that clients that retry
// at once do not make the server spend its time on refusals. The caller holds the
// lock, and hold releases it.
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

// Leave releases the slot of a call. ran is how long the call ran, or zero if its
// duration is not representative.
func (q *Queue) Leave(ran time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	q.running--
	q.minDuration.record(now, ran)
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

// next removes the next call from the queue, and refuses the calls that can no longer
// finish before their deadlines.
func (q *Queue) next(now time.Time) *entry {
	for _, b := range []*band{&q.critical, &q.rest} {
		for b.waiting > 0 {
			e := b.pop()
			if e.tooLate(now.Add(q.minDuration.least())) {
				e.decide(RefusedDeadline)
				continue
			}
			return e
		}
	}
	return nil
}

// withdraw removes a call whose context has ended from the queue, unless the call was
// already admitted or refused.
func (q *Queue) withdraw(e *entry) {
	q.mu.Lock()
	defer q.mu.Unlock()
	select {
	case <-e.decided:
	default:
		e.refuse(RefusedDeadline)
	}
}

// control refuses the calls that have waited too long. The caller holds the lock, and
// calls control after every change of the queue.
func (q *Queue) control(now time.Time) {
	q.drain.measure(now, q.waiting() > 0)
	free := q.running < q.slots
	q.critical.detectOverload(now, q.target, q.delay(q.critical.waiting+q.critical.held), free)
	if q.critical.overloaded {
		q.rest.refuseAll(RefusedSheddable)
	}
	q.rest.detectOverload(now, q.target, q.delay(q.waiting()+q.critical.held+q.rest.held), free)
	q.overloaded.Store(q.critical.overloaded || q.rest.overloaded)
	q.pressed.Store(q.critical.overloaded && q.drain.perSecond*q.target.Seconds() >= float64(q.slots))
}

// delay estimates how long the queue takes to admit that many calls.
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
	size := max(int(q.drain.perSecond*q.target.Seconds()*arrivalFraction), 1)
	if b.waiting < size {
		return ""
	}
	// Admit a flow that has less than its share while other flows have more.
	if b.waitingOf(call.Flow) < max(1, size/len(b.flows)) && b.waiting > len(b.flows) {
		return ""
	}
	return RefusedArrival
}

// admission is turnAway for a call that would wait. In a full queue it refuses a waiting call
// instead of a call with higher priority or of a smaller flow.
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
	if b.waitingOf(call.Flow) >= share {
		return RefusedMemory
	}
	for _, f := range b.flows {
		if f.waiting > share {
			e := f.newest
			e.refuse(RefusedMemory)
			return ""
		}
	}
	return RefusedMemory
}

// arm sets a timer that runs control when no call enters or leaves.
func (q *Queue) scheduleControl(now time.Time) {
	next := min(q.critical.nextCheck(now, q.target), q.rest.nextCheck(now, q.target))
	if q.timer == nil {
		q.timer = time.AfterFunc(next, q.onTimer)
		return
	}
	q.timer.Reset(next)
}

func (q *Queue) onTimer() {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	q.control(now)
	if q.waiting() > 0 {
		q.scheduleControl(now)
	}
}

// drain measures how many calls finish per second while others wait.
type drain struct {
	begin     time.Time
	left      int
	busy      bool // whether calls were waiting when the window began
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

// minDuration tracks the minimum duration of recent calls.
type minDuration struct {
	begin        time.Time
	before, this time.Duration
}

func (c *minDuration) record(now time.Time, ran time.Duration) {
	if ran <= 0 {
		return
	}
	if now.Sub(c.begin) > minDurationWindow {
		c.begin, c.before, c.this = now, c.this, ran
	}
	c.this = min(c.this, ran)
}

func (c *minDuration) least() time.Duration {
	if c.before == 0 {
		return c.this
	}
	return min(c.before, c.this)
}
