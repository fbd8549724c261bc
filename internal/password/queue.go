package password

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Class is the priority of a hash: its share of the slots while others wait.
type Class int

// Classes, from the smallest share to the largest.
const (
	Stranger    Class = iota // nothing is known of the caller
	Link                     // holds a link from a mail
	KnownDevice              // signs in on a device that the account has signed in on
	SignedIn                 // has a session, or is the operator
	classes
)

var (
	classNames = [classes]string{"stranger", "link", "known_device", "signed_in"}
	// Weights: while all classes wait, a signed-in person's calls get 8 of 15
	// slots, a stranger's one.
	classWeights = [classes]float64{1, 2, 4, 8}
)

// Caller says who a password is hashed for.
type Caller struct {
	Class Class
	// Flow is the caller's network, or account if that is proven. The flows of a
	// class take turns, so that one that sends a thousand calls delays only itself.
	Flow string
}

const (
	// targetDelay is how long a call may always wait. Once a class has had calls
	// waiting for burstDelay without a break, it is overloaded, and its calls
	// wait no longer than this (the controlled delay of "Fail at Scale", Maurer
	// 2015, after CoDel, Nichols and Jacobson 2012).
	targetDelay = 250 * time.Millisecond
	// burstDelay is how long a call may wait in a burst: a queue that empties by
	// itself is no overload. It is shorter than the deadline of the gateway's calls.
	burstDelay = 3 * time.Second
	// maxWaiting bounds the queue of one class.
	maxWaiting = 256
)

// Reasons of a refusal.
const (
	refusedDelay    = "delay"    // it waited for as long as its class allows
	refusedDeadline = "deadline" // the caller would have left before the end
	refusedFull     = "full"     // too many of its class wait
)

// queue grants slots: to the classes by weight (stride scheduling, Waldspurger
// and Weihl 1995), within a class to each flow in turn, within a flow in order.
type queue struct {
	mu      sync.Mutex
	free    int64
	waiting int
	classes [classes]classQueue
	virtual float64       // the pass of the call that got a slot last
	hash    time.Duration // how long a hash takes, a moving average; 0 at first
}

type classQueue struct {
	flows   []*flow // those with calls waiting; the first is next
	waiting int
	pass    float64   // the class with the least is next
	since   time.Time // since when calls have been waiting
}

type flow struct {
	name  string
	calls []*call
}

// call is a call in the queue.
type call struct {
	caller   Caller
	weight   int64
	deadline time.Time // zero if there is none
	done     chan struct{}
	refusal  string // set before done is closed, unless it got its slots
}

// enter waits for slots. It returns the reason of a refusal, "" if the call is
// admitted.
func (q *queue) enter(ctx context.Context, caller Caller, weight int64) (refusal string, err error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	deadline, _ := ctx.Deadline()
	q.mu.Lock()
	if q.late(deadline) {
		q.mu.Unlock()
		return refusedDeadline, nil
	}
	if q.waiting == 0 && q.free >= weight {
		q.free -= weight
		q.mu.Unlock()
		return "", nil
	}
	c := &call{caller: caller, weight: weight, deadline: deadline, done: make(chan struct{})}
	if !q.makeSpace(caller) {
		q.mu.Unlock()
		return refusedFull, nil
	}
	patience := q.add(c)
	q.dispatch()
	q.mu.Unlock()

	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-c.done:
		return c.refusal, nil
	case <-ctx.Done():
	case <-timer.C:
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	select {
	case <-c.done: // just now
		if c.refusal == "" && ctx.Err() != nil {
			q.free += weight
			q.dispatch()
			return "", ctx.Err()
		}
		return c.refusal, nil
	default:
	}
	q.remove(c)
	q.dispatch() // it may have been the one that the others waited for
	return refusedDelay, ctx.Err()
}

// leave releases slots. took is the duration of the hash; 0 to not learn from it.
func (q *queue) leave(weight int64, took time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if took > 0 {
		q.hash += (took - q.hash) / 8
	}
	q.free += weight
	q.dispatch()
}

// late reports whether a hash that begins now would end after the deadline.
func (q *queue) late(deadline time.Time) bool {
	return !deadline.IsZero() && time.Until(deadline) < q.hash
}

// makeSpace makes space for a call of the caller. If its class is full, it refuses
// the latest call of the longest flow, unless that is the caller's own.
func (q *queue) makeSpace(caller Caller) bool {
	class := &q.classes[caller.Class]
	if class.waiting < maxWaiting {
		return true
	}
	longest, own := class.flows[0], 0
	for _, f := range class.flows {
		if len(f.calls) > len(longest.calls) {
			longest = f
		}
		if f.name == caller.Flow {
			own = len(f.calls)
		}
	}
	if len(longest.calls) <= own+1 {
		return false
	}
	q.refuse(longest.calls[len(longest.calls)-1], refusedFull)
	return true
}

// add queues a call and returns its maximum delay.
func (q *queue) add(c *call) time.Duration {
	class := &q.classes[c.caller.Class]
	if class.waiting == 0 {
		class.since = time.Now()
		class.pass = max(class.pass, q.virtual)
	}
	i := slices.IndexFunc(class.flows, func(f *flow) bool { return f.name == c.caller.Flow })
	if i < 0 {
		i = len(class.flows)
		class.flows = append(class.flows, &flow{name: c.caller.Flow})
	}
	class.flows[i].calls = append(class.flows[i].calls, c)
	class.waiting++
	q.waiting++
	if time.Since(class.since) >= burstDelay {
		return targetDelay
	}
	return burstDelay
}

func (q *queue) remove(c *call) {
	class := &q.classes[c.caller.Class]
	i := slices.IndexFunc(class.flows, func(f *flow) bool { return f.name == c.caller.Flow })
	f := class.flows[i]
	f.calls = slices.DeleteFunc(f.calls, func(other *call) bool { return other == c })
	if len(f.calls) == 0 {
		class.flows = slices.Delete(class.flows, i, i+1)
	}
	class.waiting--
	q.waiting--
}

func (q *queue) refuse(c *call, reason string) {
	q.remove(c)
	c.refusal = reason
	close(c.done)
}

// dispatch grants the free slots.
func (q *queue) dispatch() {
	for q.waiting > 0 {
		class := q.next()
		f := class.flows[0]
		c := f.calls[0]
		if q.late(c.deadline) {
			q.refuse(c, refusedDeadline)
			continue
		}
		if q.free < c.weight {
			return
		}
		q.remove(c)
		if len(f.calls) > 0 { // it is still the first
			class.flows = append(class.flows[1:], f)
		}
		q.virtual = class.pass
		class.pass += float64(c.weight) / classWeights[c.caller.Class]
		q.free -= c.weight
		close(c.done)
	}
}

// next returns the class that gets the next slot.
func (q *queue) next() *classQueue {
	var found *classQueue
	for i := range q.classes {
		if class := &q.classes[i]; class.waiting > 0 && (found == nil || class.pass <= found.pass) {
			found = class // of equal ones the one with the larger share
		}
	}
	return found
}
