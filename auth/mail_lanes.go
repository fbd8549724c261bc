package auth

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// mailSlow is for how long a send may hold one of the mailSends slots.
	mailSlow = 2 * time.Second
	// mailSlowSends is how many slow sends go on beside those in slots.
	mailSlowSends = 24
	// mailSlowPerDomain is how many sends to one slow domain go on.
	mailSlowPerDomain = 2
	// mailSlowMemory is for how long a domain counts as slow after a slow send.
	mailSlowMemory = 2 * time.Minute
)

// mailLanes keeps slow destinations from holding up the others. A send has a
// slot while it is quick. One that lasts gives its slot to others' mail and goes
// on in the slow lane, where the sends to its domain are few. Mail to a domain
// that was slow lately goes to the slow lane from the start, until a send to it
// is quick.
type mailLanes struct {
	mu    sync.Mutex
	quick int
	slow  map[string]int       // sends under way in the slow lane, by domain
	until map[string]time.Time // which domains count as slow, and how long
	now   func() time.Time
}

func newMailLanes() *mailLanes {
	return &mailLanes{slow: map[string]int{}, until: map[string]time.Time{}, now: time.Now}
}

// mailDomain is the destination that an address counts for.
func mailDomain(address string) string {
	return strings.ToLower(address[strings.LastIndexByte(address, '@')+1:])
}

// free returns how many mails may be taken now, and for which domains none.
func (l *mailLanes) free() (most int, held []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.DeleteFunc(l.until, func(_ string, until time.Time) bool { return !l.now().Before(until) })
	full := l.slowSends() >= mailSlowSends
	held = []string{} // not nil: that is NULL to Postgres, which nothing differs from
	for domain := range l.until {
		if full || l.slow[domain] >= mailSlowPerDomain {
			held = append(held, domain)
		}
	}
	for domain, sends := range l.slow {
		if sends >= mailSlowPerDomain && !slices.Contains(held, domain) {
			held = append(held, domain)
		}
	}
	return max(0, mailSends-l.quick), held
}

func (l *mailLanes) slowSends() int {
	sends := 0
	for _, n := range l.slow {
		sends += n
	}
	return sends
}

// send is one that is under way.
type mailSend struct {
	lanes  *mailLanes
	domain string
	slow   bool
	ended  bool
	timer  *time.Timer
}

// begin counts a send to an address; freed is called when it gives up its slot
// before its end.
func (l *mailLanes) begin(address string, freed func()) *mailSend {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := &mailSend{lanes: l, domain: mailDomain(address)}
	if _, slow := l.until[s.domain]; slow && l.slowSends() < mailSlowSends {
		s.slow = true
		l.slow[s.domain]++
	} else {
		l.quick++
	}
	s.timer = time.AfterFunc(mailSlow, func() {
		if s.lasts() {
			freed()
		}
	})
	return s
}

// lasts notes that the send is slow, and reports whether it gave up a slot.
func (s *mailSend) lasts() bool {
	l := s.lanes
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.ended {
		return false
	}
	l.until[s.domain] = l.now().Add(mailSlowMemory)
	if s.slow || l.slowSends() >= mailSlowSends {
		return false
	}
	s.slow = true
	l.quick--
	l.slow[s.domain]++
	return true
}

// end takes the send off its lane.
func (s *mailSend) end() {
	l := s.lanes
	l.mu.Lock()
	defer l.mu.Unlock()
	wasQuick := s.timer.Stop()
	s.ended = true
	if wasQuick {
		delete(l.until, s.domain)
	}
	if !s.slow {
		l.quick--
		return
	}
	if l.slow[s.domain]--; l.slow[s.domain] == 0 {
		delete(l.slow, s.domain)
	}
}
