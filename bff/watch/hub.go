// Package watch streams changes of an account to its owner, and of all accounts to
// administrators. A Hub holds the open streams of a gateway. It is fed by the change feeds
// and the revocations that the gateway follows anyway, so that an idle stream costs no
// query and no connection to a service.
//
// A stream names parts or accounts that have changed, never values. What a stream has not
// sent yet is a bounded set, so that its memory does not grow with the changes. The cursor of an
// event is the position of the hub in its feeds (position.go), and is taken together with
// the parts: an event never confirms a change that it does not name.
//
// A stream ends when its token is revoked or expires, when its reader is too slow, when a
// feed is lost, and when the server stops. While a feed is lost nobody would learn of a
// revocation, so that the hub then refuses streams too.
package watch

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect/v2"

	"gatehouse/bff/access"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/continuation"
	"gatehouse/internal/fault"
	"gatehouse/internal/policy"
	"gatehouse/internal/rpc"
	"gatehouse/internal/serve"
)

const (
	// feedSilence is how long a feed may send nothing before the streams end.
	feedSilence = 5 * time.Second
	// aliveInterval is how long a stream sends nothing before it sends that it is alive.
	aliveInterval = 15 * time.Second
	// refreshAhead is how long before the expiry of its token a stream asks for another.
	refreshAhead = 30 * time.Second
	// sweepInterval is how often the hub looks for streams that are due.
	sweepInterval = time.Second
	// maxMerged is how many changes a stream merges while its reader does not read. For a
	// stream of all accounts, those of one update of a feed are one.
	maxMerged = 64
	// maxAccounts is how many accounts an event names; for more it is complete.
	maxAccounts = 100
	// writeTimeout is how long a write to a reader may take, and endTimeout that of a
	// stream that must end.
	writeTimeout = 20 * time.Second
	endTimeout   = 2 * time.Second
	// maxRetry is the longest delay after which a client should come back. Each gets
	// another, so that they do not come together.
	maxRetry = 5 * time.Second
)

var (
	errTooSlow = fault.WithRetry(fault.New(connect.CodeResourceExhausted, "STREAM_TOO_SLOW",
		"The stream was not read in time. Read each event at once, and open the stream again with the last cursor."), time.Second)
	// ErrTooMany refuses a stream of a caller, or a gateway, that has too many.
	ErrTooMany = fault.New(connect.CodeResourceExhausted, "TOO_MANY_STREAMS",
		"Too many of these streams are open. Close one, or share one among tabs.")
)

// Config configures a [Hub].
type Config struct {
	// Keys seal cursors. Cursors of the first are given, and those of all are known.
	Keys [][]byte
	// Feeds are the names of the change feeds.
	Feeds []string
	// Check returns an error if a principal's token is revoked, and Known does it without
	// asking a service.
	Check func(context.Context, *access.Principal) error
	Known func(*access.Principal) error
	// Fresh reports whether the revocations are current.
	Fresh func() bool
	// Now is the clock; time.Now if nil.
	Now func() time.Time
}

// Hub holds the open streams.
type Hub struct {
	config Config
	sealer sealer

	mu      sync.Mutex
	feeds   []*feed
	cursor  string // of the position; "" if it is not sealed yet
	streams map[*stream]struct{}
	// own are the streams of an account's own changes, by the account.
	own map[string][]*stream
	// all are the streams of the changes of all accounts.
	all map[*stream]struct{}
	// counts are the open streams by their method and caller, and by their method alone.
	counts map[opened]int
}

// opened is a method, and one of its callers or "" for all.
type opened struct {
	method *policy.Method
	caller string
}

// Event is what a stream sends.
type Event struct {
	// Parts of the caller's own account have changed, or Accounts if the stream is of all.
	// Without any, and without Complete, Ended and RefreshDue, the stream is alive.
	Parts    []string
	Accounts []string
	// Ended is why the stream ends.
	Ended *connect.Error
	// RefreshDue reports that the token expires soon.
	RefreshDue bool
	// Cursor is the position after the event.
	Cursor string
	// Complete reports that anything may have changed.
	Complete bool
}

