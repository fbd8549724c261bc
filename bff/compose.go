package bff

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"connectrpc.com/connect/v2"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/fault"
	"gatehouse/internal/rpc"
)

// Time limits of parts: what reads waits less long than what writes, which may
// have a password to hash.
const (
	readLimit  = 2 * time.Second
	writeLimit = 5 * time.Second
)

// maxCalls is how many calls one composition has under way at a time.
const maxCalls = 16

// composition puts one answer together from parts. Each part begins as soon as
// what it needs is there, which for most is at once. A required part's failure
// fails the answer and cancels the rest. An optional part's failure cancels
// nothing: it becomes an entry in errors.
//
//	c := compose(ctx, s.logger)
//	page := required(c, "profiles", readLimit, func(ctx context.Context) (*Page, error) { … })
//	accounts := requiredFrom(c, "accounts", readLimit, page, func(ctx context.Context, page *Page) (Accounts, error) { … })
//	sessions := optional(c, "sessions", readLimit, func(ctx context.Context) ([]*Session, error) { … })
//	if err := c.wait(); err != nil {
//		return nil, err
//	}
//	use(page.value, accounts.value, sessions.value, c.errors())
//
// A part names what it needs by a handle that an earlier part returned, so parts
// can't wait for each other in a circle. What comes of it all depends on what
// the parts return, and not on which was faster.
type composition struct {
	call   context.Context // what the answer is for
	ctx    context.Context // the parts': it ends when a required one fails
	group  *errgroup.Group
	calls  chan struct{} // holds one for each call under way
	tracer trace.Tracer  // nil when nobody traces the call
	logger *slog.Logger
	parts  []*record // in the order in which they were named
}

// record is what a composition knows of a part.
type record struct {
	name     string
	required bool
	err      error
	began    bool
	took     time.Duration
}

// part is the handle of a part. Its value is there after wait, unless it is
// optional and among the errors.
type part[T any] struct {
	record
	value T
	over  chan struct{}
}

func compose(ctx context.Context, logger *slog.Logger) *composition {
	c := &composition{call: ctx, logger: logger, calls: make(chan struct{}, maxCalls), tracer: tracerOf(ctx)}
	c.group, c.ctx = errgroup.WithContext(ctx)
	return c
}

// required begins to fetch a part without which there is no answer.
func required[T any](c *composition, name string, limit time.Duration, fetch func(context.Context) (T, error)) *part[T] {
	return begin(c, true, name, nothing{}, asCall(c, limit, without(fetch)))
}

// requiredFrom is required for a part that is made from another one's value.
func requiredFrom[N, T any](c *composition, name string, limit time.Duration, need source[N], fetch func(context.Context, N) (T, error)) *part[T] {
	return begin(c, true, name, need, asCall(c, limit, fetch))
}

// optional begins to fetch a part that the answer can do without.
func optional[T any](c *composition, name string, limit time.Duration, fetch func(context.Context) (T, error)) *part[T] {
	return begin(c, false, name, nothing{}, asCall(c, limit, without(fetch)))
}

// optionalFrom is optional for a part that is made from another one's value.
func optionalFrom[N, T any](c *composition, name string, limit time.Duration, need source[N], fetch func(context.Context, N) (T, error)) *part[T] {
	return begin(c, false, name, need, asCall(c, limit, fetch))
}

// begin starts a part, which waits for what it needs. Without that it fails for
// the same reason.
func begin[N, T any](c *composition, required bool, name string, need source[N], fetch func(context.Context, N) (T, error)) *part[T] {
	p := &part[T]{record: record{name: name, required: required}, over: make(chan struct{})}
	c.parts = append(c.parts, &p.record)
	c.group.Go(func() error {
		defer close(p.over)
		growStack(0)
		p.value, p.err = fetched(c, &p.record, need, fetch)
		if required {
			return p.err
		}
		return nil
	})
	return p
}

// growStack has room made at once on a new goroutine's stack for what a call
// needs, while there is next to nothing on it to move. To double it again and
// again below a call cost a seventh of GetMe. (CockroachDB's growstack.)
//
//go:noinline
func growStack(at int) byte {
	var room [stackRoom]byte
	return room[at]
}

const stackRoom = 20 << 10

func fetched[N, T any](c *composition, p *record, need source[N], fetch func(context.Context, N) (T, error)) (none T, err error) {
	given, err := need.await()
	if err != nil {
		return none, err
	}
	if err := c.ctx.Err(); err != nil {
		return none, fromBackend(c.ctx, err)
	}
	return observed(c, p, func(ctx context.Context) (T, error) { return fetch(ctx, given) })
}

// A source is what a part may need: other parts' values.
type source[T any] interface {
	// await returns the value once it is there, or why it never will be.
	await() (T, error)
}

