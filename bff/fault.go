package bff

import (
	"context"
	"errors"
	"time"

	"connectrpc.com/connect/v2"

	"gatehouse/internal/fault"
	"gatehouse/internal/rpc"
)

// deadlineSlack is the tolerance with which a timeout counts as the caller's deadline.
// Each hop shortens the deadline by 10 ms.
const deadlineSlack = 25 * time.Millisecond

// fromBackend maps the error of a service to the public error; no other function does.
// It passes on an error that the service meant for the caller, returns unavailable if
// there was no response, and internal for anything else. ctx is the context of the call,
// not of the part, so that the part's own time limit does not count as the caller's
// deadline.
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
		return failure // the gateway created it
	case !failure.IsRemote():
		return fault.Unavailable().WithCause(err) // no readable response
	case failure.Code() == connect.CodeUnavailable && fault.Reason(failure) != fault.ReasonProvider, failure.Code() == connect.CodeCanceled:
		return fault.Unavailable().WithCause(err)
	case forCallers(failure):
		public := connect.NewError(failure.Code(), failure.Message())
		for _, detail := range failure.Details() {
			public = public.WithDetail(detail)
		}
		return public
	default:
		return fault.ErrInternal.WithCause(err)
	}
}

// forCallers reports whether a service's error is for the gateway's caller, not for the
// gateway.
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
