package bff

import "sync"

// position counts purges: one of a tag that was purged after a position makes
// stale what was fetched from there on.
type position uint64

// mostMarks is how many tags' purges are remembered. Beyond it, all that is kept
// is let go of, which is as good as remembering.
const mostMarks = 1 << 16

// purges knows which tags were purged, and when. A purge costs the same however
// much is kept: what is stale is told when it is looked at.
type purges struct {
	mu    sync.RWMutex
	now   position
	floor position // what was fetched before it is stale, whatever its tags
	marks map[string]position
}

// position is where a fetch begins: take it before the services are asked.
func (p *purges) position() position {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.now
}

// spare reports whether none of the tags was purged since a position.
func (p *purges) spare(tags []string, since position) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if since < p.floor {
		return false
	}
	for _, tag := range tags {
		if p.marks[tag] > since {
			return false
		}
	}
	return true
}

func (p *purges) purge(tags ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now++
	if p.marks == nil {
		p.marks = map[string]position{}
	}
	for _, tag := range tags {
		p.marks[tag] = p.now
	}
	if len(p.marks) > mostMarks {
		p.floor = p.now
		clear(p.marks)
	}
}

// purgeAll makes everything stale.
func (p *purges) purgeAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now++
	p.floor = p.now
	clear(p.marks)
}
