package auth

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// Attempts that are being looked at count as failures until they turn out not to
// be. An attempt that only these hold up waits in line for them, so that people
// who sign in at once don't refuse each other: it is looked at once one of them
// has succeeded, and refused once they have failed.
const (
	// lineWait is how long an attempt waits in line. It leaves a gateway's call
	// time for the hash.
	lineWait = 2 * time.Second
	// linePoll is how often the first in line looks again: the attempts before
	// it may be another copy's.
	linePoll = 30 * time.Millisecond
	// maxLine bounds the memory: so many wait for one key.
	maxLine = 64
)

// lines are those of a process, by throttle key. The first in line looks at the
// database, the others wait for the first.
type lines struct {
	mu   sync.Mutex
	open map[string]*line
}

type line struct {
	waiting int
	first   chan struct{} // holds a value while somebody is the first
}

// exists reports whether attempts wait for the key.
func (l *lines) exists(key []byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open[string(key)] != nil
}

// join waits until the caller is the first in line, and returns what ends that;
// nil if the line is too long or ctx ends.
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
	part := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if joined.waiting--; joined.waiting == 0 {
			delete(l.open, string(key))
		}
	}
	select {
	case joined.first <- struct{}{}:
		return func() { <-joined.first; part() }
	case <-ctx.Done():
		part()
		return nil
	}
}

// countInLine counts an attempt as a failure for each key, in line if only
// attempts in flight hold it up. It returns what holds it up otherwise.
func (s *Service) countInLine(ctx context.Context, keys ...[]byte) ([]count, hold, error) {
	var held hold
	for _, key := range keys {
		if s.lines.exists(key) {
			held = hold{key: key, wait: time.Second, inFlight: true}
			break
		}
	}
	if !held.inFlight {
		counted, held, err := s.countFailures(ctx, freeFailures, 1, keys...)
		if err != nil || !held.inFlight {
			return counted, held, err
		}
		return s.waitInLine(ctx, held, keys)
	}
	return s.waitInLine(ctx, held, keys)
}

func (s *Service) waitInLine(ctx context.Context, held hold, keys [][]byte) ([]count, hold, error) {
	waiting, cancel := context.WithTimeout(ctx, lineWait)
	defer cancel()
	leave := s.lines.join(waiting, held.key)
	if leave == nil {
		return nil, held, ctx.Err()
	}
	defer leave()
	for {
		counted, held, err := s.countFailures(ctx, freeFailures, 1, keys...)
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
