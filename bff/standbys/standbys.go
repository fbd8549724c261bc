// Package standbys decides which reads may be answered by standbys of the services'
// databases: those whose answers the gateway may cache.
//
// A service says with each message of its change feed a position in the write-ahead log
// of its database (package readposition). A standby that has replayed it has every
// change that the feed has reported. A change that it lacks will be reported later, and
// then invalidates the cache entry that was filled from the standby. So an entry is never
// older than the feed, whatever filled it.
//
// What this gateway has written must be visible at once. It goes to the primary until the
// feed has a position from after the write.
package standbys

import (
	"strings"
	"sync"
	"time"

	"gatehouse/internal/readposition"
)

const (
	// writeMargin is how long after a write the feed must have queried the database before
	// the write counts as reported. It allows for clocks that run at different rates.
	writeMargin = time.Second
	// maxWritten bounds the tags that are remembered for a service.
	maxWritten = 1 << 14
)

// Positions are the positions of the services, and what was written since.
type Positions struct {
	// maxAge is how old a position may be.
	maxAge time.Duration
	// owners are the services whose feeds report the changes of tags, by their kinds.
	owners map[string]string
	now    func() time.Time

	mu       sync.Mutex
	services map[string]*service
}

// service is what is known of a service that has a standby.
type service struct {
	position string
	polled   time.Time // when the service queried its database, or earlier
	// written are the tags that this gateway wrote, and when the call ended. What was
	// written until allWritten is not remembered.
	written    map[string]time.Time
	allWritten time.Time
}

// New returns no positions. owners are the services whose feeds report the changes of
// tags, by their kinds.
func New(maxAge time.Duration, owners map[string]string) *Positions {
	return &Positions{maxAge: maxAge, owners: owners, now: time.Now, services: map[string]*service{}}
}

// Reported takes the position of a feed's message, whose service queried its database at
// polled or later. Call it before the cache entries are invalidated that the message
// reports: a fetch that begins after an invalidation then has the position too. The position
// of the latest message counts, even if it is lower than the one before, as after a
// failover.
func (p *Positions) Reported(name, position string, polled time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.services[name]
	if s == nil {
		if position == "" {
			return // it has no standby
		}
		s = &service{written: map[string]time.Time{}, allWritten: p.now()}
		p.services[name] = s
	}
	s.position, s.polled = position, polled
	for tag, at := range s.written {
		if s.reported(at) {
			delete(s.written, tag)
		}
	}
}

// reported reports whether the position is from after a write.
func (s *service) reported(at time.Time) bool { return s.polled.Sub(at) > writeMargin }

// Wrote says that a call of this gateway wrote, or may have written, what has the tags.
// Call it before the cache entries with them are invalidated.
func (p *Positions) Wrote(tags []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	for _, tag := range tags {
		s := p.services[p.ownerOf(tag)]
		if s == nil {
			continue
		}
		if len(s.written) >= maxWritten {
			clear(s.written)
			s.allWritten = now
		}
		s.written[tag] = now
	}
}

func (p *Positions) ownerOf(tag string) string {
	kind, _, _ := strings.Cut(tag, "/")
	return p.owners[kind]
}

// For returns the positions for the fetch of an answer that will have the tags, and the
// age of the oldest. Call it after the fetch has been given its place in the order of
// invalidations. A service has a position only if it reports the changes of one of the
// tags: nothing else would invalidate what its standby answered.
func (p *Positions) For(tags []string) (readposition.Positions, time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.services) == 0 {
		return nil, 0
	}
	var found readposition.Positions
	var oldest time.Duration
	now := p.now()
	for _, tag := range tags {
		name := p.ownerOf(tag)
		s := p.services[name]
		if s == nil || found[name] != "" || !p.usable(s, name, tags, now) {
			continue
		}
		if found == nil {
			found = readposition.Positions{}
		}
		found[name] = s.position
		oldest = max(oldest, now.Sub(s.polled))
	}
	return found, oldest
}

// usable reports whether the position of a service is recent, and from after every write of
// its tags.
func (p *Positions) usable(s *service, name string, tags []string, now time.Time) bool {
	if s.position == "" || now.Sub(s.polled) > p.maxAge || !s.reported(s.allWritten) {
		return false
	}
	for _, tag := range tags {
		if at, written := s.written[tag]; written && p.ownerOf(tag) == name && !s.reported(at) {
			return false
		}
	}
	return true
}
