package answercache

import (
	"strings"
	"sync"
)

// epoch counts invalidations. A tag that is invalidated after an epoch makes stale
// what was fetched in that epoch or before.
type epoch uint64

// maxMarks is how many tags' invalidations are remembered, in two generations. When the
// newer one is full, the older one is forgotten, and what was fetched before the newer one
// began becomes stale, which is as safe as remembering.
const maxMarks = 1 << 16

// epochs knows which tags were invalidated, and when. An invalidation costs the same
// whatever the number of entries: an entry is found to be stale when it is looked up.
type epochs struct {
	mu    sync.RWMutex
	now   epoch
	floor epoch // everything that was fetched before it is stale, whatever its tags
	// marks are the newer generation, which began after marksBegan.
	marks, olderMarks map[string]epoch
	marksBegan        epoch
	// kinds are invalidations of all tags of a kind.
	kinds map[string]epoch
}

// current returns the epoch in which a fetch starts: read it before the services are
// called.
func (e *epochs) current() epoch {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.now
}

// valid reports whether none of the tags was invalidated since an epoch.
func (e *epochs) valid(tags []string, since epoch) bool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if since < e.floor {
		return false
	}
	for _, tag := range tags {
		if e.marks[tag] > since || e.olderMarks[tag] > since {
			return false
		}
		if len(e.kinds) > 0 {
			if kind, _, _ := strings.Cut(tag, "/"); e.kinds[kind] > since {
				return false
			}
		}
	}
	return true
}

func (e *epochs) invalidate(tags ...string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.now++
	if e.marks == nil {
		e.marks = map[string]epoch{}
	}
	for _, tag := range tags {
		e.marks[tag] = e.now
	}
	if len(e.marks) >= maxMarks/2 {
		// What is forgotten was invalidated until marksBegan.
		e.floor = max(e.floor, e.marksBegan)
		clear(e.olderMarks)
		e.olderMarks, e.marks, e.marksBegan = e.marks, e.olderMarks, e.now
	}
}

func (e *epochs) invalidateKinds(kinds ...string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.now++
	if e.kinds == nil {
		e.kinds = map[string]epoch{}
	}
	for _, kind := range kinds {
		e.kinds[kind] = e.now
	}
}

func (e *epochs) invalidateAll() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.now++
	e.floor = e.now
	clear(e.marks)
	clear(e.olderMarks)
	clear(e.kinds)
}
