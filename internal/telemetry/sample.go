package telemetry

import (
	"context"
	"sync"
	"time"
)

const (
	// sampleLimit is the longest that a scrape waits for a sample.
	sampleLimit = time.Second
	// sampleLife is how long a sample serves: scrapes, however many, take it at
	// most so often.
	sampleLife = 5 * time.Second
)

// Sample is something that a query has to find out. A failure is a sample too:
// a database in trouble isn't asked the more for it.
type Sample[T any] struct {
	find func(context.Context) (T, error)
	now  func() time.Time

	mu    sync.Mutex
	value T
	err   error
	taken time.Time
}

// NewSample returns one that find takes. find must end with its context.
func NewSample[T any](find func(context.Context) (T, error)) *Sample[T] {
	return &Sample[T]{find: find, now: time.Now}
}

// Take returns the latest sample, and takes another first if it is too old.
func (s *Sample[T]) Take(ctx context.Context) (T, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := s.now(); s.taken.IsZero() || now.Sub(s.taken) >= sampleLife {
		ctx, cancel := context.WithTimeout(ctx, sampleLimit)
		defer cancel()
		s.value, s.err = s.find(ctx)
		s.taken = s.now()
	}
	return s.value, s.err
}
