package rpc

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"connectrpc.com/connect/v2"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"gatehouse/internal/fault"
)

// publicError turns the error of a method into the one that the caller sees: a code, a
// reason and a sentence. An error that was not written for the caller becomes the
// cause, for the log only.
func publicError(ctx context.Context, err error) *connect.Error {
	if failure, ok := errors.AsType[*connect.Error](err); ok && !failure.IsRemote() {
		switch {
		case fault.Reason(failure) != "":
			return failure
		case failure.Code() == connect.CodeUnimplemented:
			return fault.New(connect.CodeUnimplemented, fault.ReasonUnknownMethod, "There is no such method.").WithCause(err)
		}
	}
	switch {
	case isContextError(err, connect.CodeDeadlineExceeded, context.DeadlineExceeded) && CallFrom(ctx).OurLimit:
		return fault.Unavailable().WithCause(err)
	case isContextError(err, connect.CodeDeadlineExceeded, context.DeadlineExceeded):
		return fault.ErrDeadline.WithCause(err)
	case isContextError(err, connect.CodeCanceled, context.Canceled):
		return fault.New(connect.CodeCanceled, fault.ReasonCanceled, "The caller cancelled this call.").WithCause(err)
	case ctx.Err() == nil && CallFrom(ctx).isUnavailable(err):
		return fault.Unavailable().WithCause(err)
	default:
		return fault.ErrInternal.WithCause(err)
	}
}

// CodeOf returns the code with which a call of this server answers its caller
// when its method returns err.
func CodeOf(ctx context.Context, err error) connect.Code { return publicError(ctx, err).Code() }

// isContextError reports whether err is a context's error, bare or as a code of this
// server's own.
func isContextError(err error, code connect.Code, bare error) bool {
	failure, ok := errors.AsType[*connect.Error](err)
	if ok {
		return failure.Code() == code && !failure.IsRemote()
	}
	return errors.Is(err, bare)
}

// violationsError returns the error for what the validator found.
func violationsError(violations *validate.Violations) *connect.Error {
	bad := &errdetails.BadRequest{}
	var faults []string
	for _, violation := range violations.GetViolations() {
		field := fieldPath(violation.GetField())
		bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{
			Field: field, Description: violation.GetMessage(), Reason: fault.ReasonInvalid,
		})
		faults = append(faults, strings.TrimPrefix(field+": ", ": ")+violation.GetMessage())
	}
	return fault.WithDetail(fault.New(connect.CodeInvalidArgument, fault.ReasonInvalid, strings.Join(faults, "; ")), bad)
}

var errTooSlow = fault.New(connect.CodeDeadlineExceeded, "REQUEST_TOO_SLOW", "The request's body didn't arrive in time. Send it without pauses.")

// BodyRefusal is the error of a request's body that is not read. Its caller gets
// Err.
type BodyRefusal struct{ Err *connect.Error }

func (r BodyRefusal) Error() string { return r.Err.Error() }

// decodeErrorStream gives errors of reading the request their public form where the
// request is read: later, the same code could be about the answer of another service.
type decodeErrorStream struct{ connect.ServerStream }

func (s decodeErrorStream) Receive(message any) error {
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
		return fault.New(connect.CodeResourceExhausted, fault.ReasonTooLarge, "The request is too large: send at most 1 MiB.").WithCause(err)
	}
	return malformedError(failure)
}

// malformedError returns the error for what the decoder found. The decoder's text
// names the place and, in JSON, the field and sometimes the value. A value may be a
// password: only what comes before it is kept.
func malformedError(failure *connect.Error) *connect.Error {
	text := strings.TrimPrefix(failure.Message(), "unmarshal message: ")
	text = strings.TrimSpace(strings.TrimPrefix(strings.ReplaceAll(text, "\u00a0", " "), "proto:"))
	message := "The request could not be read"
	if place, rest, ok := strings.Cut(text, "): "); ok && strings.Contains(place, "(line ") {
		message += " at " + place[strings.Index(place, "(line ")+1:]
		text = rest
	}
	if field, problem := fieldOf(text); field != "" {
		return fault.WithDetail(fault.New(connect.CodeInvalidArgument, fault.ReasonMalformed, message+": "+field+" "+problem+"."), &errdetails.BadRequest{
			FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: field, Description: problem, Reason: fault.ReasonMalformed}},
		}).WithCause(failure)
	}
	if strings.Contains(text, "UTF-8") {
		message += ": it holds invalid UTF-8"
	}
	return fault.New(connect.CodeInvalidArgument, fault.ReasonMalformed, message+". Send a valid message of this method.").WithCause(failure)
}

// fieldOf finds the field in "invalid value for string field email: 5" and in "unknown
// field \"hat\"", and what is wrong with it; "" where none is named.
func fieldOf(text string) (field, problem string) {
	for about, problem := range map[string]string{"unknown field ": "is unknown", "duplicate field ": "is given more than once"} {
		if quoted, ok := strings.CutPrefix(text, about); ok {
			name, err := strconv.Unquote(quoted)
			if err != nil || !fieldForm.MatchString(name) { // who knows what was sent there
				return "", ""
			}
			return name, problem
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

// isNetworkError reports whether the other side of a connection could not be reached
// or was lost.
func isNetworkError(err error) bool {
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}
