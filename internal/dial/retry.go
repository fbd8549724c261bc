package dial

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"connectrpc.com/connect/v2"

	"gatehouse/internal/fault"
	"gatehouse/internal/policy"
	"gatehouse/internal/rpc"
)

const (
	firstBackoff = 25 * time.Millisecond // the maximum wait before the second attempt, which then doubles
	// Ten calls earn one retry or hedge, so that an unresponsive backend receives at most
	// 1.1 times its load. maxBudget bounds the budget that is saved without failures.
	budgetPerCall = 0.1
	maxBudget     = 50
)

// unaryCall delays the request until Receive, so that it can be sent more than once.
type unaryCall struct {
	make    func(request, response any) error
	request any
	called  bool
}

func (c *unaryCall) SendHeaders() error { return nil }
func (c *unaryCall) CloseSend() error   { return nil }
func (c *unaryCall) Close() error       { return nil }

func (c *unaryCall) Send(message any) error {
	c.request = message
	return nil
}

func (c *unaryCall) Receive(message any) error {
	if c.called {
		return io.EOF
	}
	c.called = true
	return c.make(c.request, message)
}

// attempt makes one call, like connect.Client.
func attempt(ctx context.Context, spec connect.Spec, next connect.ClientFunc, request, response any) (err error) {
	if info, ok := connect.CallInfoForClientContext(ctx); ok {
		for _, header := range []*connect.Header{info.ResponseHeader(), info.ResponseTrailer()} { // of the previous attempt
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

// attemptsOf returns the maximum number of attempts of a call, from the policy of the method
// in whose context it is made.
func attemptsOf(ctx context.Context) int {
	if method := rpc.CallFrom(ctx).Method; method != nil {
		return method.Attempts
	}
	return policy.MaxAttempts
}

// attemptsFor returns the maximum number of attempts of a call that failed with err. The
// policy does not limit attempts that sent nothing.
func attemptsFor(ctx context.Context, err error) int {
	if _, unsent := errors.AsType[*dialError](err); unsent {
		return policy.MaxAttempts
	}
	return attemptsOf(ctx)
}

// mayRetry reports whether another attempt is safe and may succeed: the failed one was
// never sent, or the call is repeatable. A call whose error has a retry delay is not
// retried.
func mayRetry(ctx context.Context, spec connect.Spec, err error) bool {
	if _, ok := errors.AsType[*dialError](err); ok {
		return ctx.Err() == nil
	}
	if !repeatable(ctx, spec) || outcomeOf(ctx, err, fastRefusal) != outcomeNoResponse || connect.CodeOf(err) == connect.CodeDeadlineExceeded {
		return false
	}
	_, hasDelay := fault.RetryDelay(err)
	return !hasDelay
}

// repeatable reports whether the call is idempotent, by the method's idempotency level or the
// call's idempotency key.
func repeatable(ctx context.Context, spec connect.Spec) bool {
	if spec.IdempotencyLevel != connect.IdempotencyUnknown {
		return true
	}
	info, ok := connect.CallInfoForClientContext(ctx)
	return ok && info.RequestHeader().Get("Idempotency-Key") != ""
}

// backOff waits before the next attempt (exponential backoff with full jitter). It reports
// whether the deadline leaves time for the attempt.
func backOff(ctx context.Context, attempts int) bool {
	wait := rand.N(firstBackoff << (attempts - 1))
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < wait+deadlineMargin {
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

// budget limits retries and hedges to a fraction of the calls. The budget of failsafe-go
// counts calls in flight, so it would permit a retry of every call of a sequential caller.
type budget struct {
	mu     sync.Mutex
	tokens float64
}

func (b *budget) earn() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tokens = min(b.tokens+budgetPerCall, maxBudget)
}

// spend spends the cost of one attempt if at least keep remains, and reports whether it
// did.
func (b *budget) spend(keep float64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.tokens < 1+keep-1e-9 { // 0.1 added ten times is slightly less than 1
		return false
	}
	b.tokens--
	return true
}

// refund returns the cost of an attempt that was not made.
func (b *budget) refund() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tokens++
}
