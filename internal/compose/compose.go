// Package compose puts one answer together from parts that are fetched
// concurrently.
//
// Wait starts the parts that need no other, and each other part as soon as the part
// that it needs has arrived. Of the parts that start together, the last one runs on the
// goroutine that starts them. Their first calls to the same service travel in one
// request (package batch), so a part should make its call without waiting for anything
// before. A required part's failure fails the answer and cancels the other parts. An
// optional part's failure cancels nothing; Missing reports it.
//
//	c := compose.New(ctx, mapError)
//	page := compose.Required(c, "profiles", limit, func(ctx context.Context) (*Page, error) { … })
//	accounts := compose.RequiredFrom(c, "accounts", limit, page, func(ctx context.Context, page *Page) (Accounts, error) { … })
//	sessions := compose.Optional(c, "sessions", limit, func(ctx context.Context) ([]*Session, error) { … })
//	if err := c.Wait(); err != nil {
//		return nil, err
//	}
//	use(page.Value(), accounts.Value(), sessions.Value(), c.Missing())
//
// A part names the part that it needs by a handle that an earlier call returned,
// so parts cannot wait for each other in a cycle. The answer depends on what the
// parts return, not on the order in which they finish.
package compose

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"gatehouse/internal/batch"
	"gatehouse/internal/fault"
)

// maxConcurrentFetches bounds the fetches that one composition runs at a time.
const maxConcurrentFetches = 16

// MapError maps the error of a part's fetch to the error that the caller of the
// composed answer receives. ctx is the call's context without the part's own
// time limit, so that the two limits can be told apart. It is never called with
// a nil error.
type MapError func(ctx context.Context, err error) error

// Composition is one answer while it is put together.
type Composition struct {
	call     context.Context // the context of the call that the answer is for
	ctx      context.Context // the parts' context; canceled when a required part fails
	cancel   context.CancelCauseFunc
	mapError MapError
	slots    chan struct{} // holds one value for each running fetch; nil when there are enough
	tracer   trace.Tracer  // nil when the call is not traced
	parts    []*state      // in the order of their declaration
	first    []*state      // the parts that need no other
	running  sync.WaitGroup
	failing  sync.Once
	failure  error // of the first required part that failed
}

// state is what a composition knows about a part.
type state struct {
	name     string
	required bool
	limit    time.Duration
	fetch    func()   // fetches the part and sets its value and err
	next     []*state // the parts that need this one
	member   batch.Member
	grouped  bool // member has been added to a round
	err      error
	started  bool
	took     time.Duration
}

// Part is the handle of a part.
type Part[T any] struct {
	state
	value T
}

// Value returns the part's value. It is valid after Wait has returned nil; the
// zero value stands for an optional part that failed.
func (p *Part[T]) Value() T { return p.value }

// New returns an empty composition for a call.
func New(ctx context.Context, mapError MapError) *Composition {
	c := &Composition{call: ctx, mapError: mapError, tracer: tracerOf(ctx)}
	c.ctx, c.cancel = context.WithCancelCause(ctx)
	return c
}

// Required declares a part that the answer depends on. limit bounds the
// fetch.
func Required[T any](c *Composition, name string, limit time.Duration, fetch func(context.Context) (T, error)) *Part[T] {
	return add(c, true, name, limit, nil, withoutNeed(fetch))
}

// RequiredFrom is Required for a part that is made from another part's value. It
// fails with the other part's error when that part fails.
func RequiredFrom[N, T any](c *Composition, name string, limit time.Duration, need *Part[N], fetch func(context.Context, N) (T, error)) *Part[T] {
	return add(c, true, name, limit, need, fetch)
}

// Optional declares a part that the answer can do without.
func Optional[T any](c *Composition, name string, limit time.Duration, fetch func(context.Context) (T, error)) *Part[T] {
	return add(c, false, name, limit, nil, withoutNeed(fetch))
}

// OptionalFrom is Optional for a part that is made from another part's value.
func OptionalFrom[N, T any](c *Composition, name string, limit time.Duration, need *Part[N], fetch func(context.Context, N) (T, error)) *Part[T] {
	return add(c, false, name, limit, need, fetch)
}

func withoutNeed[T any](fetch func(context.Context) (T, error)) func(context.Context, struct{}) (T, error) {
	return func(ctx context.Context, _ struct{}) (T, error) { return fetch(ctx) }
}

