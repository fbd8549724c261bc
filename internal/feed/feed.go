// Package feed tells readers what is written in a table, within a poll's time.
//
// Each copy of a service polls its table four times a second and tells those who
// watch, who hear only of polls that worked: silence tells them that the copy is
// cut off from its database. NOTIFY isn't needed, so that a pooler of connections
// may stand between.
//
// A row carries the number of the transaction that wrote it, and a poll reads
// what the snapshot of the poll before didn't see (position.go): unlike a
// sequence, no late commit passes that. A reader goes on by its cursor, at any
// copy.
package feed

import (
	"context"
	"fmt"
	"gatehouse/internal/fault"
	"log/slog"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	interval = 250 * time.Millisecond
	// A poll that takes longer is as good as none; but reading all that is live
	// takes its time on a busy machine, and there is nothing to be said before.
	pollLimit     = 2 * time.Second
	wholeLimit    = 20 * time.Second
	pruneInterval = time.Minute
	// watcherBuffer is how many polls a reader may fall behind: ten seconds'.
	watcherBuffer = 40
)

var errFellBehind = fault.WithRetry(fault.New(connect.CodeUnavailable, fault.ReasonUnavailable, "The stream has ended. Open it again."), time.Second)

// Config says what a feed reads.
type Config[T any] struct {
	DB *pgxpool.Pool
	// Name says in the log what is read, such as "revocations".
	Name string
	// Queue adds to a poll's batch what finds the rows that weren't visible in a
	// snapshot, each by an id that is its own.
	Queue func(batch *pgx.Batch, seen string, found map[string]Item[T])
	// Polled is called after each poll that worked, before it is told; nil for
	// nothing.
	Polled func(read time.Time)
	// Prune is the statement that deletes rows that nobody needs any more.
	Prune string
	// Reach is for how long one may go on from a cursor; zero where all that ever
	// matters is live.
	Reach  time.Duration
	Logger *slog.Logger
}

// Item is a row.
type Item[T any] struct {
	XID   uint64 // of the transaction that wrote it
	Value T
	// Expire is when it concerns nobody any more.
	Expire time.Time
}

// News is what a watcher is told after a poll.
type News[T any] struct {
	// First tells that the watcher hasn't been told anything before.
	First bool
	// Complete tells that the items are all that is live, rather than what came
	// since.
	Complete bool
	Items    []Item[T]
	// Cursor is from where the watcher may go on later.
	Cursor string
	// Read is when the poll ended, and AskedAfter how long after the watcher came
	// it began.
	Read       time.Time
	AskedAfter time.Duration
}

// Feed is a table's live rows and who watches.
type Feed[T any] struct {
	config   Config[T]
	mu       sync.Mutex
	live     map[string]Item[T]
	watchers map[*watcher[T]]struct{}
	begun    int // polls
	wake     chan struct{}
	stopped  bool
}

type watcher[T any] struct {
	news   chan News[T]
	cursor string // from where it wants to go on
	opened time.Time
	// It is told nothing of polls that began before it came: they may know less
	// than the copy that it comes from.
	begun int
	told  bool
}

// New returns a feed. Run polls for it.
func New[T any](config Config[T]) *Feed[T] {
	return &Feed[T]{config: config, live: map[string]Item[T]{}, watchers: map[*watcher[T]]struct{}{}, wake: make(chan struct{}, 1)}
}

// Soon has the next poll begin at once.
func (f *Feed[T]) Soon() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// Watch tells of each poll by send until ctx ends, the feed stops, or the reader
// falls behind. cursor is from where to go on, or empty. It returns what send
// does, or unavailable SERVICE_UNAVAILABLE to one who fell behind.
func (f *Feed[T]) Watch(ctx context.Context, cursor string, send func(News[T]) error) error {
	w := f.join(cursor)
	defer f.leave(w)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case news, ok := <-w.news:
			for ok && len(w.news) > 0 { // to catch up in one go
				var next News[T]
				if next, ok = <-w.news; ok {
					news = news.and(next)
				}
			}
			if !ok && f.hasStopped() {
				return nil
			}
			if !ok {
				return errFellBehind
			}
			if err := send(news); err != nil {
				return fmt.Errorf("tell a watcher: %w", err)
			}
		}
	}
}