// New returns a hub without streams.
func New(config Config) *Hub {
	if config.Now == nil {
		config.Now = time.Now
	}
	h := &Hub{
		config: config, sealer: newSealer(config.Keys),
		streams: map[*stream]struct{}{}, own: map[string][]*stream{}, all: map[*stream]struct{}{}, counts: map[opened]int{},
	}
	for _, name := range config.Feeds {
		h.feeds = append(h.feeds, newFeed(name))
	}
	return h
}

// Watch sends the changes of the principal's account from a cursor on, which may be
// empty, until the stream ends. It returns the reason.
//
// Errors: unauthenticated SESSION_ENDED, TOKEN_STALE or TOKEN_EXPIRED,
// resource_exhausted TOO_MANY_STREAMS or STREAM_TOO_SLOW, unavailable
// SERVICE_UNAVAILABLE or SERVER_STOPPING.
func (h *Hub) Watch(ctx context.Context, who *access.Principal, cursor string, send func(Event) error) error {
	return h.watch(ctx, &stream{who: who}, cursor, send)
}

// WatchAll is Watch for the changes of all accounts.
func (h *Hub) WatchAll(ctx context.Context, who *access.Principal, cursor string, send func(Event) error) error {
	return h.watch(ctx, &stream{who: who, all: true}, cursor, send)
}

func (h *Hub) watch(ctx context.Context, s *stream, cursor string, send func(Event) error) error {
	s.method, s.interrupt = rpc.CallFrom(ctx).Method, func() { rpc.InterruptWrites(ctx) }
	if err := h.join(s, cursor); err != nil {
		return err
	}
	continues := false
	defer func() {
		if !continues {
			h.leave(s)
		}
	}()
	// A revocation that came before the stream joined was not for it.
	if err := h.config.Check(ctx, s.who); err != nil {
		return err
	}
	var offer *continuation.Offer
	// Nothing would end it with the caller's own deadline.
	if _, limited := ctx.Deadline(); s.message != nil && !limited {
		offer = continuation.Accept(ctx)
	}
	defer context.AfterFunc(ctx, func() { // also while it sends
		if errors.Is(context.Cause(ctx), serve.ErrStopping) {
			h.stop(s)
		}
	})()
	for {
		event, due := h.take(s)
		if due {
			err := send(event)
			h.sent(s)
			if err != nil && event.Ended == nil {
				return h.reason(s, err)
			}
			if event.Ended != nil {
				return event.Ended
			}
			continue
		}
		if offer != nil {
			offer.Continue(continued{h, s})
			continues = true
			return nil
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			if !errors.Is(context.Cause(ctx), serve.ErrStopping) {
				return ctx.Err()
			}
			h.stop(s)
		}
	}
}

// stop ends a stream because the server stops.
func (h *Hub) stop(s *stream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s.end(rpc.Stopping(retryDelay()))
}

// reason returns why a stream that could not send has ended.
func (h *Hub) reason(s *stream, err error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s.ended != nil {
		return s.ended.WithCause(err)
	}
	return err
}

// join adds a stream. Its first event says what has changed since the cursor.
func (h *Hub) join(s *stream, cursor string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.config.Now()
	ofCaller, ofAll := opened{s.method, s.who.UserID}, opened{method: s.method}
	if !h.current(now) {
		return h.lost()
	}
	if m := s.method; m != nil && m.OpenStreams != nil && (h.counts[ofCaller] >= m.OpenStreams.PerCaller || h.counts[ofAll] >= m.OpenStreams.Total) {
		streamRefusals.Add(context.Background(), 1)
		return ErrTooMany
	}
	s.wake, s.alive, s.begun = make(chan struct{}, 1), true, now
	positions, known := h.sealer.open(cursor, len(h.feeds))
	for i, f := range h.feeds {
		if !known || !f.reaches(positions[i]) {
			s.setComplete()
			continue
		}
		s.resume(f, positions[i])
	}
	h.counts[ofCaller]++
	h.counts[ofAll]++
	h.streams[s] = struct{}{}
	if s.all {
		h.all[s] = struct{}{}
	} else {
		h.own[s.who.UserID] = append(h.own[s.who.UserID], s)
	}
	return nil
}

