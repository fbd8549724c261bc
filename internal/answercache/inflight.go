package answercache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"

	"gatehouse/internal/fault"
)

// inFlightCall fetches one answer for all callers that ask for it at the same time.
// It belongs to none of them: it has the method's time limit, and ends earlier only
// when all of them have left. The answer cannot depend on a header, a cookie or an
// address, since the call is given none, nor on the caller where all share it.
type inFlightCall struct {
	since   epoch
	cancel  context.CancelFunc
	waiters int // guarded by the cache's mu
	done    chan struct{}
	answer  answer
	err     error
}

// fetch waits for an in-flight call, and starts one if none has an answer that would
// be valid.
func (c *Cache) fetch(ctx context.Context, q *query) (answer, error) {
	call, started := c.join(ctx, q)
	if started {
		q.method.count(ctx, Miss)
	} else {
		q.method.count(ctx, Coalesced)
	}
	defer c.leave(q.key, call)
	select {
	case <-call.done:
		got := call.answer
		if !started {
			got.header = nil
		}
		return got, call.err
	case <-ctx.Done():
		return answer{}, ctx.Err()
	}
}

// refresh starts an in-flight call that nobody waits for, unless there is one.
func (c *Cache) refresh(ctx context.Context, q *query) { _, _ = c.join(ctx, q) }

// join joins the in-flight call of the key, and reports whether it started it. A call
// that started before an invalidation is left to those that already wait for it.
func (c *Cache) join(ctx context.Context, q *query) (call *inFlightCall, started bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if call := c.inFlight[q.key]; call != nil && c.epochs.valid(q.tags, call.since) {
		call.waiters++
		return call, false
	}
	call = &inFlightCall{since: c.epochs.current(), waiters: 1, done: make(chan struct{})}
	ctx, call.cancel = c.config.Detach(ctx, q.method.TimeLimit, q.method.Shared)
	c.inFlight[q.key] = call
	c.running.Go(func() { c.run(ctx, call, q) })
	return call, true
}

// leave cancels an in-flight call that nobody waits for any more.
func (c *Cache) leave(k key, call *inFlightCall) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if call.waiters--; call.waiters > 0 {
		return
	}
	c.forget(k, call)
	call.cancel()
}

// forget is called with the lock held.
func (c *Cache) forget(k key, call *inFlightCall) {
	if c.inFlight[k] == call {
		delete(c.inFlight, k)
	}
}

func (c *Cache) run(ctx context.Context, call *inFlightCall, q *query) {
	defer call.cancel()
	call.answer, call.err = c.callMethod(ctx, call.since, q)
	c.mu.Lock()
	c.forget(q.key, call)
	c.mu.Unlock()
	close(call.done)
}

// callMethod calls the method, and stores its answer if it may be stored.
func (c *Cache) callMethod(ctx context.Context, since epoch, q *query) (got answer, err error) {
	defer func() {
		if panicked := recover(); panicked != nil {
			err = fault.ErrInternal.WithCause(fmt.Errorf("panic: %v\n%s", panicked, debug.Stack()))
		}
	}()
	m := q.method
	parts := &expiry{}
	info := &connect.CallInfo{Spec: m.spec()}
	stream := &unaryStream{request: q.request}
	ctx, age := c.fill(ctx, q.tags)
	err = m.server.Call(context.WithValue(ctx, expiryKey{}, parts), m.Procedure, info, stream)
	switch {
	case err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) && errors.Is(err, context.DeadlineExceeded):
		return answer{}, fault.Unavailable().WithCause(err) // the time limit is ours, not the caller's
	case err != nil:
		return answer{}, err
	case stream.answer == nil:
		return answer{}, fmt.Errorf("%s: the method sent no answer", m.Procedure)
	}
	hash, encoded, err := digest(m.schemaHash, stream.answer)
	if err != nil {
		return answer{}, err
	}
	e := &entry{message: stream.answer, encoded: preencoded(encoded), json: &inJSON{Message: stream.answer}, etags: newETags(hash), size: len(encoded), tags: q.tags, since: since}
	e.freshUntil = parts.orEarlier(c.config.Now().Add(m.TTL - age))
	e.staleUntil = e.freshUntil.Add(max(m.StaleWhileRevalidate, m.StaleIfError))
	got = answer{entry: e, header: info.ResponseHeader(), noStore: isNoStore(info.ResponseHeader())}
	if !got.noStore {
		c.store(q.key, e, m.kinds)
	}
	return got, nil
}

// unaryStream gives a method its one request and takes its one answer.
type unaryStream struct {
	request proto.Message // nil once it is given
	answer  proto.Message
}

func (s *unaryStream) Receive(into any) error {
	message, ok := into.(proto.Message)
	if !ok {
		return errors.New("the method receives into something that is no message")
	}
	if s.request == nil {
		return io.EOF
	}
	// Other callers share the request: the method gets a copy that it may change.
	proto.Reset(message)
	proto.Merge(message, s.request)
	s.request = nil
	return nil
}

func (s *unaryStream) SendHeaders() error { return nil }

func (s *unaryStream) Send(sent any) error {
	message, ok := sent.(proto.Message)
	if !ok {
		return errors.New("the method sends something that is no message")
	}
	s.answer = proto.Clone(message)
	return nil
}
