package gatehouse

import (
	"errors"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectproto"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
)

// Reason returns why a call failed, for programs, such as EMAIL_TAKEN. It is empty if
// the error is not Gatehouse's, such as a proxy's. docs/reference/errors.md lists them.
func Reason(err error) string {
	for _, info := range details[*errdetails.ErrorInfo](err) {
		if info.GetDomain() == "gatehouse" {
			return info.GetReason()
		}
	}
	return ""
}

// FieldViolation is what is wrong with one field of a request.
type FieldViolation struct {
	Field       string // as in the schema, such as "user.first_name"
	Description string // text for people
	Reason      string // such as PASSWORD_TOO_SHORT, or empty
}

// FieldViolations returns the invalid fields of a call that failed with
// invalid_argument.
func FieldViolations(err error) []FieldViolation {
	var all []FieldViolation
	for _, request := range details[*errdetails.BadRequest](err) {
		for _, v := range request.GetFieldViolations() {
			all = append(all, FieldViolation{Field: v.GetField(), Description: v.GetDescription(), Reason: v.GetReason()})
		}
	}
	return all
}

// RetryDelay returns how long to wait before a retry, if the gateway says so.
func RetryDelay(err error) (time.Duration, bool) {
	for _, info := range details[*errdetails.RetryInfo](err) {
		return info.GetRetryDelay().AsDuration(), true
	}
	return 0, false
}

// details returns the details of one type that an error carries.
func details[T any](err error) []T {
	failure, ok := errors.AsType[*connect.Error](err)
	if !ok {
		return nil
	}
	var found []T
	for _, detail := range failure.Details() {
		message, err := connectproto.UnmarshalErrorDetail(detail)
		if err != nil {
			continue // of a type that this program does not know
		}
		if typed, ok := message.(T); ok {
			found = append(found, typed)
		}
	}
	return found
}
