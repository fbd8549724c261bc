package bff

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"gatehouse/internal/follow"
)

// maxChangeAge is how old the latest news of a feed may be. Beyond that, somebody
// could have written something longer ago than a cached answer may be old.
const maxChangeAge = time.Second

// changeFeeds are the feeds that report what others write.
type changeFeeds []*changeFeed

// current reports whether the feeds that report changes of these kinds of tags are
// up to date.
func (f changeFeeds) current(kinds []string) bool {
	now := time.Now()
	for _, feed := range f {
		if !feed.isCurrent(now) && slices.ContainsFunc(kinds, func(kind string) bool { return slices.Contains(feed.kinds, kind) }) {
			return false
		}
	}
	return true
}

// run follows the feeds until ctx ends.
func (f changeFeeds) run(ctx context.Context) {
	var group sync.WaitGroup
	for _, feed := range f {
		group.Go(func() { feed.follower.Run(ctx) })
	}
	group.Wait()
}

// invalidator is the cache that a feed invalidates.
type invalidator interface {
	Invalidate(tags ...string)
	InvalidateKinds(kinds ...string)
	InvalidateAll()
}

// changeFeed follows the changes that a service reports, and invalidates cache
// entries.
type changeFeed struct {
	name  string
	kinds []string // of the tags that it reports
	// foreign says that the service is an upstream, which invalidates nothing but tags of
	// its kinds.
	foreign bool
	cache   invalidator
	// changed, unless nil, receives each update after the cache.
	changed func(name string, complete bool, tags []string, cursor string)
	// position, unless nil, receives the position of each update before the cache.
	position func(name, position string, polled time.Time)
	follower follow.Follower[changes]
	now      func() time.Time
	start    time.Time
	// asOf is how long after start the service queried its database for what is known
	// here; zero before the first update.
	asOf atomic.Int64
}

// changes is an update of a service.
type changes interface {
	follow.Message
	GetTags() []string
	GetAskedAfter() *durationpb.Duration
}

func newChangeFeed(backend Backend, cache invalidator, logger *slog.Logger) *changeFeed {
	f := &changeFeed{name: backend.Name, kinds: backend.Tells, cache: cache, now: time.Now}
	f.start = time.Now().Add(-time.Minute) // so that asOf zero is not current
	f.follower = follow.Follower[changes]{Name: "changes of " + backend.Name, Open: openChanges(backend), Logger: logger, Now: func() time.Time { return f.now() },
		Apply: func(ctx context.Context, update changes, _ bool, opened time.Time) (bool, error) {
			return f.apply(ctx, update, opened), nil
		}}
	return f
}

// isCurrent reports whether everything that was committed until a second ago is
// known.
func (f *changeFeed) isCurrent(now time.Time) bool {
	asOf := time.Duration(f.asOf.Load())
	return asOf > 0 && now.Sub(f.start)-asOf <= maxChangeAge
}

// positionOf returns the position of an update; empty for an update without one, such as
// those of the version before.
func positionOf(update changes) string {
	if positioned, ok := update.(interface{ GetPosition() string }); ok {
		return positioned.GetPosition()
	}
	return ""
}

// apply applies an update, and reports whether it is less than a second old.
//
// The service says how long after its stream began it queried its database, and its
// stream cannot have begun before it was opened here. So no clock has to agree with
// another, and an update that was long on its way does not pass for a new one.
func (f *changeFeed) apply(ctx context.Context, update changes, opened time.Time) bool {
	now := f.now()
	queried := opened.Add(update.GetAskedAfter().AsDuration())
	if queried.After(now) {
		queried = now
	}
	if f.position != nil {
		f.position(f.name, positionOf(update), queried)
	}
	switch {
	case update.GetComplete() && f.foreign:
		f.cache.InvalidateKinds(f.kinds...)
	case update.GetComplete():
		f.cache.InvalidateAll()
	}
	tags := update.GetTags()
	if f.foreign {
		tags = slices.DeleteFunc(slices.Clone(tags), func(tag string) bool {
			kind, _, _ := strings.Cut(tag, "/")
			return !slices.Contains(f.kinds, kind)
		})
	}
	if len(tags) > 0 {
		f.cache.Invalidate(tags...)
		countInvalidations(ctx, len(tags), invalidatedByFeed)
	}
	if f.changed != nil {
		f.changed(f.name, update.GetComplete(), tags, update.GetCursor())
	}
	// What an earlier stream reported of a later moment stays known.
	if asOf := int64(queried.Sub(f.start)); asOf > f.asOf.Load() {
		f.asOf.Store(asOf)
	}
	return f.isCurrent(now)
}
