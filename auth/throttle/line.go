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
	// lineWait bounds the time in the queue. It leaves a gateway's call time for
	// the hash.
	lineWait = 2 * time.Second
	// linePoll is how often the first in the queue polls: the attempts in flight
	// may be another replica's.
	linePoll = 30 * time.Millisecond
	// maxLine bounds the queue of one key.
	maxLine = 64
)

// lines are the queues of this process, by throttle key. The first attempt in a
// queue polls the database, the others wait for the first.
type lines struct {
	mu   sync.Mutex
	open map[string]*line
}

type line struct {
	waiting int
	first   chan struct{} // holds a value while somebody is the first
}

// exists reports whether attempts queue for the key.
func (l *lines) exists(key []byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open[string(key)] != nil
}

// join waits until the caller is the first in the queue, and returns a function
// that leaves it; nil if the queue is full or ctx ends.
func (l *lines) join(ctx context.Context, key []byte) (leave func()) {
	l.mu.Lock()
	joined := l.open[string(key)]
	if joined == nil {
		joined = &line{first: make(chan struct{}, 1)}
		if l.open == nil {
			l.open = map[string]*line{}
		}
		l.open[string(key)] = joined
	}
	if joined.waiting >= maxLine {
		l.mu.Unlock()
		return nil
	}
	joined.waiting++
	l.mu.Unlock()
	remove := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if joined.waiting--; joined.waiting == 0 {
			delete(l.open, string(key))
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

// countInLine counts an attempt as a failure for each key. It queues if only
// attempts in flight block it, and otherwise returns the block.
func (t *Throttle) countInLine(ctx context.Context, keys ...[]byte) ([]count, hold, error) {
	var held hold
	for _, key := range keys {
		if t.lines.exists(key) {
			held = hold{key: key, delay: time.Second, inFlight: true}
			break
		}
	}
	if !held.inFlight {
		counted, held, err := t.count(ctx, freeFailures, 1, keys...)
		if err != nil || !held.inFlight {
			return counted, held, err
		}
		return t.waitInLine(ctx, held, keys)
	}
	return t.waitInLine(ctx, held, keys)
}

func (t *Throttle) waitInLine(ctx context.Context, held hold, keys [][]byte) ([]count, hold, error) {
	waiting, cancel := context.WithTimeout(ctx, lineWait)
	defer cancel()
	leave := t.lines.join(waiting, held.key)
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
		case <-time.After(linePoll/2 + rand.N(linePoll)):
		case <-waiting.Done():
			return nil, held, ctx.Err()
		}
	}
}
