package answercache

import (
	"context"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
)

// Part is a part of an answer. It has an entry of its own for each caller, so that a
// change of one part fetches that part only.
type Part struct {
	Name string
	// ID is whose data the part holds: its tags are "kind/id" for each of Kinds.
	ID    string
	Kinds []string
	TTL   time.Duration
}

// FetchPart returns a part from its entry, or fetches it. The answer that the part
// is for expires no later than the part.
func FetchPart[M proto.Message](ctx context.Context, c *Cache, part Part, fetch func(context.Context) (M, error)) (M, error) {
	if !c.Usable(part.Kinds) {
		ctx, _ = c.fill(ctx, nil)
		return fetch(ctx)
	}
	k := keyOf("part "+part.Name, c.config.Caller(ctx), []byte(part.ID))
	if found, ok := c.entries.GetIfPresent(k); ok && c.config.Now().Before(found.freshUntil) && c.epochs.valid(found.tags, found.since) {
		limitExpiry(ctx, found.freshUntil)
		return found.message.(M), nil
	}
	var tags []string
	for _, kind := range part.Kinds {
		tags = append(tags, kind+"/"+part.ID)
	}
	since := c.epochs.current()
	filling, age := c.fill(ctx, tags)
	fetched, err := fetch(filling)
	if err != nil || !fetched.ProtoReflect().IsValid() {
		return fetched, err
	}
	until := c.config.Now().Add(part.TTL - age)
	e := &entry{message: proto.Clone(fetched), size: proto.Size(fetched), tags: tags, since: since, freshUntil: until, staleUntil: until}
	c.store(k, e, part.Kinds)
	limitExpiry(ctx, until)
	return fetched, nil
}

// expiry is when the first of the cached parts of an answer expires.
type expiry struct {
	mu   sync.Mutex
	time time.Time // zero without a cached part
}

type expiryKey struct{}

// limitExpiry makes the answer that ctx belongs to expire no later than a moment.
func limitExpiry(ctx context.Context, by time.Time) {
	e, ok := ctx.Value(expiryKey{}).(*expiry)
	if !ok {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.time.IsZero() || by.Before(e.time) {
		e.time = by
	}
}

// orEarlier returns the earlier of the expiry and another moment.
func (e *expiry) orEarlier(other time.Time) time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.time.IsZero() && e.time.Before(other) {
		return e.time
	}
	return other
}
