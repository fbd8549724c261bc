// Package traces lets an administrator watch what the calls of this gateway consist of.
// A Recorder records calls (package calltrace) while somebody watches, keeps the latest
// of them, and forgets them when the last one leaves. Nobody watching costs each call one
// atomic load.
//
// A trace holds the names of methods and parts, times, outcomes and the request ID, which
// finds the call in the log. It never holds a value, a token, or who called.
package traces

import (
	"cmp"
	"context"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"

	"gatehouse/bff/access"
	"gatehouse/bff/watch"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/calltrace"
	"gatehouse/internal/policy"
	"gatehouse/internal/rpc"
)

const (
	// held is how many calls a recorder keeps.
	held = 1000
	// maxSent bounds the calls of a message.
	maxSent = 100
	// pause gathers calls, so that a busy gateway sends few messages.
	pause = 250 * time.Millisecond
	// checkInterval is how often a stream looks whether its token is still good.
	checkInterval = time.Second
	// aliveInterval is how long a stream sends nothing before it sends that it is alive.
	aliveInterval = 15 * time.Second
	// writeTimeout is how long a write to a reader may take, and endTimeout how much longer
	// it may once the stream must end.
	writeTimeout = 20 * time.Second
	endTimeout   = 2 * time.Second
)

// Recorder records calls while somebody watches.
type Recorder struct {
	// Known returns an error if a principal's token is revoked, without asking a service.
	Known func(*access.Principal) error

	watching atomic.Int32

	mu       sync.Mutex
	calls    []*calltrace.Trace // the latest, as a ring: number n is at n modulo held
	next     int                // the number of the next call
	watchers map[*watcher]struct{}
}

// watcher is an open stream.
type watcher struct {
	user string
	next int           // the number of the next call to send
	wake chan struct{} // holds one signal
}

// Interceptor records the calls of a method. It is an [rpc.Interceptor].
func (r *Recorder) Interceptor(plan *policy.Method) (connect.ServerInterceptor, error) {
	if plan.Streams() {
		return nil, nil
	}
	return func(next connect.ServerFunc) connect.ServerFunc {
		return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
			if r.watching.Load() == 0 {
				return next(ctx, spec, stream)
			}
			return r.record(ctx, spec, stream, next)
		}
	}, nil
}

func (r *Recorder) record(ctx context.Context, spec connect.Spec, stream connect.ServerStream, next connect.ServerFunc) error {
	call := calltrace.New(spec.Procedure)
	err := next(calltrace.With(ctx, call), spec, stream)
	outcome, requestID := err, ""
	if connecthttp.IsNotModifiedError(err) {
		outcome = nil
	}
	if info, ok := connect.CallInfoForServerContext(ctx); ok {
		requestID = info.ResponseHeader().Get(rpc.RequestIDHeader)
	}
	call.Finish(requestID, outcome)
	r.add(call)
	return err
}

func (r *Recorder) add(call *calltrace.Trace) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.watchers) == 0 {
		return // the last one has left meanwhile
	}
	r.calls[r.next%held] = call
	r.next++
	for w := range r.watchers {
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

// Stream is a bffv1.UserServiceWatchTracesServerStream.
type Stream interface {
	Send(*bffv1.WatchTracesResponse) error
}

// Watch sends the calls that are kept and then each that ends, until the stream ends. It
// returns the reason.
//
// Errors: unauthenticated SESSION_ENDED, TOKEN_STALE or TOKEN_EXPIRED,
// resource_exhausted TOO_MANY_STREAMS.
func (r *Recorder) Watch(ctx context.Context, who *access.Principal, stream Stream) error {
	w, err := r.join(who, rpc.CallFrom(ctx).Method)
	if err != nil {
		return err
	}
	defer r.leave(w)
	send := func(message *bffv1.WatchTracesResponse) error {
		sent, watched := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(watched)
			r.limitSend(ctx, who, sent, func() { rpc.InterruptWrites(ctx) })
		}()
		err := stream.Send(message)
		close(sent)
		<-watched // it interrupts nothing after the method has returned
		return err
	}
	if err := send(&bffv1.WatchTracesResponse{}); err != nil { // recording has begun
		return err
	}
	check := time.NewTicker(checkInterval)
	defer check.Stop()
	sent := time.Now()
	for {
		var gathered <-chan time.Time
		wake := (<-chan struct{})(w.wake)
		for due := false; !due; {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-wake:
				wake, gathered = nil, time.After(pause)
			case <-gathered:
				due = true
			case <-check.C:
				if err := r.ended(who); err != nil {
					return err
				}
				due = gathered == nil && time.Since(sent) >= aliveInterval
			}
		}
		for more := true; more; {
			if err := cmp.Or(ctx.Err(), r.ended(who)); err != nil { // a slow reader keeps this loop busy
				return err
			}
			var message *bffv1.WatchTracesResponse
			message, more = r.take(w)
			if err := send(message); err != nil {
				return err
			}
		}
		sent = time.Now()
	}
}

// limitSend interrupts a write, unless it is sent in time.
func (r *Recorder) limitSend(ctx context.Context, who *access.Principal, sent <-chan struct{}, interrupt func()) {
	limit := time.After(writeTimeout)
	check := time.NewTicker(checkInterval)
	defer check.Stop()
	done := ctx.Done()
	for ending := (<-chan time.Time)(nil); ; {
		must := false
		select {
		case <-sent:
			return
		case <-limit:
			interrupt()
			return
		case <-ending:
			interrupt()
			return
		case <-done:
			done, must = nil, true
		case <-check.C:
			must = r.ended(who) != nil
		}
		if must && ending == nil {
			ending = time.After(endTimeout)
		}
	}
}

// ended returns why a stream of a principal ends.
func (r *Recorder) ended(who *access.Principal) error {
	if !time.Now().Before(who.Expire) {
		return access.ErrTokenExpired
	}
	return r.Known(who)
}

func (r *Recorder) join(who *access.Principal, method *policy.Method) (*watcher, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if method != nil && method.OpenStreams != nil {
		own := 0
		for w := range r.watchers {
			if w.user == who.UserID {
				own++
			}
		}
		if own >= method.OpenStreams.PerCaller || len(r.watchers) >= method.OpenStreams.Total {
			return nil, watch.ErrTooMany
		}
	}
	w := &watcher{user: who.UserID, next: max(r.next-held, 0), wake: make(chan struct{}, 1)}
	if len(r.watchers) == 0 {
		r.calls, r.watchers, w.next = make([]*calltrace.Trace, held), map[*watcher]struct{}{}, r.next
	}
	if w.next < r.next {
		w.wake <- struct{}{}
	}
	r.watchers[w] = struct{}{}
	r.watching.Add(1)
	return w, nil
}

func (r *Recorder) leave(w *watcher) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.watching.Add(-1)
	delete(r.watchers, w)
	if len(r.watchers) == 0 {
		r.calls = nil
	}
}

// take returns the next message of a stream, and whether there are more. A reader that
// is too slow misses calls.
func (r *Recorder) take(w *watcher) (message *bffv1.WatchTracesResponse, more bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	message = &bffv1.WatchTracesResponse{}
	if oldest := r.next - held; w.next < oldest {
		message.Missed, w.next = int32(min(oldest-w.next, 1<<30)), oldest
	}
	for ; w.next < r.next && len(message.Traces) < maxSent; w.next++ {
		if call := r.calls[w.next%held]; call != nil {
			message.Traces = append(message.Traces, public(call))
		}
	}
	return message, w.next < r.next
}
