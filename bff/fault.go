package bff

import (
	"context"
	"errors"
	"time"

	"connectrpc.com/connect/v2"

	"gatehouse/internal/fault"
	"gatehouse/internal/rpc"
)

// deadlineSlack is how near a caller's deadline must be for a part's time-out
// to be the caller's doing: each hop keeps 10 ms of it.
const deadlineSlack = 25 * time.Millisecond

// fromBackend turns what a service failed with into what our caller may see. It
// is the one place that does. What a service worded for the caller passes; no
// answer at all is unavailable; whatever else is internal. ctx is the call's,
// not the part's, so that a part's own limit isn't taken for the caller's.
func fromBackend(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return context.Canceled
	}
	failure, ok := errors.AsType[*connect.Error](err)
	switch {
	case !ok && errors.Is(err, context.DeadlineExceeded), ok && failure.Code() == connect.CodeDeadlineExceeded:
		if deadline, ok := ctx.Deadline(); ok && rpc.CallFrom(ctx).CallersDeadline && time.Until(deadline) <= deadlineSlack {
			return fault.ErrDeadline.WithCause(err)
		}
		return fault.Unavailable().WithCause(err)
	case !ok:
		return fault.ErrInternal.WithCause(err)
	case !failure.IsRemote() && fault.Reason(failure) != "":
		return failure // of our own making
	case !failure.IsRemote():
		return fault.Unavailable().WithCause(err) // no answer that could be read
	case failure.Code() == connect.CodeUnavailable, failure.Code() == connect.CodeCanceled:
		return fault.Unavailable().WithCause(err)
	case forCallers(failure):
		worded := connect.NewError(failure.Code(), failure.Message())
		for _, detail := range failure.Details() {
			worded = worded.WithDetail(detail)
		}
		return worded
	default:
		return fault.ErrInternal.WithCause(err)
	}
}

// forCallers reports whether a service's error is meant for the gateway's caller,
// rather than for the gateway.
func forCallers(failure *connect.Error) bool {
	switch failure.Code() {
	case connect.CodeInternal, connect.CodeUnknown, connect.CodeDataLoss, connect.CodeUnimplemented:
		return false
	}
	switch fault.Reason(failure) {
	case "", fault.ReasonInternalToken, fault.ReasonPermissionDenied, fault.ReasonMalformed, fault.ReasonTooLarge:
		return false
	}
	return true
}
