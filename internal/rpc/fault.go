package rpc

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectproto"
	"github.com/jackc/pgx/v5/pgconn"
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
)

// NewError returns an error with a code, a reason in UPPER_SNAKE that programs
// may match, and a sentence that tells the caller what to do. Nothing else
// about it reaches the caller; attach a cause for the log with WithCause.
func NewError(code connect.Code, reason, message string) *connect.Error {
	return withDetail(connect.NewError(code, message), &errdetails.ErrorInfo{Reason: reason, Domain: Domain})
}

// WithRetry says after how long the caller may try again.
func WithRetry(err *connect.Error, after time.Duration) *connect.Error {
	return withDetail(err, &errdetails.RetryInfo{RetryDelay: durationpb.New(after)})
}

// Invalid returns an invalid_argument error about one field, named as in the
// schema.
func Invalid(reason, field, fault string) *connect.Error {
	return withDetail(NewError(connect.CodeInvalidArgument, reason, field+": "+fault), &errdetails.BadRequest{
		FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: field, Description: fault, Reason: reason}},
	})
}

func withDetail(err *connect.Error, message proto.Message) *connect.Error {
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

// published turns what a method returned into the one error that its caller
// sees: a code, a reason, a sentence. What isn't written for the caller becomes
// the cause, for the log alone.
func published(ctx context.Context, err error) *connect.Error {
	if failure, ok := errors.AsType[*connect.Error](err); ok && !failure.IsRemote() {
		switch {
		case Reason(failure) != "":
			return failure
		case failure.Code() == connect.CodeUnimplemented:
			return NewError(connect.CodeUnimplemented, ReasonUnknownMethod, "There is no such method.").WithCause(err)
		}
	}
	switch {
	case is(err, connect.CodeDeadlineExceeded, context.DeadlineExceeded) && CallFrom(ctx).OurLimit:
		return Unavailable().WithCause(err)
	case is(err, connect.CodeDeadlineExceeded, context.DeadlineExceeded):
		return ErrDeadline.WithCause(err)
	case is(err, connect.CodeCanceled, context.Canceled):
		return NewError(connect.CodeCanceled, ReasonCanceled, "The caller cancelled this call.").WithCause(err)
	case ctx.Err() == nil && storeIsAway(err):
		return Unavailable().WithCause(err)
	default:
		return ErrInternal.WithCause(err)
	}
}

// CodeOf returns the code with which a call of this server answers its caller
// when its method returns err.
func CodeOf(ctx context.Context, err error) connect.Code { return published(ctx, err).Code() }

// is reports whether err is a context's error, bare or as a code of our own.
func is(err error, code connect.Code, bare error) bool {
	failure, ok := errors.AsType[*connect.Error](err)
	if ok {
		return failure.Code() == code && !failure.IsRemote()
	}
	return errors.Is(err, bare)
}

// What a caller is told of a fault of ours, and of their own deadline.
var (
	ErrInternal = NewError(connect.CodeInternal, ReasonInternal, "Something went wrong on our side. Tell the operator the request id.")
	ErrDeadline = NewError(connect.CodeDeadlineExceeded, ReasonDeadline, "The time for this call ran out. Give it more time or try again.")
)

// Unavailable says that a part of the system gives no answer just now.
func Unavailable() *connect.Error {
	return WithRetry(NewError(connect.CodeUnavailable, ReasonUnavailable, "A part of the service is not available just now. Try again in a moment."), time.Second)
}

// invalid words what the validator finds.
func invalid(violations *validate.Violations) *connect.Error {
	bad := &errdetails.BadRequest{}
	var faults []string
	for _, violation := range violations.GetViolations() {
		field := fieldPath(violation.GetField())
		bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{
			Field: field, Description: violation.GetMessage(), Reason: ReasonInvalid,
		})
		faults = append(faults, strings.TrimPrefix(field+": ", ": ")+violation.GetMessage())
	}
	return withDetail(NewError(connect.CodeInvalidArgument, ReasonInvalid, strings.Join(faults, "; ")), bad)
}

var errTooSlow = NewError(connect.CodeDeadlineExceeded, "REQUEST_TOO_SLOW", "The request's body didn't arrive in time. Send it without pauses.")

// BodyRefusal is the error of a request's body that is not read. Its caller gets
// Err.
type BodyRefusal struct{ Err *connect.Error }

