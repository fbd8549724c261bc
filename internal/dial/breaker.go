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
	// fastRefusal is the time within which an unavailable response shows that the endpoint
	// is alive. A later one counts as silence.
	fastRefusal = time.Second
)

// breaker is a circuit breaker. It opens once half of at least 20 calls in 10 s got no
// answer; after half a second it lets one probe through, which closes it or opens it
// again. A refused connection does not count, nor does a quick refusal by an endpoint
// that is alive.
type breaker struct {
	circuit circuitbreaker.CircuitBreaker[any]
}

// newBreaker returns a closed breaker. It logs and counts when it opens and when it closes,
// but not failed probes.
func newBreaker(service, endpoint string, logger *slog.Logger) breaker {
	label := endpointLabel(service, endpoint)
	report := func(opened, open int64) {
		breakerOpenings.Add(context.Background(), opened, label)
		breakersOpen.Record(context.Background(), open, label)
	}
	report(0, 0) // export 0 before the first event
	return breaker{circuitbreaker.NewBuilder[any]().
		WithFailureRateThreshold(breakerThreshold, breakerMinCalls, breakerWindow).
		WithDelay(breakerDelay).WithSuccessThreshold(1).
		OnStateChanged(func(change circuitbreaker.StateChangedEvent) {
			switch {
			case change.OldState == circuitbreaker.ClosedState:
				report(1, 1)
				logger.Warn("circuit breaker opened", "service", service, "endpoint", endpoint, "pause", breakerDelay.String())
			case change.NewState == circuitbreaker.ClosedState:
				report(0, 0)
				logger.Info("circuit breaker closed", "service", service, "endpoint", endpoint)
			}
		}).Build()}
}

var (
	breakerMeter = otel.Meter(telemetry.Scope)

	breakerOpenings, _ = breakerMeter.Int64Counter("gatehouse.rpc.breaker.openings", metric.WithUnit("{opening}"),
		metric.WithDescription("How often the circuit breaker of an endpoint opened, because it answered less than half of its calls."))
	breakersOpen, _ = breakerMeter.Int64Gauge("gatehouse.rpc.breaker.open",
		metric.WithDescription("1 while the circuit breaker of an endpoint is open: the endpoint receives only a probe twice a second; else 0."))
)

// enter asks for permission to call, and reports whether the call is the probe. Every
// call that got permission must report its outcome with leave.
func (b breaker) enter() (probe, ok bool) {
	if !b.circuit.TryAcquirePermit() {
		return false, false
	}
	return b.circuit.IsHalfOpen(), true
}

// isOpen reports whether the endpoint receives only probes.
func (b breaker) isOpen() bool { return !b.circuit.IsClosed() }

// wantsProbe reports whether it is open and its pause is over.
func (b breaker) wantsProbe() bool {
	return b.circuit.IsOpen() && b.circuit.RemainingDelay() <= 0 || b.circuit.IsHalfOpen()
}

func (b breaker) leave(probe bool, how outcome) {
	switch {
	case !probe && !b.circuit.IsClosed(): // it began before the breaker opened
	case how == outcomeAnswer:
		b.circuit.RecordSuccess()
	case how == outcomeSilence:
		b.circuit.RecordFailure()
	case probe: // inconclusive: admit another probe
		b.circuit.Open()
		b.circuit.HalfOpen()
	}
}

// outcome is what a call shows about its endpoint.
type outcome int

const (
	outcomeAnswer  outcome = iota // an answer, even an error
	outcomeSilence                // no answer
	outcomeUnknown                // cancelled, too little time, or not sent
)

// outcomeOf returns the outcome of an attempt from its error and duration.
func outcomeOf(ctx context.Context, err error, took time.Duration) outcome {
	if err == nil {
		return outcomeAnswer
	}
	if failed, ok := errors.AsType[*dialError](err); ok && !failed.timedOut {
		// The connection was refused immediately. Attempts are cheap, and the first call
		// after the endpoint listens again should succeed.
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
		return outcomeSilence // or an unreadable answer
	}
}

// hadCallersTime reports whether the deadline of a call came from our caller, not from a
// limit of this process.
func hadCallersTime(ctx context.Context) bool {
	call := rpc.CallFrom(ctx)
	deadline, ok := ctx.Deadline()
	return ok && call.CallersDeadline && !deadline.Add(deadlineMargin).Before(call.Deadline)
}