// add declares a part. need is nil for a part that needs no other.
func add[N, T any](c *Composition, required bool, name string, limit time.Duration, need *Part[N], fetch func(context.Context, N) (T, error)) *Part[T] {
	p := &Part[T]{state: state{name: name, required: required, limit: limit}}
	p.fetch = func() { p.value, p.err = run(c, &p.state, need, fetch) }
	c.parts = append(c.parts, &p.state)
	if need == nil {
		c.first = append(c.first, &p.state)
	} else {
		need.next = append(need.next, &p.state)
	}
	return p
}

// start runs parts and those that need them: the last part on this goroutine, the
// others each on their own.
func (c *Composition) start(parts []*state) {
	for len(parts) > 0 {
		if len(parts) > 1 {
			c.gather(parts)
		}
		last := len(parts) - 1
		for _, p := range parts[:last] {
			c.running.Go(func() {
				batch.GrowStack()
				c.fetch(p)
				c.start(p.next)
			})
		}
		c.fetch(parts[last])
		parts = parts[last].next
	}
}

// gather lets the calls of parts that start together travel together. A part that may
// have to wait for a slot is none of them: the others would wait for it.
func (c *Composition) gather(parts []*state) {
	round := &batch.Round{}
	for _, p := range parts[:min(len(parts), maxConcurrentFetches)] {
		round.Add(&p.member, c.ctx, p.limit)
		p.grouped = true
	}
}

func (c *Composition) fetch(p *state) {
	if p.grouped {
		defer p.member.Leave()
	}
	p.fetch()
	if p.required && p.err != nil {
		c.failing.Do(func() {
			c.failure = p.err
			c.cancel(p.err)
		})
	}
}

func run[N, T any](c *Composition, p *state, need *Part[N], fetch func(context.Context, N) (T, error)) (none T, err error) {
	var needed N
	if need != nil {
		if need.err != nil {
			return none, need.err
		}
		needed = need.value
	}
	if err := c.ctx.Err(); err != nil {
		return none, c.mapError(c.ctx, err)
	}
	return observe(c, p, func(ctx context.Context) (T, error) {
		if c.slots != nil {
			select {
			case c.slots <- struct{}{}:
				defer func() { <-c.slots }()
			case <-ctx.Done():
				return none, c.mapError(ctx, ctx.Err())
			}
		}
		return Fetch(ctx, c.mapError, p.limit, func(ctx context.Context) (T, error) { return fetch(ctx, needed) })
	})
}

// Fetch fetches one part outside of a composition, within a time limit. It maps
// the error in the same way.
func Fetch[T any](ctx context.Context, mapError MapError, limit time.Duration, fetch func(context.Context) (T, error)) (T, error) {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	value, err := recoverPanics(limited, fetch)
	if err != nil {
		var none T
		return none, mapError(ctx, err)
	}
	return value, nil
}

// recoverPanics returns a panic as an error: on a goroutine of its own it would end the
// process.
func recoverPanics[T any](ctx context.Context, fetch func(context.Context) (T, error)) (value T, err error) {
	defer func() {
		if panicked := recover(); panicked != nil {
			err = fault.ErrInternal.WithCause(fmt.Errorf("panic: %v\n%s", panicked, debug.Stack()))
		}
	}()
	return fetch(ctx)
}

// Wait fetches the parts, and returns when every part has arrived or failed. Call it
// once. When several required parts failed, it returns the error of the one that was
// declared first, and prefers any other error to a cancellation, which only follows from
// another part's failure.
func (c *Composition) Wait() error {
	if len(c.parts) > maxConcurrentFetches {
		c.slots = make(chan struct{}, maxConcurrentFetches)
	}
	c.start(c.first)
	c.running.Wait()
	c.cancel(nil)
	c.addServerTiming()
	if c.failure == nil {
		return nil
	}
	for _, p := range c.parts {
		if p.required && p.err != nil && !errors.Is(p.err, context.Canceled) {
			return p.err
		}
	}
	return c.failure
}

// Missing is an optional part that failed.
type Missing struct {
	Part string
	Err  error // as the MapError function returned it
}

// Missing returns the optional parts that failed, in the order of their
// declaration. Call it after Wait.
func (c *Composition) Missing() []Missing {
	var missing []Missing
	for _, p := range c.parts {
		if !p.required && p.err != nil {
			missing = append(missing, Missing{Part: p.name, Err: p.err})
		}
	}
	return missing
}