func (r BodyRefusal) Error() string { return r.Err.Error() }

// readable is a stream that words what is wrong with a request where it is
// read: later, the same code could be about an answer of another service.
type readable struct{ connect.ServerStream }

func (s readable) Receive(message any) error {
	err := s.ServerStream.Receive(message)
	if refused, ok := errors.AsType[BodyRefusal](err); ok {
		return refused.Err
	}
	failure, ok := errors.AsType[*connect.Error](err)
	if !ok || errors.Is(err, io.EOF) {
		return err
	}
	switch failure.Code() {
	case connect.CodeDeadlineExceeded:
		// The server's limit for the body, which is no fault of ours.
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return errTooSlow.WithCause(err)
		}
		return err
	case connect.CodeCanceled:
		return err
	case connect.CodeResourceExhausted:
		return NewError(connect.CodeResourceExhausted, ReasonTooLarge, "The request is too large: send at most 1 MiB.").WithCause(err)
	}
	return malformed(failure)
}

// malformed words what the decoder finds. Its text names the place and, in
// JSON, the field and sometimes the value. A value may be a password: only what
// comes before it is kept.
func malformed(failure *connect.Error) *connect.Error {
	text := strings.TrimPrefix(failure.Message(), "unmarshal message: ")
	text = strings.TrimSpace(strings.TrimPrefix(strings.ReplaceAll(text, "\u00a0", " "), "proto:"))
	message := "The request could not be read"
	if place, rest, ok := strings.Cut(text, "): "); ok && strings.Contains(place, "(line ") {
		message += " at " + place[strings.Index(place, "(line ")+1:]
		text = rest
	}
	if field, fault := namedField(text); field != "" {
		return withDetail(NewError(connect.CodeInvalidArgument, ReasonMalformed, message+": "+field+" "+fault+"."), &errdetails.BadRequest{
			FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: field, Description: fault, Reason: ReasonMalformed}},
		}).WithCause(failure)
	}
	if strings.Contains(text, "UTF-8") {
		message += ": it holds invalid UTF-8"
	}
	return NewError(connect.CodeInvalidArgument, ReasonMalformed, message+". Send a valid message of this method.").WithCause(failure)
}

// namedField finds the field in "invalid value for string field email: 5" and in
// "unknown field \"hat\"", and what is wrong with it; "" where none is named.
func namedField(text string) (field, fault string) {
	for about, fault := range map[string]string{"unknown field ": "is unknown", "duplicate field ": "is given more than once"} {
		if quoted, ok := strings.CutPrefix(text, about); ok {
			name, err := strconv.Unquote(quoted)
			if err != nil || !fieldForm.MatchString(name) { // who knows what was sent there
				return "", ""
			}
			return name, fault
		}
	}
	rest, ok := strings.CutPrefix(text, "invalid value for ")
	kind, rest, found := strings.Cut(rest, " field ")
	if !ok || !found || strings.Contains(kind, " ") { // what follows may be of the value
		return "", ""
	}
	field, _, ok = strings.Cut(rest, ":")
	if !ok {
		return "", ""
	}
	return field, "has a value of the wrong type"
}

var fieldForm = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.]{0,63}$`)

func fieldPath(path *validate.FieldPath) string {
	var names []string
	for _, element := range path.GetElements() {
		names = append(names, element.GetFieldName())
	}
	return strings.Join(names, ".")
}

// storeIsAway reports whether Postgres could not be asked, as against having
// answered with a refusal.
func storeIsAway(err error) bool {
	if refusal, ok := errors.AsType[*pgconn.PgError](err); ok {
		// Connection lost, too many connections, shutting down; read-only, as a
		// standby is that isn't promoted yet.
		// What Postgres undid, for another try: a serialization failure, a deadlock,
		// a prepared statement that is no longer what it was. A lock that wasn't free
		// in time; a transaction that was ended because its owner fell silent.
		if refusal.Code == "0A000" && refusal.Routine == "RevalidateCachedQuery" {
			return true
		}
		return slices.ContainsFunc([]string{"08", "26000", "40", "42P05", "53", "57", "25006", "25P03", "55P03"}, func(class string) bool {
			return strings.HasPrefix(refusal.Code, class)
		})
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return true
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || pgconn.SafeToRetry(err)
}