func (p *part[T]) await() (T, error) {
	<-p.over
	return p.value, p.err
}

// nothing is what most parts need.
type nothing struct{}

func (nothing) await() (nothing, error) { return nothing{}, nil }

func without[T any](fetch func(context.Context) (T, error)) func(context.Context, nothing) (T, error) {
	return func(ctx context.Context, _ nothing) (T, error) { return fetch(ctx) }
}

// both is two parts' values, for a part that needs both of them.
func both[A, B any](first *part[A], second *part[B]) source[pair[A, B]] {
	return twoParts[A, B]{first, second}
}

type pair[A, B any] struct {
	first  A
	second B
}

type twoParts[A, B any] struct {
	first  *part[A]
	second *part[B]
}

// await doesn't wait for the one once the other has failed.
func (s twoParts[A, B]) await() (pair[A, B], error) {
	select {
	case <-s.first.over:
	case <-s.second.over:
	}
	if err := cmp.Or(s.first.failure(), s.second.failure()); err != nil {
		return pair[A, B]{}, err
	}
	first, err := s.first.await()
	if err != nil {
		return pair[A, B]{}, err
	}
	second, err := s.second.await()
	return pair[A, B]{first, second}, err
}

// failure returns how a part failed if it already has.
func (p *part[T]) failure() error {
	select {
	case <-p.over:
		return p.err
	default:
		return nil
	}
}

// asCall makes a fetch one call: it takes its turn among the composition's
// calls, and has a time limit from then on.
func asCall[N, T any](c *composition, limit time.Duration, fetch func(context.Context, N) (T, error)) func(context.Context, N) (T, error) {
	return func(ctx context.Context, given N) (none T, err error) {
		if err := c.enter(ctx); err != nil {
			return none, fromBackend(ctx, err)
		}
		defer c.leave()
		return fetchPart(ctx, limit, func(ctx context.Context) (T, error) { return fetch(ctx, given) })
	}
}

func (c *composition) enter(ctx context.Context) error {
	select {
	case c.calls <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *composition) leave() { <-c.calls }

// fetchPart fetches one part within its limit. Its errors are for our caller.
func fetchPart[T any](ctx context.Context, limit time.Duration, fetch func(context.Context) (T, error)) (T, error) {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	value, err := contained(limited, fetch)
	if err != nil {
		var none T
		return none, fromBackend(ctx, err)
	}
	return value, nil
}

// contained returns a panic as an error: on a goroutine of errgroup's it would
// end the process.
func contained[T any](ctx context.Context, fetch func(context.Context) (T, error)) (value T, err error) {
	defer func() {
		if panicked := recover(); panicked != nil {
			err = fault.ErrInternal.WithCause(fmt.Errorf("panic: %v\n%s", panicked, debug.Stack()))
		}
	}()
	return fetch(ctx)
}

// wait returns when every part has come or failed. Of required parts that
// failed, the one that was named first tells why there is no answer; that others
// were cancelled on its account tells nothing.
func (c *composition) wait() error {
	failure := c.group.Wait()
	c.sayTimes()
	if failure == nil {
		return nil
	}
	for _, p := range c.parts {
		if p.required && p.err != nil && !errors.Is(p.err, context.Canceled) {
			return p.err
		}
	}
	return failure
}

// errors returns what is missing of the optional parts, in the order in which
// they were named, and keeps an answer that lacks some out of every cache. Call
// it once, after wait.
func (c *composition) errors() []*bffv1.PartError {
	var missing []*bffv1.PartError
	for _, p := range c.parts {
		if p.required || p.err == nil {
			continue
		}
		code := connect.CodeOf(p.err)
		retryable := code == connect.CodeUnavailable || code == connect.CodeResourceExhausted || code == connect.CodeDeadlineExceeded
		missing = append(missing, &bffv1.PartError{Part: p.name, Code: code.String(), Reason: fault.Reason(p.err), Retryable: retryable})
		c.logMissing(p)
	}
	if len(missing) > 0 {
		noStore(c.call)
	}
	return missing
}

func (c *composition) logMissing(p *record) {
	if c.call.Err() != nil {
		return // there will be no answer that it is missing from
	}
	countMissing(c.call, p.name, connect.CodeOf(p.err))
	attrs := []slog.Attr{
		slog.String("part", p.name), slog.String("code", connect.CodeOf(p.err).String()), slog.String("reason", fault.Reason(p.err)),
		slog.String("request_id", rpc.CallFrom(c.call).RequestID),
	}
	if cause := errors.Unwrap(p.err); cause != nil {
		attrs = append(attrs, slog.String("cause", cause.Error()))
	}
	c.logger.LogAttrs(c.call, slog.LevelWarn, "part missing", attrs...)
}
