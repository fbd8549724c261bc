package throttle

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// Attempts in flight count as failures until they succeed. An attempt that only
// these block queues for them, so that concurrent sign-ins of one person or
// network don't refuse each other: it proceeds once one of them has succeeded,
// and is refused once they have failed.
const (
	// queueWait bounds the time in the queue. It leaves a gateway's call time for
	// the hash.
	queueWait = 2 * time.Second
	// queuePoll is how often the first in the queue polls: the attempts in flight
	// may be another replica's.
	queuePoll = 30 * time.Millisecond
	// maxQueue bounds the queue of one key.
	maxQueue = 64
)

// queues are the queues of this process, by throttle key. The first attempt in a
// queue polls the database, the others wait for the first.
type queues struct {
	mu   sync.Mutex
	open map[string]*queue
}

type queue struct {
	waiting int
	first   chan struct{} // holds a value while somebody is the first
}

// exists reports whether attempts queue for the key.
func (q *queues) exists(key []byte) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.open[string(key)] != nil
}

// join waits until the caller is the first in the queue, and returns a function
// that leaves it; nil if the queue is full or ctx ends.
func (q *queues) join(ctx context.Context, key []byte) (leave func()) {
	q.mu.Lock()
	joined := q.open[string(key)]
	if joined == nil {
		joined = &queue{first: make(chan struct{}, 1)}
		if q.open == nil {
			q.open = map[string]*queue{}
		}
		q.open[string(key)] = joined
	}
	if joined.waiting >= maxQueue {
		q.mu.Unlock()
		return nil
	}
	joined.waiting++
	q.mu.Unlock()
	remove := func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		if joined.waiting--; joined.waiting == 0 {
			delete(q.open, string(key))
		}
	}
	select {
	case joined.first <- struct{}{}:
		return func() { <-joined.first; remove() }
	case <-ctx.Done():
		remove()
		return nil
	}
}

// countQueued counts an attempt as a failure for each key. It queues if only
// attempts in flight block it, and otherwise returns the block.
func (t *Throttle) countQueued(ctx context.Context, keys ...[]byte) ([]count, hold, error) {
	var held hold
	for _, key := range keys {
		if t.queues.exists(key) {
			held = hold{key: key, delay: time.Second, inFlight: true}
			break
		}
	}
	if !held.inFlight {
		counted, held, err := t.count(ctx, freeFailures, 1, keys...)
		if err != nil || !held.inFlight {
			return counted, held, err
		}
		return t.waitInQueue(ctx, held, keys)
	}
	return t.waitInQueue(ctx, held, keys)
}

func (t *Throttle) waitInQueue(ctx context.Context, held hold, keys [][]byte) ([]count, hold, error) {
	waiting, cancel := context.WithTimeout(ctx, queueWait)
	defer cancel()
	leave := t.queues.join(waiting, held.key)
	if leave == nil {
		return nil, held, ctx.Err()
	}
	defer leave()
	for {
		counted, held, err := t.count(ctx, freeFailures, 1, keys...)
		if err != nil || !held.inFlight {
			return counted, held, err
		}
		select {
		case <-time.After(queuePoll/2 + rand.N(queuePoll)):
		case <-waiting.Done():
			return nil, held, ctx.Err()
		}
	}
}