// and is what this and the next say, one after the other.
func (n News[T]) and(next News[T]) News[T] {
	next.First = n.First
	if !next.Complete {
		next.Complete, next.Items = n.Complete, slices.Concat(n.Items, next.Items)
	}
	return next
}

// join's channel is closed when its reader has fallen behind, or the feed stops.
func (f *Feed[T]) join(cursor string) *watcher[T] {
	w := &watcher[T]{news: make(chan News[T], watcherBuffer), cursor: cursor, opened: time.Now()}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stopped {
		close(w.news)
		return w
	}
	w.begun = f.begun
	f.watchers[w] = struct{}{}
	f.Soon()
	return w
}

func (f *Feed[T]) leave(w *watcher[T]) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.watchers, w)
}

// Count returns how many rows are live and how many watch.
func (f *Feed[T]) Count() (live, watchers int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.live), len(f.watchers)
}

// Run polls until ctx ends.
func (f *Feed[T]) Run(ctx context.Context) {
	defer f.stop()
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	seen, database, failing, pruned := nothing, "", false, time.Now()
	for {
		number := f.begin()
		p, err := f.poll(ctx, seen)
		if err == nil && database != "" && p.database != database {
			p, err = f.poll(ctx, nothing)
			p.anew = true
		}
		if ctx.Err() != nil {
			return
		}
		// After a failure, Postgres may be another, or have crashed and given
		// numbers again: all is read, and who watches is told what is new of it.
		seen = nothing
		if err == nil {
			seen, database = p.snapshot, p.database
			if f.config.Polled != nil {
				f.config.Polled(p.read)
			}
			f.tell(number, p)
		}
		if away := err != nil; away != failing {
			failing = away
			if away {
				f.config.Logger.LogAttrs(ctx, slog.LevelWarn, f.config.Name+" can't be read", slog.String("cause", err.Error()))
			} else {
				f.config.Logger.LogAttrs(ctx, slog.LevelInfo, f.config.Name+" can be read again")
			}
		}
		if time.Since(pruned) > pruneInterval {
			pruned = time.Now()
			f.forget(pruned)
			if err := f.Prune(ctx); err != nil && ctx.Err() == nil {
				f.config.Logger.LogAttrs(ctx, slog.LevelWarn, "old "+f.config.Name+" stay for now", slog.String("cause", err.Error()))
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-f.wake:
		}
	}
}

// Prune deletes the rows that nobody needs any more. Run does so each minute.
func (f *Feed[T]) Prune(ctx context.Context) error {
	_, err := f.config.DB.Exec(ctx, f.config.Prune)
	return err
}

// begin counts a poll and returns its number.
func (f *Feed[T]) begin() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.begun++
	return f.begun
}

// tell sends every watcher what it needs after a poll that worked.
func (f *Feed[T]) tell(number int, p poll[T]) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p.anew {
		clear(f.live)
	}
	var news, whole []Item[T]
	for id, item := range p.found {
		if _, known := f.live[id]; !known {
			f.live[id] = item
			news = append(news, item)
		}
	}
	for w := range f.watchers {
		if w.begun >= number {
			continue
		}
		message := News[T]{First: !w.told, Items: news, Cursor: p.cursor(), Read: p.read, AskedAfter: p.asked.Sub(w.opened)}
		from, known := p.resume(w.cursor, f.config.Reach)
		switch {
		case w.told && !p.anew:
		case !w.told && known:
			message.Items = f.since(from)
		default:
			if whole == nil {
				whole = f.since(0)
			}
			message.Items, message.Complete = whole, true
		}
		w.told = true
		select {
		case w.news <- message:
		default:
			delete(f.watchers, w)
			close(w.news)
		}
	}
}

// since is what was written from a transaction on.
func (f *Feed[T]) since(xid uint64) []Item[T] {
	var items []Item[T]
	for _, item := range f.live {
		if item.XID >= xid {
			items = append(items, item)
		}
	}
	return items
}

// forget lets go of what concerns nobody any more.
func (f *Feed[T]) forget(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, item := range f.live {
		if now.After(item.Expire) {
			delete(f.live, id)
		}
	}
}

func (f *Feed[T]) stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stopped = true
	for w := range f.watchers {
		close(w.news)
	}
	clear(f.watchers)
}

func (f *Feed[T]) hasStopped() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stopped
}
