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
	case isUnstorable(err):
		return errUnstorable.WithCause(err)
	default:
		return fault.ErrInternal.WithCause(err)
	}
}

var errUnstorable = fault.New(connect.CodeInvalidArgument, fault.ReasonInvalid, "A text contains the character U+0000. Leave it out.")

// isUnstorable reports whether Postgres refused U+0000 in a text
// (character_not_in_repertoire) or in JSON (untranslatable_character).
func isUnstorable(err error) bool {
	refusal, ok := errors.AsType[interface {
		error
		SQLState() string
	}](err)
	return ok && (refusal.SQLState() == "22021" || refusal.SQLState() == "22P05")
}

// CodeOf returns the code that a caller of this server receives when a method returns
// err.
func CodeOf(ctx context.Context, err error) connect.Code { return publicError(ctx, err).Code() }

// isContextError reports whether err is a context error, or an error with the same
// meaning that this server created.
func isContextError(err error, code connect.Code, bare error) bool {
	failure, ok := errors.AsType[*connect.Error](err)
	if ok {
		return failure.Code() == code && !failure.IsRemote()
	}
	return errors.Is(err, bare)
}

// violationsError returns the public error for violations of validation rules.
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

// BodyRefusal is the read error of a request's body that the server refuses to read. The
// caller receives Err.
type BodyRefusal struct{ Err *connect.Error }

func (r BodyRefusal) Error() string { return r.Err.Error() }

// decodeErrorStream maps errors of reading the request to public errors. It does so where
// the request is read, because later the same code may come from another service.
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
		// The body exceeds the server's limit, which is the caller's mistake.
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

// malformedError returns the public error for an error of the decoder. The decoder's text
// has the position and, in JSON, the field and sometimes the value. The value may be a
// password, so the public error ends before it.
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

// fieldOf returns the field and its problem from a text such as "invalid value for string
// field email: 5" or "unknown field \"hat\""; "" if the text names no field.
func fieldOf(text string) (field, problem string) {
	for about, problem := range map[string]string{"unknown field ": "is unknown", "duplicate field ": "occurs more than once"} {
		if quoted, ok := strings.CutPrefix(text, about); ok {
			name, err := strconv.Unquote(quoted)
			if err != nil || !fieldForm.MatchString(name) { // it may contain a secret
				return "", ""
			}
			return name, problem
		}
	}
	rest, ok := strings.CutPrefix(text, "invalid value for ")
	kind, rest, found := strings.Cut(rest, " field ")
	if !ok || !found || strings.Contains(kind, " ") { // the rest may be part of the value
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
