package bff

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"sync"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"

	"gatehouse/internal/fault"
	"gatehouse/internal/rpc"
)

// asked is what a caller asks for.
type asked struct {
	method  *keptMethod
	key     cacheKey
	tags    []string
	request proto.Message
}

// flight fetches one answer for all who ask for it at the same time. It belongs
// to none of them: it has the method's time limit, and ends before that only when
// all of them have left. What is fetched can't depend on a header, a cookie or an
// address, for it is given none, nor where all share it on who is calling.
type flight struct {
	since   position
	end     context.CancelFunc
	waiters int // guarded by the cache's mu
	landed  chan struct{}
	answer  answered
	err     error
}

// fetch waits for a flight, a new one if there is none whose answer would count.
func (c *cache) fetch(ctx context.Context, ask *asked) (answered, error) {
	f, first := c.board(ctx, ask)
	if first {
		ask.method.count.add(ctx, cacheMiss)
	} else {
		ask.method.count.add(ctx, cacheCoalesced)
	}
	defer c.leave(ask.key, f)
	select {
	case <-f.landed:
		answer := f.answer
		if !first {
			answer.header = nil
		}
		return answer, f.err
	case <-ctx.Done():
		return answered{}, ctx.Err()
	}
}

// refetch begins a flight that nobody waits for, unless there is one.
func (c *cache) refetch(ctx context.Context, ask *asked) { _, _ = c.board(ctx, ask) }

// board joins the flight for the key, and reports whether it is a new one. One
// that began before a purge is left to those who are on it.
func (c *cache) board(ctx context.Context, ask *asked) (f *flight, first bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.flights[ask.key]; f != nil && c.purges.spare(ask.tags, f.since) {
		f.waiters++
		return f, false
	}
	f = &flight{since: c.purges.position(), waiters: 1, landed: make(chan struct{})}
	ctx = context.WithValue(ctx, borneKey{}, nil)
	if ask.method.plan.Cache.Shared {
		ctx = context.WithValue(ctx, principalKey{}, nil)
	}
	ctx, f.end = rpc.Detached(ctx, ask.method.plan.TimeLimit)
	c.flights[ask.key] = f
	c.flying.Go(func() { c.fly(ctx, f, ask) })
	return f, true
}

// leave ends a flight that nobody waits for any more.
func (c *cache) leave(key cacheKey, f *flight) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.waiters--; f.waiters > 0 {
		return
	}
	c.forget(key, f)
	f.end()
}

// forget is called with the lock.
func (c *cache) forget(key cacheKey, f *flight) {
	if c.flights[key] == f {
		delete(c.flights, key)
	}
}

func (c *cache) fly(ctx context.Context, f *flight, ask *asked) {
	defer f.end()
	f.answer, f.err = c.ask(ctx, f.since, ask)
	c.mu.Lock()
	c.forget(ask.key, f)
	c.mu.Unlock()
	close(f.landed)
}

// ask calls the method, and keeps what it answers if that may be kept.
func (c *cache) ask(ctx context.Context, since position, ask *asked) (answer answered, err error) {
	defer func() {
		if panicked := recover(); panicked != nil {
			err = fault.ErrInternal.WithCause(fmt.Errorf("panic: %v\n%s", panicked, debug.Stack()))
		}
	}()
	plan := ask.method.plan
	oldest := &expiry{}
	info := &connect.CallInfo{Spec: specOf(plan)}
	stream := &soleStream{request: ask.request}
	err = ask.method.alone.Call(context.WithValue(ctx, expiryKey{}, oldest), plan.Procedure, info, stream)
	switch {
	case err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) && errors.Is(err, context.DeadlineExceeded):
		return answered{}, fault.Unavailable().WithCause(err) // the limit is ours
	case err != nil:
		return answered{}, err
	case stream.answer == nil:
		return answered{}, fmt.Errorf("%s: it answers nothing", plan.Procedure)
	}
	digest, form, err := hashOf(ask.method.schema, stream.answer)
	if err != nil {
		return answered{}, err
	}
	kept := &keptAnswer{message: stream.answer, written: written(form), digest: digest, size: len(form), tags: ask.tags, since: since}
	kept.until = oldest.or(c.now().Add(plan.Cache.TTL))
	kept.last = kept.until.Add(max(plan.Cache.StaleWhileRevalidate, plan.Cache.StaleIfError))
	answer = answered{keptAnswer: kept, header: info.ResponseHeader(), lacking: isNoStore(info.ResponseHeader())}
	if !answer.lacking {
		c.keep(ask.key, kept, ask.method.kinds)
	}
	return answer, nil
}

// keep keeps an answer, unless it is stale already. One that becomes so just now
// is found to be when it is looked at.
func (c *cache) keep(key cacheKey, answer *keptAnswer, kinds []string) {
	if c.purges.spare(answer.tags, answer.since) && c.current(kinds) {
		c.kept.Set(key, answer)
	}
}

// soleStream gives a method its one request and takes its one answer.
type soleStream struct {
	request proto.Message // nil once it is given
	answer  proto.Message
}

func (s *soleStream) Receive(into any) error {
	message, ok := into.(proto.Message)
	if !ok {
		return errors.New("a method receives into what is no message")
	}
	if s.request == nil {
		return io.EOF
	}
	// The request is other callers' too: what the method makes of its own is its own.
	proto.Reset(message)
	proto.Merge(message, s.request)
	s.request = nil
	return nil
}

func (s *soleStream) SendHeaders() error { return nil }

func (s *soleStream) Send(sent any) error {
	message, ok := sent.(proto.Message)
	if !ok {
		return errors.New("a method sends what is no message")
	}
	s.answer = proto.Clone(message)
	return nil
}

// expiry is when the first of the kept parts that an answer is made of expires.
type expiry struct {
	mu   sync.Mutex
	time time.Time
}

type expiryKey struct{}

func (e *expiry) by(time time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.time.IsZero() || time.Before(e.time) {
		e.time = time
	}
}

// or returns that time, or another if that is sooner or there is none.
func (e *expiry) or(other time.Time) time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.time.IsZero() && e.time.Before(other) {
		return e.time
	}
	return other
}
