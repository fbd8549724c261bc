package rpc

import (
	"context"
	"errors"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
)

const (
	breakerRate   = 0.5 // of the calls
	breakerCalls  = 20  // at least
	breakerWindow = 10 * time.Second
	breakerPause  = 5 * time.Second
)

// breaker keeps calls from a backend that gives no answer: once half of at least
// 20 calls in 10 s got none, none is made for 5 s, and then one, which tells
// whether there is an answer again. A connection that is refused is no such call.
type breaker struct {
	circuit circuitbreaker.CircuitBreaker[any]
}

func newBreaker() breaker {
	return breaker{circuitbreaker.NewBuilder[any]().
		WithFailureRateThreshold(breakerRate, breakerCalls, breakerWindow).
		WithDelay(breakerPause).WithSuccessThreshold(1).Build()}
}

// enter asks for leave to call, and tells whether the call is the one that
// finds out. Who got leave must say by leave how it went.
func (b breaker) enter() (probe, ok bool) {
	if !b.circuit.TryAcquirePermit() {
		return false, false
	}
	return b.circuit.IsHalfOpen(), true
}

func (b breaker) leave(probe bool, how outcome) {
	switch {
	case !probe && !b.circuit.IsClosed(): // begun before it opened: old news
	case how == outcomeAnswer:
		b.circuit.RecordSuccess()
	case how == outcomeSilence:
		b.circuit.RecordFailure()
	case probe: // it found nothing out: let another
		b.circuit.Open()
		b.circuit.HalfOpen()
	}
}

// outcome is what a call tells of its backend.
type outcome int

const (
	outcomeAnswer  outcome = iota // be it a refusal
	outcomeSilence                // no answer
	outcomeUnknown                // its caller left or gave it too little time, or it wasn't sent
)

func outcomeOf(ctx context.Context, err error) outcome {
	if err == nil {
		return outcomeAnswer
	}
	if failed, ok := errors.AsType[*dialError](err); ok && !failed.deaf {
		// Refused at once: to ask costs nobody anything, and the first call
		// after it listens again should be answered.
		return outcomeUnknown
	}
	failure, ok := errors.AsType[*connect.Error](err)
	switch {
	case !ok, errors.Is(ctx.Err(), context.Canceled):
		return outcomeUnknown
	case failure.Code() == connect.CodeDeadlineExceeded && callersTime(ctx):
		return outcomeUnknown
	case failure.Code() == connect.CodeUnavailable, failure.Code() == connect.CodeDeadlineExceeded:
		return outcomeSilence
	case failure.IsRemote(), failure.Code() == connect.CodeResourceExhausted: // larger than we read
		return outcomeAnswer
	default:
		return outcomeSilence // or one that can't be read
	}
}

// callersTime reports whether a call to a backend had all the time that our own
// caller gave us, rather than a limit of ours.
func callersTime(ctx context.Context) bool {
	call := CallFrom(ctx)
	deadline, ok := ctx.Deadline()
	return ok && call.CallersDeadline && !deadline.Add(hopMargin).Before(call.deadline)
}
