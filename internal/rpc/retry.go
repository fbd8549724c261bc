package rpc

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"connectrpc.com/connect/v2"
)

const (
	retryFirst = 25 * time.Millisecond // the longest wait before the second attempt; then twice that
	// A retry costs what five calls earn, so that a backend that answers
	// nothing gets at most 1.2 times its load. What quiet times have earned is
	// soon spent.
	retryEarned = 0.2
	retrySaved  = 10
)

var errBreakerOpen = errors.New("it gave no answer lately: it isn't asked for a moment")

// backend is a service in another process as this one has got to know it.
type backend struct {
	breaker breaker
	budget  budget
}

func newBackend(service string, logger *slog.Logger) *backend {
	return &backend{breaker: newBreaker(service, logger)}
}

// patient makes unary calls again that got no answer, where that can do no harm,
// and none to a backend that gives no answer to anybody. Streams pass: who
// follows one opens it again by itself.
func (b *backend) patient(next connect.ClientFunc) connect.ClientFunc {
	return func(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
		if spec.StreamType != connect.StreamTypeUnary {
			return next(ctx, spec)
		}
		// A call that is lost with its connection has to be made again, then.
		if repeatable(ctx, spec) && attemptsOf(ctx) > 1 {
			ctx = asRepeatable(ctx)
		}
		return &unaryCall{make: func(request, response any) error {
			return b.call(ctx, spec, func() error { return attempt(ctx, spec, next, request, response) })
		}}, nil
	}
}

// unaryCall holds the request back until the answer is wanted: then it can be
// sent more than once.
type unaryCall struct {
	make    func(request, response any) error
	request any
	made    bool
}

func (c *unaryCall) SendHeaders() error { return nil }
func (c *unaryCall) CloseSend() error   { return nil }
func (c *unaryCall) Close() error       { return nil }

func (c *unaryCall) Send(message any) error {
	c.request = message
	return nil
}

func (c *unaryCall) Receive(message any) error {
	if c.made {
		return io.EOF
	}
	c.made = true
	return c.make(c.request, message)
}

func (b *backend) call(ctx context.Context, spec connect.Spec, attempt func() error) error {
	b.budget.earn()
	var last error
	for attempts := 1; ; attempts++ {
		probe, ok := b.breaker.enter()
		if !ok && last != nil {
			return last
		}
		if !ok {
			return Unavailable().WithCause(errBreakerOpen)
		}
		last = attempt()
		b.breaker.leave(probe, outcomeOf(ctx, last))
		if last == nil || attempts >= attemptsFor(ctx, last) || !mayRetry(ctx, spec, last) || !b.budget.spend() || !pause(ctx, attempts) {
			return last
		}
	}
}

// attempt makes one call, as connect.Client does.
func attempt(ctx context.Context, spec connect.Spec, next connect.ClientFunc, request, response any) (err error) {
	if info, ok := connect.CallInfoForClientContext(ctx); ok {
		for _, header := range []*connect.Header{info.ResponseHeader(), info.ResponseTrailer()} { // of the attempt before
			for key := range header.All() {
				header.Delete(key)
			}
		}
	}
	stream, err := next(ctx, spec)
	if err != nil {
		return err
	}
	defer func() {
		if failure := stream.Close(); err == nil {
			err = failure
		}
	}()
	if err := stream.Send(request); err != nil {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	return stream.Receive(response)
}

// attemptsOf is how often a call may be tried: as the policy says of the method
// that it is made for.
func attemptsOf(ctx context.Context) int {
	if plan := CallFrom(ctx).Plan; plan != nil {
		return plan.Attempts
	}
	return maxAttempts
}

// attemptsFor is how often a call may be tried that fails so. What was never sent
// was no try.
func attemptsFor(ctx context.Context, err error) int {
	if _, unsent := errors.AsType[*dialError](err); unsent {
		return maxAttempts
	}
	return attemptsOf(ctx)
}

// mayRetry reports whether another attempt can do no harm and may be answered:
// the failed one was never sent, or the method may be called twice. A backend
// that said when to come again is taken at its word.
func mayRetry(ctx context.Context, spec connect.Spec, err error) bool {
	if _, ok := errors.AsType[*dialError](err); ok {
		return ctx.Err() == nil
	}
	if !repeatable(ctx, spec) || outcomeOf(ctx, err) != outcomeSilence || connect.CodeOf(err) == connect.CodeDeadlineExceeded {
		return false
	}
	_, told := RetryDelay(err)
	return !told
}

// repeatable reports whether the schema says of the method, or a key of the
// call, that calling twice is as calling once.
func repeatable(ctx context.Context, spec connect.Spec) bool {
	if spec.IdempotencyLevel != connect.IdempotencyUnknown {
		return true
	}
	info, ok := connect.CallInfoForClientContext(ctx)
	return ok && info.RequestHeader().Get("Idempotency-Key") != ""
}

// pause waits before another attempt: anything up to a limit that doubles, so
// that those who failed together don't come again together. It reports whether
// there is time for the attempt.
func pause(ctx context.Context, attempts int) bool {
	wait := rand.N(retryFirst << (attempts - 1))
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < wait+hopMargin {
		return false
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// budget bounds retries by calls. failsafe-go's counts what is in flight at the
// same time, by which calls that come one after another could each be retried.
type budget struct {
	mu    sync.Mutex
	saved float64
}

func (b *budget) earn() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.saved = min(b.saved+retryEarned, retrySaved)
}

func (b *budget) spend() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.saved < 1 {
		return false
	}
	b.saved--
	return true
}
