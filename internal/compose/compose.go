// Package compose builds one response from parts that are fetched concurrently.
//
// Wait starts the parts without a dependency, and each other part as soon as its dependency
// has been fetched. Of the parts that start together, the last one runs on the goroutine
// that starts them. Their first calls to the same service are sent in one request (package
// batch), so a part should make its call without waiting for anything before. The failure of
// a required part fails the composition and cancels the other parts. The failure of an
// optional part cancels nothing; Missing reports it.
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
// A part names its dependency by a handle that an earlier call returned, so there are no
// cycles. The result does not depend on the order in which the parts finish.
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
	"gatehouse/internal/calltrace"
	"gatehouse/internal/fault"
)

// maxConcurrentFetches bounds the fetches that one composition runs at a time.
const maxConcurrentFetches = 16

// MapError maps the error of a fetch to the error that the caller of the composition
// receives. ctx is the context of the call, without the time limit of the part, so that the
// two can be distinguished. It is never called with a nil error.
type MapError func(ctx context.Context, err error) error

// Composition is a response that is being built.
type Composition struct {
	call     context.Context // the context of the incoming call
	ctx      context.Context // the parts' context; canceled when a required part fails
	cancel   context.CancelCauseFunc
	mapError MapError
	slots    chan struct{}    // holds a value for each running fetch; nil when there are no more parts than slots
	tracer   trace.Tracer     // nil when the call is not traced
	recorded *calltrace.Place // of the call; nil when it is not recorded
	parts    []*state         // in the order of their declaration
	first    []*state         // the parts without a dependency
	running  sync.WaitGroup
	failing  sync.Once
	failure  error // of the first required part that failed
}

// state is the state of a part that does not depend on its type.
type state struct {
	name     string
	required bool
	limit    time.Duration
	fetch    func()   // fetches the part and sets its value and err
	next     []*state // the parts that depend on this one
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

// Value returns the value of the part after Wait has returned nil. It is the zero value for
// an optional part that failed.
func (p *Part[T]) Value() T { return p.value }

// New returns an empty composition for a call.
func New(ctx context.Context, mapError MapError) *Composition {
	c := &Composition{call: ctx, mapError: mapError, tracer: tracerOf(ctx), recorded: calltrace.At(ctx)}
	c.ctx, c.cancel = context.WithCancelCause(ctx)
	return c
}

// Required declares a part without which the composition fails. limit bounds the fetch.
func Required[T any](c *Composition, name string, limit time.Duration, fetch func(context.Context) (T, error)) *Part[T] {
	return add(c, true, name, limit, nil, ignoreNeed(fetch))
}

// RequiredFrom is Required for a part that depends on the value of another part. If that part
// fails, it fails with the same error.
func RequiredFrom[N, T any](c *Composition, name string, limit time.Duration, need *Part[N], fetch func(context.Context, N) (T, error)) *Part[T] {
	return add(c, true, name, limit, need, fetch)
}

// Optional declares a part without which the composition can succeed.
func Optional[T any](c *Composition, name string, limit time.Duration, fetch func(context.Context) (T, error)) *Part[T] {
	return add(c, false, name, limit, nil, ignoreNeed(fetch))
}

// OptionalFrom is Optional for a part that depends on the value of another part.
func OptionalFrom[N, T any](c *Composition, name string, limit time.Duration, need *Part[N], fetch func(context.Context, N) (T, error)) *Part[T] {
	return add(c, false, name, limit, need, fetch)
}

func ignoreNeed[T any](fetch func(context.Context) (T, error)) func(context.Context, struct{}) (T, error) {
	return func(ctx context.Context, _ struct{}) (T, error) { return fetch(ctx) }
}

// add declares a part. need is its dependency, or nil.
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

// start runs parts and their dependents: the last part on this goroutine, each other part on
// a new one.
func (c *Composition) start(parts []*state) {
	for len(parts) > 0 {
		if len(parts) > 1 {
			c.groupCalls(parts)
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

// groupCalls adds parts that start together to one batch round. It excludes parts that may
// have to wait for a slot, because the round would wait for them.
func (c *Composition) groupCalls(parts []*state) {
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

// Fetch fetches a single part outside of a composition, with a time limit and MapError.
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

// recoverPanics returns a panic as an error. On a goroutine of this package, the panic would
// end the process.
func recoverPanics[T any](ctx context.Context, fetch func(context.Context) (T, error)) (value T, err error) {
	defer func() {
		if panicked := recover(); panicked != nil {
			err = fault.ErrInternal.WithCause(fmt.Errorf("panic: %v\n%s", panicked, debug.Stack()))
		}
	}()
	return fetch(ctx)
}

// Wait fetches the parts, and returns when all have been fetched or have failed. Call it
// once. If several required parts failed, it returns the error of the one that was declared
// first, ignoring cancellations, which result from the failure of another part.
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

// Missing returns the optional parts that failed, in the order of declaration. Call it after
// Wait.
func (c *Composition) Missing() []Missing {
	var missing []Missing
	for _, p := range c.parts {
		if !p.required && p.err != nil {
			missing = append(missing, Missing{Part: p.name, Err: p.err})
		}
	}
	return missing
}
