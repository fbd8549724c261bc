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
	firstBackoff = 25 * time.Millisecond // the longest wait before the second attempt; then twice that
	// A retry or a hedge costs what ten calls earn, so that a backend that answers
	// nothing gets at most 1.1 times its load. What quiet times have earned is
	// soon spent.
	budgetPerCall = 0.1
	maxBudget     = 50
)

// unaryCall holds the request back until the answer is wanted, so that it can be sent
// more than once.
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

// attemptsOf returns how often a call may be tried, by the policy of the method that
// makes it.
func attemptsOf(ctx context.Context) int {
	if method := rpc.CallFrom(ctx).Method; method != nil {
		return method.Attempts
	}
	return policy.MaxAttempts
}

// attemptsFor is how often a call may be tried that fails so. What was never sent
// was no try.
func attemptsFor(ctx context.Context, err error) int {
	if _, unsent := errors.AsType[*dialError](err); unsent {
		return policy.MaxAttempts
	}
	return attemptsOf(ctx)
}

// mayRetry reports whether another attempt is safe and may succeed: the failed one was
// never sent, or the method may be called twice. A service that stated a retry delay
// is not asked again.
func mayRetry(ctx context.Context, spec connect.Spec, err error) bool {
	if _, ok := errors.AsType[*dialError](err); ok {
		return ctx.Err() == nil
	}
	if !repeatable(ctx, spec) || outcomeOf(ctx, err, fastRefusal) != outcomeSilence || connect.CodeOf(err) == connect.CodeDeadlineExceeded {
		return false
	}
	_, told := fault.RetryDelay(err)
	return !told
}

// repeatable reports whether calling twice has the effect of calling once, by the
// method's idempotency level or the call's idempotency key.
func repeatable(ctx context.Context, spec connect.Spec) bool {
	if spec.IdempotencyLevel != connect.IdempotencyUnknown {
		return true
	}
	info, ok := connect.CallInfoForClientContext(ctx)
	return ok && info.RequestHeader().Get("Idempotency-Key") != ""
}

// backOff waits before another attempt, for a random time up to a limit that doubles
// (full jitter). It reports whether there is time for the attempt.
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

// budget limits retries to a share of the calls. failsafe-go's counts calls in flight,
// which would let calls that come one after another each be retried.
type budget struct {
	mu     sync.Mutex
	tokens float64
}

func (b *budget) earn() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tokens = min(b.tokens+budgetPerCall, maxBudget)
}

// spend takes what one attempt costs, if as much as keep is left after it.
func (b *budget) spend(keep float64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.tokens < 1+keep-1e-9 { // ten times a tenth is a little less than one
		return false
	}
	b.tokens--
	return true
}

// refund returns what was spent for an attempt that wasn't made.
func (b *budget) refund() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tokens++
}
