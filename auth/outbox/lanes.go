package outbox

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// slowAfter is how long a send may hold one of the quickSends slots.
	slowAfter = 2 * time.Second
	// maxSlow bounds the slow sends, in addition to those in slots.
	maxSlow = 24
	// slowPerDomain bounds the concurrent sends to one slow domain.
	slowPerDomain = 2
	// slowMemory is how long a domain counts as slow after a slow send.
	slowMemory = 2 * time.Minute
)

// lanes keep slow destinations from delaying the others. A send has a slot while
// it is quick. A slow send releases its slot and continues in the slow lane, which
// bounds the sends to each domain. Mail to a recently slow domain starts in the
// slow lane, until a send to it is quick.
type lanes struct {
	mu    sync.Mutex
	quick int
	slow  map[string]int       // sends in the slow lane, by domain
	until map[string]time.Time // domains that count as slow, and until when
	now   func() time.Time
}

func newLanes() *lanes {
	return &lanes{slow: map[string]int{}, until: map[string]time.Time{}, now: time.Now}
}

// domainOf returns the destination of an address.
func domainOf(address string) string {
	return strings.ToLower(address[strings.LastIndexByte(address, '@')+1:])
}

// free returns how many mails may be leased now, and the domains to skip.
func (l *lanes) free() (most int, held []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.DeleteFunc(l.until, func(_ string, until time.Time) bool { return !l.now().Before(until) })
	full := l.slowSends() >= maxSlow
	held = []string{} // not nil: that is NULL to Postgres, which nothing differs from
	for domain := range l.until {
		if full || l.slow[domain] >= slowPerDomain {
			held = append(held, domain)
		}
	}
	for domain, sends := range l.slow {
		if sends >= slowPerDomain && !slices.Contains(held, domain) {
			held = append(held, domain)
		}
	}
	return max(0, quickSends-l.quick), held
}

func (l *lanes) slowSends() int {
	sends := 0
	for _, n := range l.slow {
		sends += n
	}
	return sends
}

// send is a send in progress.
type send struct {
	lanes  *lanes
	domain string
	slow   bool
	ended  bool
	timer  *time.Timer
}

// begin counts a send to an address; freed is called when it releases its slot
// before it ends.
func (l *lanes) begin(address string, freed func()) *send {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := &send{lanes: l, domain: domainOf(address)}
	if _, slow := l.until[s.domain]; slow && l.slowSends() < maxSlow {
		s.slow = true
		l.slow[s.domain]++
	} else {
		l.quick++
	}
	s.timer = time.AfterFunc(slowAfter, func() {
		if s.markSlow() {
			freed()
		}
	})
	return s
}

// markSlow records that the send is slow, and reports whether it released a slot.
func (s *send) markSlow() bool {
	l := s.lanes
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.ended {
		return false
	}
	l.until[s.domain] = l.now().Add(slowMemory)
	if s.slow || l.slowSends() >= maxSlow {
		return false
	}
	s.slow = true
	l.quick--
	l.slow[s.domain]++
	return true
}

// end removes the send from its lane.
func (s *send) end() {
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
