package dial

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"

	"gatehouse/internal/fault"
	"gatehouse/internal/rpc"
	"gatehouse/internal/telemetry"
)

const (
	breakerThreshold = 0.5 // of the calls
	breakerMinCalls  = 20  // at least
	breakerWindow    = 10 * time.Second
	breakerDelay     = 500 * time.Millisecond
	// fastRefusal is how soon an endpoint that is alive says that it can't serve;
	// later is as good as silence.
	fastRefusal = time.Second
)

// breaker is a circuit breaker. It opens once half of at least 20 calls in 10 s got no
// answer; after half a second it lets one probe through, which closes it or opens it
// again. A refused connection does not count, nor does a quick refusal by an endpoint
// that is alive.
type breaker struct {
	circuit circuitbreaker.CircuitBreaker[any]
}

// newBreaker returns a breaker that is closed. It logs and counts when it opens
// and when it closes; a probe that failed is not worth a line.
func newBreaker(service, endpoint string, logger *slog.Logger) breaker {
	label := endpointLabel(service, endpoint)
	tell := func(opened, open int64) {
		breakerOpenings.Add(context.Background(), opened, label)
		breakersOpen.Record(context.Background(), open, label)
	}
	tell(0, 0) // so that they are there before the first
	return breaker{circuitbreaker.NewBuilder[any]().
		WithFailureRateThreshold(breakerThreshold, breakerMinCalls, breakerWindow).
		WithDelay(breakerDelay).WithSuccessThreshold(1).
		OnStateChanged(func(change circuitbreaker.StateChangedEvent) {
			switch {
			case change.OldState == circuitbreaker.ClosedState:
				tell(1, 1)
				logger.Warn("circuit breaker opened", "service", service, "endpoint", endpoint, "pause", breakerDelay.String())
			case change.NewState == circuitbreaker.ClosedState:
				tell(0, 0)
				logger.Info("circuit breaker closed", "service", service, "endpoint", endpoint)
			}
		}).Build()}
}

var (
	breakerMeter = otel.Meter(telemetry.Scope)

	breakerOpenings, _ = breakerMeter.Int64Counter("gatehouse.rpc.breaker.openings", metric.WithUnit("{opening}"),
		metric.WithDescription("How often the circuit breaker of an endpoint opened, because it answered less than half of its calls."))
	breakersOpen, _ = breakerMeter.Int64Gauge("gatehouse.rpc.breaker.open",
		metric.WithDescription("1 while the circuit breaker of an endpoint is open: it gets no call but a probe twice a second."))
)

// enter asks for permission to call, and reports whether the call is the probe. Every
// call that got permission must report its outcome with leave.
func (b breaker) enter() (probe, ok bool) {
	if !b.circuit.TryAcquirePermit() {
		return false, false
	}
	return b.circuit.IsHalfOpen(), true
}

// isOpen reports whether the endpoint gets no call but a probe.
func (b breaker) isOpen() bool { return !b.circuit.IsClosed() }

// wantsProbe reports whether it is open and its pause is over.
func (b breaker) wantsProbe() bool {
	return b.circuit.IsOpen() && b.circuit.RemainingDelay() <= 0 || b.circuit.IsHalfOpen()
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

// outcomeOf says what an attempt that took so long tells of its endpoint.
func outcomeOf(ctx context.Context, err error, took time.Duration) outcome {
	if err == nil {
		return outcomeAnswer
	}
	if failed, ok := errors.AsType[*dialError](err); ok && !failed.timedOut {
		// Refused at once: to ask costs nobody anything, and the first call
		// after it listens again should be answered.
		return outcomeUnknown
	}
	failure, ok := errors.AsType[*connect.Error](err)
	switch {
	case context.Cause(ctx) == errAttemptTimeout:
		return outcomeSilence
	case !ok, errors.Is(ctx.Err(), context.Canceled):
		return outcomeUnknown
	case failure.Code() == connect.CodeDeadlineExceeded && hadCallersTime(ctx):
		return outcomeUnknown
	case failure.Code() == connect.CodeUnavailable && failure.IsRemote() && fault.Reason(failure) != "" && took < fastRefusal:
		return outcomeAnswer
	case failure.Code() == connect.CodeUnavailable, failure.Code() == connect.CodeDeadlineExceeded:
		return outcomeSilence
	case failure.IsRemote(), failure.Code() == connect.CodeResourceExhausted: // larger than we read
		return outcomeAnswer
	default:
		return outcomeSilence // or one that can't be read
	}
}

// hadCallersTime reports whether a call had all the time that our own caller gave us,
// rather than a limit of ours.
func hadCallersTime(ctx context.Context) bool {
	call := rpc.CallFrom(ctx)
	deadline, ok := ctx.Deadline()
	return ok && call.CallersDeadline && !deadline.Add(deadlineMargin).Before(call.Deadline)
}