func (h *Hub) leave(s *stream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.streams, s)
	delete(h.all, s)
	if own := slices.DeleteFunc(h.own[s.who.UserID], func(one *stream) bool { return one == s }); len(own) > 0 {
		h.own[s.who.UserID] = own
	} else {
		delete(h.own, s.who.UserID)
	}
	for _, one := range []opened{{s.method, s.who.UserID}, {method: s.method}} {
		if h.counts[one]--; h.counts[one] == 0 {
			delete(h.counts, one)
		}
	}
	reason := "closed"
	if s.ended != nil {
		reason = fault.Reason(s.ended)
	}
	countEnd(reason)
}

// take returns the next event of a stream, if one is due. The stream counts as sending
// until sent.
func (h *Hub) take(s *stream) (Event, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.takeLocked(s)
}

func (h *Hub) takeLocked(s *stream) (Event, bool) {
	event := Event{Cursor: h.position()}
	switch {
	case s.ended != nil:
		event.Ended = s.ended
	case s.changed():
		s.takeChanges(&event)
	case s.refreshDue:
		event.RefreshDue, s.refreshDue = true, false
	case !s.alive:
		return Event{}, false
	}
	s.alive = false
	s.sending = h.config.Now()
	countEvent(event)
	return event, true
}

func (h *Hub) sent(s *stream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s.sending, s.quiet = time.Time{}, h.config.Now()
}

// position returns the sealed position of the hub. The caller holds the lock.
func (h *Hub) position() string {
	if h.cursor == "" {
		positions := make([]position, len(h.feeds))
		for i, f := range h.feeds {
			positions[i] = f.at
		}
		h.cursor = h.sealer.seal(positions)
	}
	return h.cursor
}

// Changed applies an update of a change feed: its tags or, if complete, that anything may
// have changed.
func (h *Hub) Changed(name string, complete bool, tags []string, cursor string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f := h.feed(name)
	if f == nil {
		return
	}
	f.take(h.config.Now(), complete, tags, cursor)
	h.cursor = ""
	if complete {
		for s := range h.streams {
			s.setComplete()
			s.signal()
		}
	}
	var accounts []string
	for _, tag := range tags {
		part, account := partOf(tag)
		if part == 0 {
			continue
		}
		accounts = append(accounts, account)
		for _, s := range h.own[account] {
			s.note(part)
		}
	}
	if len(accounts) > 0 {
		for s := range h.all {
			s.noteAccounts(accounts)
		}
	}
}

func (h *Hub) feed(name string) *feed {
	for _, f := range h.feeds {
		if f.name == name {
			return f
		}
	}
	return nil
}

// Revoked ends the streams whose tokens a message revokes. The revocations have been
// applied before.
func (h *Hub) Revoked(message *authv1.WatchRevocationsResponse) {
	if !message.GetComplete() && len(message.GetRevocations()) == 0 {
		return
	}
	sessions, accounts := map[string]bool{}, map[string]bool{}
	for _, one := range message.GetRevocations() {
		sessions[one.GetSessionId()] = true
		accounts[one.GetLeastVersion().GetAccountId()] = true
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.streams {
		if !message.GetComplete() && !sessions[s.who.SessionID] && !accounts[s.who.UserID] {
			continue
		}
		if failure, ok := errors.AsType[*connect.Error](h.config.Known(s.who)); ok {
			s.end(failure)
		}
	}
}

// Run ends and wakes streams that are due, until ctx ends.
func (h *Hub) Run(ctx context.Context) {
	ticker := time.NewTicker(sweepInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			h.sweep()
		}
	}
}

func (h *Hub) sweep() {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.config.Now()
	current := h.current(now)
	for s := range h.streams {
		if !current {
			s.end(h.lost())
		}
		s.sweep(now)
	}
	for _, f := range h.feeds {
		f.prune(now)
	}
}

// current reports whether all feeds are. The caller holds the lock.
func (h *Hub) current(now time.Time) bool {
	for _, f := range h.feeds {
		if f.heard.IsZero() || now.Sub(f.heard) > feedSilence {
			return false
		}
	}
	return h.config.Fresh()
}

// lost returns the error of a stream while a feed is lost.
func (h *Hub) lost() *connect.Error { return fault.UnavailableFor(retryDelay()) }

func retryDelay() time.Duration { return rand.N(maxRetry).Round(time.Millisecond) }

// Open returns how many streams are open.
func (h *Hub) Open() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.streams)
}
