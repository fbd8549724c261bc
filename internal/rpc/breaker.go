package rpc

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"gatehouse/internal/telemetry"
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

// newBreaker returns one that tells operators, by the service's name, when it
// opens and when it closes. That a probe failed is no more news.
func newBreaker(service string, logger *slog.Logger) breaker {
	label := metric.WithAttributeSet(attribute.NewSet(attribute.String("service", service)))
	tell := func(opened, open int64) {
		breakerOpenings.Add(context.Background(), opened, label)
		breakersOpen.Record(context.Background(), open, label)
	}
	tell(0, 0) // so that they are there before the first
	return breaker{circuitbreaker.NewBuilder[any]().
		WithFailureRateThreshold(breakerRate, breakerCalls, breakerWindow).
		WithDelay(breakerPause).WithSuccessThreshold(1).
		OnStateChanged(func(change circuitbreaker.StateChangedEvent) {
			switch {
			case change.OldState == circuitbreaker.ClosedState:
				tell(1, 1)
				logger.Warn("a service gave no answer to half of its calls: it isn't asked for a moment", "peer", service, "pause", breakerPause.String())
			case change.NewState == circuitbreaker.ClosedState:
				tell(0, 0)
				logger.Info("a service answers again", "peer", service)
			}
		}).Build()}
}

var (
	breakerMeter = otel.Meter(telemetry.Scope)

	breakerOpenings, _ = breakerMeter.Int64Counter("gatehouse.rpc.breaker.openings", metric.WithUnit("{opening}"),
		metric.WithDescription("How often a service gave so few answers that it wasn't asked for a moment."))
	breakersOpen, _ = breakerMeter.Int64Gauge("gatehouse.rpc.breaker.open",
		metric.WithDescription("1 while a service isn't asked, but for a call now and then that finds out whether it answers again."))
)

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
