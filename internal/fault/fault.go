package fault

import (
	"errors"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectproto"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Domain is the domain of every ErrorInfo of ours.
const Domain = "gatehouse"

// Reasons that more than one service gives.
const (
	ReasonInternal         = "INTERNAL"
	ReasonInvalid          = "INVALID_ARGUMENT"
	ReasonMalformed        = "MALFORMED_REQUEST"
	ReasonTooLarge         = "REQUEST_TOO_LARGE"
	ReasonDeadline         = "DEADLINE_EXCEEDED"
	ReasonCanceled         = "CANCELED"
	ReasonUnavailable      = "SERVICE_UNAVAILABLE"
	ReasonUnknownMethod    = "METHOD_UNKNOWN"
	ReasonPermissionDenied = "PERMISSION_DENIED"
	ReasonInternalToken    = "INTERNAL_TOKEN_INVALID"
	ReasonOverloaded       = "OVERLOADED"
	ReasonAttributes       = "ATTRIBUTES_INVALID"
	ReasonProvider         = "PROVIDER_UNAVAILABLE" // a system of others, not the service that says so
)

// NewError returns an error with a code, a reason in UPPER_SNAKE that programs
// may match, and a sentence that tells the caller what to do. Nothing else
// about it reaches the caller; attach a cause for the log with WithCause.
func New(code connect.Code, reason, message string) *connect.Error {
	return WithDetail(connect.NewError(code, message), &errdetails.ErrorInfo{Reason: reason, Domain: Domain})
}

// WithRetry says after how long the caller may try again.
func WithRetry(err *connect.Error, after time.Duration) *connect.Error {
	return WithDetail(err, &errdetails.RetryInfo{RetryDelay: durationpb.New(after)})
}

// Invalid returns an invalid_argument error about one field, named as in the
// schema.
func Invalid(reason, field, fault string) *connect.Error {
	return WithDetail(New(connect.CodeInvalidArgument, reason, field+": "+fault), &errdetails.BadRequest{
		FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: field, Description: fault, Reason: reason}},
	})
}

func WithDetail(err *connect.Error, message proto.Message) *connect.Error {
	detail, failure := connectproto.NewErrorDetail(message)
	if failure != nil {
		return err.WithCause(failure)
	}
	return err.WithDetail(detail)
}

// Reason returns the reason that an error of this system carries, or "".
func Reason(err error) string {
	if info, ok := detailOf[*errdetails.ErrorInfo](err); ok && info.GetDomain() == Domain {
		return info.GetReason()
	}
	return ""
}

// RetryDelay returns after how long the error says that one may try again, and
// whether it says so.
func RetryDelay(err error) (time.Duration, bool) {
	info, ok := detailOf[*errdetails.RetryInfo](err)
	return info.GetRetryDelay().AsDuration(), ok
}

// detailOf returns the first detail of the wanted type.
func detailOf[M proto.Message](err error) (M, bool) {
	var none M
	failure, ok := errors.AsType[*connect.Error](err)
	if !ok || failure == nil {
		return none, false
	}
	want := string(none.ProtoReflect().Descriptor().FullName())
	for _, detail := range failure.Details() {
		if detail.Type != want {
			continue
		}
		if message, err := connectproto.UnmarshalErrorDetail(detail); err == nil {
			if found, ok := message.(M); ok {
				return found, true
			}
		}
	}
	return none, false
}

// A caller receives ErrInternal for a fault of the server, and ErrDeadline when its own
// deadline has passed.
var (
	ErrInternal = New(connect.CodeInternal, ReasonInternal, "Something went wrong on our side. Tell the operator the request id.")
	ErrDeadline = New(connect.CodeDeadlineExceeded, ReasonDeadline, "The time for this call ran out. Give it more time or try again.")
)

// Unavailable says that a part of the system gives no answer just now.
func Unavailable() *connect.Error { return UnavailableFor(time.Second) }

// UnavailableFor is Unavailable with another pause before the next attempt.
func UnavailableFor(pause time.Duration) *connect.Error {
	return WithRetry(New(connect.CodeUnavailable, ReasonUnavailable, "A part of the service is not available just now. Try again in a moment."), pause)
}
