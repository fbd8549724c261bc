// Package feed streams the rows that are written to a table to watchers, within one
// poll interval.
//
// An instance of a service polls its table four times a second and sends a message
// to every watcher after each successful poll. Silence means that the instance has
// lost its database. Without a watcher, an instance polls rarely if Idle allows it, and
// watchers choose the same instance (package dial, Shared), so that one reads the rows for
// all. The feed does not use NOTIFY, so it works through a connection
// pooler.
//
// A row carries the ID of the transaction that wrote it. A poll reads the rows that
// were not visible in the snapshot of the previous poll (position.go): those of the
// transactions that ran then, and of later ones. Unlike a sequence, this does not miss a
// transaction that commits late, and unlike the oldest running transaction, it does not
// make each poll read again what was written since that began. A watcher can resume
// from its cursor at any instance.
package feed

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"gatehouse/internal/fault"
	"gatehouse/internal/outage"

	"connectrpc.com/connect/v2"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	interval = 250 * time.Millisecond
	// pollTimeout bounds a poll for new rows. fullPollTimeout bounds a poll for all live rows,
	// which takes longer on a busy machine and which watchers must wait for.
	pollTimeout     = 2 * time.Second
	fullPollTimeout = 20 * time.Second
	pruneInterval   = time.Minute
	// watcherBuffer is how many polls a watcher may fall behind: 10 seconds.
	watcherBuffer = 40
)

var errFellBehind = fault.WithRetry(fault.New(connect.CodeUnavailable, fault.ReasonUnavailable, "The stream has ended. Open it again."), time.Second)

// Config configures a feed.
type Config[T any] struct {
	DB *pgxpool.Pool
	// Name names the rows in the log, such as "revocations".
	Name string
	// Queue adds a query to a poll's batch. The query finds the rows that were not
	// visible in the snapshot seen, and stores each in found by a unique ID.
	Queue func(batch *pgx.Batch, seen string, found map[string]Item[T])
	// Polled, unless nil, is called after each successful poll, before the watchers
	// receive its rows.
	Polled func(read time.Time)
	// Position, unless empty, is a query for the position of the database in its write-ahead
	// log, the last of a poll's batch.
	Position string
	// Prune is the statement that deletes expired rows.
	Prune string
	// Reach is how long a cursor is valid. Zero is no limit, for a feed whose watchers need
	// only the live rows.
	Reach time.Duration
	// Idle is the interval between polls while nobody watches; zero for the same interval as
	// with watchers. A new watcher starts a poll at once.
	Idle   time.Duration
	Logger *slog.Logger
}

// Item is a row.
type Item[T any] struct {
	XID   uint64 // of the transaction that wrote it
	Value T
	// Expire is when the feed may drop the row.
	Expire time.Time
}

// News is the message that a watcher receives after a poll.
type News[T any] struct {
	// First reports whether this is the watcher's first message.
	First bool
	// Complete reports whether Items holds all live rows, rather than the rows since
	// the previous message.
	Complete bool
	Items    []Item[T]
	// Cursor is the position from which the watcher can resume.
	Cursor string
	// Position is what Config.Position returned; empty if it failed.
	Position string
	// Read is when the poll ended. AskedAfter is the time from the start of the watch
	// to the start of the poll.
	Read       time.Time
	AskedAfter time.Duration
}

// Feed holds a table's live rows and its watchers.
type Feed[T any] struct {
	config   Config[T]
	mu       sync.Mutex
	live     map[string]Item[T]
	watchers map[*watcher[T]]struct{}
	polls    int // started so far
	wake     chan struct{}
	stopped  bool
	// positions logs failures of Config.Position; only Run's goroutine uses it.
	positions outage.Log
}

type watcher[T any] struct {
	news   chan News[T]
	cursor string // the position to resume from; "" for all live rows
	opened time.Time
	// skipUntil is the number of the last poll that started before the watcher joined. The
	// watcher receives only later polls: an earlier one may have read fewer rows than the
	// instance that the watcher was connected to before.
	skipUntil int
	started   bool
}

// New returns a feed. Run polls for it.
func New[T any](config Config[T]) *Feed[T] {
	return &Feed[T]{
		config: config, live: map[string]Item[T]{}, watchers: map[*watcher[T]]struct{}{}, wake: make(chan struct{}, 1),
		positions: outage.Log{
			Logger: config.Logger, Failed: "feed: no position, reads stay on the primary", Recovered: "feed: positions recovered",
			Attrs: []slog.Attr{slog.String("feed", config.Name)},
		},
	}
}

// Soon starts the next poll without waiting for the interval.
func (f *Feed[T]) Soon() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// Watch calls send after each poll until ctx ends, the feed stops, or the watcher falls
// behind. cursor is the position to resume from, or empty. Watch returns the error of
// ctx or of send, nil when the feed stops, and unavailable SERVICE_UNAVAILABLE when the
// watcher has fallen behind.
func (f *Feed[T]) Watch(ctx context.Context, cursor string, send func(News[T]) error) error {
	w := f.join(cursor)
	defer f.leave(w)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case news, ok := <-w.news:
			for ok && len(w.news) > 0 { // a watcher that is behind catches up with one message
				var next News[T]
				if next, ok = <-w.news; ok {
					news = news.merge(next)
				}
			}
			if !ok && f.hasStopped() {
				return nil
			}
			if !ok {
				return errFellBehind
			}
			if err := send(news); err != nil {
				return fmt.Errorf("send to a watcher: %w", err)
			}
		}
	}
}

