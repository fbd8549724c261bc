package passthrough

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectproto"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"gatehouse/internal/fault"
	"gatehouse/internal/rpc"
)

const (
	// deadlineSlack is how near a caller's deadline must be for a time-out to be the
	// caller's doing.
	deadlineSlack = 25 * time.Millisecond
	// Bounds on what passes of an error whose reason is public.
	maxErrorText   = 1024
	maxDetails     = 16
	maxDetailBytes = 8 << 10
)

// refusals stand for the errors of upstreams whose own reason is not public, by code.
var refusals = map[connect.Code]*connect.Error{
	connect.CodeInvalidArgument:    fault.New(connect.CodeInvalidArgument, "UPSTREAM_INVALID_ARGUMENT", "The service does not accept this request. Check its fields."),
	connect.CodeNotFound:           fault.New(connect.CodeNotFound, "UPSTREAM_NOT_FOUND", "The service has nothing of that name. Check the request."),
	connect.CodeAlreadyExists:      fault.New(connect.CodeAlreadyExists, "UPSTREAM_ALREADY_EXISTS", "The service has one already. Choose another name or id."),
	connect.CodePermissionDenied:   fault.New(connect.CodePermissionDenied, "UPSTREAM_PERMISSION_DENIED", "The service does not let you do this. Ask for access."),
	connect.CodeResourceExhausted:  fault.New(connect.CodeResourceExhausted, "UPSTREAM_RESOURCE_EXHAUSTED", "The service has no room or time left for you. Try again later, or ask for less."),
	connect.CodeFailedPrecondition: fault.New(connect.CodeFailedPrecondition, "UPSTREAM_FAILED_PRECONDITION", "The service can't do this in its present state. Look it up again first."),
	connect.CodeAborted:            fault.New(connect.CodeAborted, "UPSTREAM_ABORTED", "Somebody else made a change at the same time. Look it up again, then retry."),
	connect.CodeOutOfRange:         fault.New(connect.CodeOutOfRange, "UPSTREAM_OUT_OF_RANGE", "The request goes beyond what there is. Ask for less."),
}

// Reasons returns the reasons of the errors that stand for an upstream's, sorted.
func Reasons() []string {
	var reasons []string
	for _, refusal := range refusals {
		reasons = append(reasons, fault.Reason(refusal))
	}
	slices.Sort(reasons)
	return reasons
}

var errMissing = fault.New(connect.CodeUnimplemented, fault.ReasonUnknownMethod, "The service does not have this method just now.")

// missingWarningInterval is the least time between two warnings about one method.
const missingWarningInterval = time.Minute

// warnMissing logs that an upstream lacks a method that is published.
func (m *passedMethod) warnMissing() {
	now, warned := time.Now().UnixNano(), m.warnedAt.Load()
	if time.Duration(now-warned) < missingWarningInterval || !m.warnedAt.CompareAndSwap(warned, now) {
		return
	}
	m.upstreams.config.Logger.Warn("upstream lacks a published method: deploy the version that has it, or renew its descriptors with gatehouse upstream add",
		"upstream", m.upstream.Name, "method", m.spec.Procedure)
}

// fault turns what an upstream's call failed with into what our caller may see. The
// cause, for the log, names the upstream.
func (m *passedMethod) fault(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return context.Canceled
	}
	failure, ok := errors.AsType[*connect.Error](err)
	switch {
	case !ok && errors.Is(err, context.DeadlineExceeded), ok && failure.Code() == connect.CodeDeadlineExceeded:
		if deadline, has := ctx.Deadline(); has && rpc.CallFrom(ctx).CallersDeadline && time.Until(deadline) <= deadlineSlack {
			return fault.ErrDeadline.WithCause(err)
		}
		return m.unavailable(err, "it took too long: give the method a longer time_limit, or make it faster")
	case !ok:
		return fault.ErrInternal.WithCause(fmt.Errorf("upstream %s: %w", m.upstream.Name, err))
	case !failure.IsRemote() && fault.Reason(failure) != "":
		return failure // of our own making
	case !failure.IsRemote():
		return m.unavailable(err, "it gave no answer that can be read: check that it runs, and its url, protocol, http and descriptors, with gatehouse upstream check")
	}
	return m.remote(failure)
}

func (m *passedMethod) unavailable(err error, hint string) error {
	return fault.Unavailable().WithCause(fmt.Errorf("upstream %s at %s: %w: %s", m.upstream.Name, m.upstream.URLs, err, hint))
}

// remote maps an error that the upstream sent.
func (m *passedMethod) remote(failure *connect.Error) error {
	if reason := m.publicReason(failure); reason != "" {
		return withReason(failure, reason)
	}
	switch code := failure.Code(); code {
	case connect.CodeUnavailable, connect.CodeCanceled:
		return m.unavailable(failure, "it says so itself")
	case connect.CodeUnauthenticated:
		return m.internal(failure, "it refuses the identity token: check the issuer, the audience and the keys that it verifies with, and its clock")
	case connect.CodeInternal, connect.CodeUnknown, connect.CodeDataLoss:
		return m.internal(failure, "see its own log")
	case connect.CodeUnimplemented:
		m.warnMissing()
		return errMissing.WithCause(failure)
	default:
		if refusal := refusals[code]; refusal != nil {
			return refusal.WithCause(failure)
		}
		return m.internal(failure, "it responded with an unknown code")
	}
}

func (m *passedMethod) internal(failure *connect.Error, hint string) error {
	return fault.ErrInternal.WithCause(fmt.Errorf("upstream %s: %w: %s", m.upstream.Name, failure, hint))
}

// publicReason returns the reason of an error if it may reach callers.
func (m *passedMethod) publicReason(failure *connect.Error) string {
	if len(m.upstream.Reasons) == 0 {
		return ""
	}
	for _, detail := range failure.Details() {
		if detail.Type != errorInfoType {
			continue
		}
		if message, err := connectproto.UnmarshalErrorDetail(detail); err == nil {
			if info, ok := message.(*errdetails.ErrorInfo); ok && slices.Contains(m.upstream.Reasons, info.GetReason()) {
				return info.GetReason()
			}
		}
	}
	return ""
}

const (
	errorInfoType = "google.rpc.ErrorInfo"
	debugInfoType = "google.rpc.DebugInfo"
)

// withReason passes an error on whose reason is public: its text and its details, other
// than stack traces.
func withReason(failure *connect.Error, reason string) error {
	public := fault.WithDetail(connect.NewError(failure.Code(), publicText(failure.Message())), &errdetails.ErrorInfo{Reason: reason, Domain: fault.Domain})
	details := 0
	for _, detail := range failure.Details() {
		if detail.Type == errorInfoType || detail.Type == debugInfoType || len(detail.Value) > maxDetailBytes {
			continue
		}
		if details++; details > maxDetails {
			break
		}
		public = public.WithDetail(&connect.ErrorDetail{Type: detail.Type, Value: detail.Value}) // without a form for people
	}
	return public.WithCause(failure)
}

// publicText is a text without what a terminal or a log would interpret.
func publicText(text string) string {
	text = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || unicode.IsControl(r) {
			return -1
		}
		return r
	}, text)
	for len(text) > maxErrorText {
		_, size := utf8.DecodeLastRuneInString(text)
		text = text[:len(text)-size]
	}
	if text == "" {
		return "The service does not do this. See the reason."
	}
	return text
}
