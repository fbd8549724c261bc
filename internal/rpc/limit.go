package rpc

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// limitedContext is [context.WithDeadline] without the timer, which it starts when somebody
// first waits for its end or derives a context from it. A call that the cache answers needs
// none.
type limitedContext struct {
	context.Context //nolint:containedctx // it is one
	deadline        time.Time

	mu    sync.Mutex                   // of starting the timer
	timed atomic.Pointer[timedContext] // nil until the timer is needed
	ended atomic.Bool
}

type timedContext struct {
	context.Context //nolint:containedctx // it is one
	cancel          context.CancelFunc
}

// Deadline implements [context.Context]. The parent's deadline is later, or it has none.
func (c *limitedContext) Deadline() (time.Time, bool) { return c.deadline, true }

// Done implements [context.Context].
func (c *limitedContext) Done() <-chan struct{} { return c.withTimer().Done() }

// Err implements [context.Context].
func (c *limitedContext) Err() error {
	if timed := c.timed.Load(); timed != nil {
		return timed.Err()
	}
	if !c.ended.Load() && c.Context.Err() == nil && time.Now().Before(c.deadline) {
		return nil
	}
	return c.withTimer().Err()
}

// Value implements [context.Context]. With a timer, package context finds by it that the
// context is one of its own, so that a derived context costs no goroutine.
func (c *limitedContext) Value(key any) any {
	if timed := c.timed.Load(); timed != nil {
		return timed.Value(key)
	}
	return c.Context.Value(key)
}

func (c *limitedContext) withTimer() context.Context {
	if timed := c.timed.Load(); timed != nil {
		return timed
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if timed := c.timed.Load(); timed != nil {
		return timed
	}
	ctx, cancel := context.WithDeadline(c.Context, c.deadline)
	if c.ended.Load() {
		cancel()
	}
	c.timed.Store(&timedContext{ctx, cancel})
	return ctx
}

// end ends the context, as the cancel function of [context.WithDeadline] does.
func (c *limitedContext) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended.Store(true)
	if timed := c.timed.Load(); timed != nil {
		timed.cancel()
	}
}
