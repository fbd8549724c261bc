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
	// fastRefusal is the time within which an "unavailable" response shows that the endpoint
	// is alive. A later one counts as no response.
	fastRefusal = time.Second
)

// breaker is a circuit breaker. It opens once half of at least 20 calls in 10 s got no
// response. After half a second it becomes half-open and admits one probe, which closes or
// reopens it. Refused connections do not count, and neither do fast "unavailable" responses.
type breaker struct {
	circuit circuitbreaker.CircuitBreaker[any]
}

// newBreaker returns a closed breaker, which logs and measures its openings and closings,
// but not failed probes.
func newBreaker(service, endpoint string, logger *slog.Logger) breaker {
	label := endpointLabel(service, endpoint)
	report := func(opened, open int64) {
		breakerOpenings.Add(context.Background(), opened, label)
		breakersOpen.Record(context.Background(), open, label)
	}
	report(0, 0) // creates the time series
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

// enter reports whether a call is admitted, and whether it is the probe. The caller must
// report the outcome of an admitted call with leave.
func (b breaker) enter() (probe, ok bool) {
	if !b.circuit.TryAcquirePermit() {
		return false, false
	}
	return b.circuit.IsHalfOpen(), true
}

// isOpen reports whether the endpoint receives only probes.
func (b breaker) isOpen() bool { return !b.circuit.IsClosed() }

// wantsProbe reports whether the breaker admits a probe.
func (b breaker) wantsProbe() bool {
	return b.circuit.IsOpen() && b.circuit.RemainingDelay() <= 0 || b.circuit.IsHalfOpen()
}

func (b breaker) leave(probe bool, how outcome) {
	switch {
	case !probe && !b.circuit.IsClosed(): // started before the breaker opened
	case how == outcomeResponse:
		b.circuit.RecordSuccess()
	case how == outcomeNoResponse:
		b.circuit.RecordFailure()
	case probe: // inconclusive: admit the next call as the probe
		b.circuit.Open()
		b.circuit.HalfOpen()
	}
}

// outcome is the result of an attempt, for the health of its endpoint.
type outcome int

const (
	outcomeResponse   outcome = iota // a response, which may be an error
	outcomeNoResponse                // timeout or lost connection
	outcomeUnknown                   // cancelled, too short a deadline, or not sent
)

// outcomeOf returns the outcome of an attempt from its error and duration.
func outcomeOf(ctx context.Context, err error, took time.Duration) outcome {
	if err == nil {
		return outcomeResponse
	}
	if failed, ok := errors.AsType[*dialError](err); ok && !failed.timedOut {
		// The connection was refused. Such attempts are cheap, and without an open breaker
		// the first call after a restart of the endpoint succeeds.
		return outcomeUnknown
	}
	failure, ok := errors.AsType[*connect.Error](err)
	switch {
	case context.Cause(ctx) == errAttemptTimeout:
		return outcomeNoResponse
	case !ok, errors.Is(ctx.Err(), context.Canceled):
		return outcomeUnknown
	case failure.Code() == connect.CodeDeadlineExceeded && usesCallersDeadline(ctx):
		return outcomeUnknown
	case failure.IsRemote() && fault.Reason(failure) == fault.ReasonProvider:
		return outcomeResponse // the endpoint works, and waited for another system
	case failure.Code() == connect.CodeUnavailable && failure.IsRemote() && fault.Reason(failure) != "" && took < fastRefusal:
		return outcomeResponse
	case failure.Code() == connect.CodeUnavailable, failure.Code() == connect.CodeDeadlineExceeded:
		return outcomeNoResponse
	case failure.IsRemote(), failure.Code() == connect.CodeResourceExhausted: // the response exceeds our limit
		return outcomeResponse
	default:
		return outcomeNoResponse // or not a valid response
	}
}

// usesCallersDeadline reports whether the deadline of a call came from the caller of this
// process, not from a limit of this process.
func usesCallersDeadline(ctx context.Context) bool {
	call := rpc.CallFrom(ctx)
	deadline, ok := ctx.Deadline()
	return ok && call.CallersDeadline && !deadline.Add(deadlineMargin).Before(call.Deadline)
}