// merge merges the next message into n.
func (n News[T]) merge(next News[T]) News[T] {
	next.First = n.First
	if !next.Complete {
		next.Complete, next.Items = n.Complete, slices.Concat(n.Items, next.Items)
	}
	return next
}

// join adds a watcher. The feed closes the watcher's channel when the watcher falls
// behind or the feed stops.
func (f *Feed[T]) join(cursor string) *watcher[T] {
	w := &watcher[T]{news: make(chan News[T], watcherBuffer), cursor: cursor, opened: time.Now()}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stopped {
		close(w.news)
		return w
	}
	w.skipUntil = f.polls
	f.watchers[w] = struct{}{}
	f.Soon()
	return w
}

func (f *Feed[T]) leave(w *watcher[T]) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.watchers, w)
}

// Count returns the number of live rows and of watchers.
func (f *Feed[T]) Count() (live, watchers int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.live), len(f.watchers)
}

// Run polls until ctx ends.
func (f *Feed[T]) Run(ctx context.Context) {
	defer f.stop()
	timer := time.NewTimer(interval)
	defer timer.Stop()
	failures := outage.Log{
		Logger: f.config.Logger, Failed: "feed: database unreachable, retrying", Recovered: "feed: recovered",
		Attrs: []slog.Attr{slog.String("feed", f.config.Name)},
	}
	seen, database, pruned := emptySnapshot, "", time.Now()
	for {
		started := time.Now()
		number := f.beginPoll()
		p, err := f.poll(ctx, seen)
		if err == nil && database != "" && p.database != database {
			p, err = f.poll(ctx, emptySnapshot)
			p.databaseChanged = true
		}
		if ctx.Err() != nil {
			return
		}
		// After a failure, the server may be a different one, or may have crashed and
		// reused transaction IDs. So the next poll reads all live rows, and watchers
		// receive those that are new.
		seen = emptySnapshot
		if err == nil {
			seen, database = p.snapshot, p.database
			if f.config.Position != "" {
				f.positions.Note(ctx, p.positionErr)
			}
			if f.config.Polled != nil {
				f.config.Polled(p.read)
			}
			f.broadcast(number, p)
		}
		failures.Note(ctx, err)
		if time.Since(pruned) > pruneInterval {
			pruned = time.Now()
			f.dropExpired(pruned)
			if err := f.Prune(ctx); err != nil && ctx.Err() == nil {
				f.config.Logger.LogAttrs(ctx, slog.LevelWarn, "feed: pruning failed", slog.String("feed", f.config.Name), slog.String("cause", err.Error()))
			}
		}
		timer.Reset(f.pause(err) - time.Since(started))
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-f.wake:
		}
	}
}

// pause returns the time from the start of a poll with this result to that of the next.
func (f *Feed[T]) pause(err error) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil && len(f.watchers) == 0 && f.config.Idle > 0 {
		return f.config.Idle
	}
	return interval
}

// Prune deletes expired rows from the table. Run calls it every minute.
func (f *Feed[T]) Prune(ctx context.Context) error {
	_, err := f.config.DB.Exec(ctx, f.config.Prune)
	return err
}

// beginPoll counts a poll and returns its number.
func (f *Feed[T]) beginPoll() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.polls++
	return f.polls
}

// broadcast sends every watcher its message after a successful poll.
func (f *Feed[T]) broadcast(number int, p poll[T]) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p.databaseChanged {
		clear(f.live)
	}
	var added, all []Item[T]
	for id, item := range p.found {
		if _, known := f.live[id]; !known {
			f.live[id] = item
			added = append(added, item)
		}
	}
	for w := range f.watchers {
		if w.skipUntil >= number {
			continue
		}
		message := News[T]{First: !w.started, Items: added, Cursor: p.cursor(), Position: p.position, Read: p.read, AskedAfter: p.asked.Sub(w.opened)}
		from, known := p.resume(w.cursor, f.config.Reach)
		switch {
		case w.started && !p.databaseChanged:
		case !w.started && known:
			message.Items = f.since(from)
		default:
			if all == nil {
				all = f.since(0)
			}
			message.Items, message.Complete = all, true
		}
		w.started = true
		select {
		case w.news <- message:
		default:
			delete(f.watchers, w)
			close(w.news)
		}
	}
}

// since returns the live rows that the transaction xid or a later one wrote.
func (f *Feed[T]) since(xid uint64) []Item[T] {
	var items []Item[T]
	for _, item := range f.live {
		if item.XID >= xid {
			items = append(items, item)
		}
	}
	return items
}

// dropExpired drops expired rows from memory.
func (f *Feed[T]) dropExpired(now time.Time) {
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
