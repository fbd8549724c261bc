package openapi

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	policyv1 "gatehouse/gen/policy/v1"
)

// httpStatuses are the statuses of errors found before the call, for which HTTP has
// a more precise status than that of their code.
var httpStatuses = map[string]int{
	"CONTENT_TYPE_UNSUPPORTED": http.StatusUnsupportedMediaType,
	"HTTP_METHOD_UNSUPPORTED":  http.StatusMethodNotAllowed,
}

// anywhere are the reasons that belong to no operation: there is no operation, or
// the caller is gone.
var anywhere = []string{"CANCELED", "HTTP_METHOD_UNSUPPORTED", "METHOD_UNKNOWN"}

// derivedReasons returns the reasons that follow from the method's policy and the
// surface, in addition to those in its comment.
func derivedReasons(m *method, how surface, hasBody bool) []string {
	reasons := []string{
		"CROSS_ORIGIN", "TOO_MANY_REQUESTS", "INTERNAL", "SERVICE_UNAVAILABLE", "OVERLOADED", "DEADLINE_EXCEEDED",
	}
	add := func(when bool, more ...string) {
		if when {
			reasons = append(reasons, more...)
		}
	}
	add(m.Input().Fields().Len() > 0, "INVALID_ARGUMENT")
	add(how == rest || hasBody, "MALFORMED_REQUEST")
	add(how == rest && strings.Contains(verbPath(m), "{"), "PATH_UNKNOWN") // for what no path can hold
	add(hasBody, "CONTENT_TYPE_UNSUPPORTED", "REQUEST_TOO_LARGE", "REQUEST_TOO_SLOW", "TOO_MANY_UNFINISHED_REQUESTS", "COMPRESSION_UNSUPPORTED")
	add(how == connectGet, "MALFORMED_REQUEST", "QUERY_INVALID", "BODY_UNEXPECTED", "COMPRESSION_UNSUPPORTED", "TIMEOUT_INVALID")
	add(how == connectPost, "TIMEOUT_INVALID", "PROTOCOL_VERSION_UNSUPPORTED")
	add(personal(m.policy), "TOKEN_MISSING", "TOKEN_INVALID", "TOKEN_EXPIRED", "TOKEN_STALE", "SESSION_ENDED")
	add(personal(m.policy), "KEY_INVALID", "KEY_EXPIRED", "KEY_NETWORK", "SCOPE_REQUIRED")
	// The gateway refreshes a session in cookies during the call.
	add(personal(m.policy), "REFRESH_TOKEN_INVALID", "REFRESH_TOKEN_REUSED")
	add(byRole(m.policy), "PERMISSION_DENIED")
	add(m.policy.RecentSignIn, "REAUTHENTICATION_REQUIRED")
	add(personal(m.policy) && m.policy.Assurance != policyv1.Assurance_ASSURANCE_ONE, "SECOND_FACTOR_REQUIRED")
	add(m.policy.Rate != nil, "RATE_LIMITED")
	add(m.signsIn, "COOKIES_NEED_HTTPS", "COOKIES_CROSS_SITE")
	if m.policy.IdempotencyKey {
		reasons = append(reasons, "IDEMPOTENCY_KEY_INVALID")
		if !m.idempotent { // else the work itself tells a repetition
			reasons = append(reasons, "IDEMPOTENCY_KEY_REUSED", "REQUEST_IN_PROGRESS", "IDEMPOTENCY_TARGET_GONE")
			// A replayed response signs in, as Login does.
			add(m.signsIn, "CREDENTIALS_INVALID", "ACCOUNT_DISABLED", "TOO_MANY_ATTEMPTS", "TOO_MANY_PASSWORD_CHECKS")
		}
	}
	return reasons
}

// answer is an error response of operations, with one status. Operations with equal
// errors share it.
type answer struct {
	status  int
	reasons []string
	rated   bool
	content object
	uses    int
	name    string // among the components, if it is shared
}

// object returns the response, or a reference to it if it is shared.
func (a *answer) object() object {
	if a.name != "" {
		return object{{"$ref", "#/components/responses/" + a.name}}
	}
	return a.content
}

// failures returns the error responses for the reasons, by status.
func (d *document) failures(m *method, how surface, hasBody bool) ([]*answer, error) {
	byStatus := map[int][]string{}
	for _, reason := range slices.Concat(m.reasons, derivedReasons(m, how, hasBody)) {
		declared, ok := d.declared[reason]
		if !ok {
			return nil, fmt.Errorf("%s isn't declared anywhere in the source", reason)
		}
		d.used[reason] = true
		status := d.statusOf(declared)
		if how == rest && reason == "REQUEST_TOO_LARGE" {
			status = http.StatusRequestEntityTooLarge
		}
		if !slices.Contains(byStatus[status], reason) {
			byStatus[status] = append(byStatus[status], reason)
		}
	}
	// Headers beyond the limit are not read.
	byStatus[http.StatusRequestHeaderFieldsTooLarge] = []string{"REQUEST_TOO_LARGE"}
	d.used["REQUEST_TOO_LARGE"] = true
	var failures []*answer
	for _, status := range slices.Sorted(maps.Keys(byStatus)) {
		failures = append(failures, d.failure(status, byStatus[status], m.policy.Rate != nil))
	}
	return failures, nil
}

func (d *document) statusOf(declared Error) int {
	return cmp.Or(httpStatuses[declared.Reason], statuses[declared.Code])
}

func (d *document) failure(status int, reasons []string, rated bool) *answer {
	slices.Sort(reasons)
	rated = rated && status == http.StatusTooManyRequests
	key := fmt.Sprint(status, reasons, rated)
	if known, ok := d.failed[key]; ok {
		known.uses++
		return known
	}
	lines, codes, shown, retry := []string{}, []string{}, object{}, false
	for _, reason := range reasons {
		declared := d.declared[reason]
		lines = append(lines, d.errorLine(reason))
		shown.set(reason, object{{"$ref", "#/components/examples/" + reason}})
		retry = retry || retries(declared)
		if !slices.Contains(codes, declared.Code) {
			codes = append(codes, declared.Code)
		}
	}
	slices.Sort(codes)
	headers := object{{"X-Request-Id", d.header("X-Request-Id")}}
	if retry {
		headers.set("Retry-After", d.header("Retry-After"))
	}
	if rated {
		headers.set("RateLimit", d.header("RateLimit"))
		headers.set("RateLimit-Policy", d.header("RateLimit-Policy"))
	}
	if status == http.StatusUnauthorized {
		headers.set("WWW-Authenticate", d.header("WWW-Authenticate"))
	}
	if status == http.StatusUnsupportedMediaType {
		headers.set("Accept-Post", d.header("Accept-Post"))
	}
	made := &answer{status: status, reasons: reasons, rated: rated, uses: 1}
	made.content = object{
		{"description", fmt.Sprintf("`%s`, for one of these reasons:\n\n%s", strings.Join(codes, "`, `"), strings.Join(lines, "\n"))},
		{"headers", headers},
		{"content", object{{"application/json", object{
			{"schema", object{{"allOf", []object{schemaRef("Error"), {{"properties", object{{"code", object{{"enum", codes}}}}}}}}}},
			{"examples", shown},
		}}}},
		{"x-gatehouse-reasons", reasons},
	}
	d.failed[key] = made
	return made
}

// errorLine describes a reason in a list.
func (d *document) errorLine(reason string) string {
	return fmt.Sprintf("- `%s`: %s", reason, cmp.Or(described[reason], d.message(d.declared[reason])))
}

// share names the error responses that several operations have, and returns them.
func (d *document) share() object {
	shared := object{}
	count := map[int]int{}
	for _, key := range slices.Sorted(maps.Keys(d.failed)) {
		one := d.failed[key]
		if one.uses < 2 {
			continue
		}
		name := strings.ReplaceAll(http.StatusText(one.status), " ", "")
		if d.lenient {
			name = "Upstream" + name
		}
		if count[one.status]++; count[one.status] > 1 {
			name += fmt.Sprint(count[one.status])
		}
		one.name = name
		shared.set(name, one.content)
	}
	slices.SortFunc(shared, func(a, b member) int { return strings.Compare(a.name, b.name) })
	return shared
}

// composedMessages are examples of messages that are composed at run time.
var composedMessages = map[string]string{
	"INVALID_ARGUMENT":   "email: must be a valid email address",
	"MALFORMED_REQUEST":  "The request could not be read. Send a valid message of this method.",
	"PERMISSION_DENIED":  "You need another role for this. Ask an administrator.",
	"PASSWORD_TOO_SHORT": "password: give it at least 8 characters",
	"PASSWORD_TOO_LONG":  "password: give it at most 128 characters",
}

// described explains reasons that have several messages.
var described = map[string]string{
	"INVALID_ARGUMENT":  "A field is invalid; the details say which.",
	"PERMISSION_DENIED": "The caller lacks the role, or the account is another person's.",
	"REQUEST_TOO_LARGE": "A request may have 1 MiB and 200 headers.",
}

func (d *document) message(declared Error) string {
	if text, ok := composedMessages[declared.Reason]; ok {
		return text
	}
	field := declared.Field
	if strings.HasPrefix(declared.Reason, "PASSWORD_") && declared.Code == "invalid_argument" && field == "" && declared.Reason != "PASSWORD_WRONG" {
		field = "password"
	}
	if field == "" {
		return declared.Message
	}
	return field + ": " + declared.Message
}

// retries reports whether an error carries a delay before a retry.
func retries(declared Error) bool {
	return declared.Retry || declared.Reason == "RATE_LIMITED"
}

// errorExample returns an error in its wire form.
func (d *document) errorExample(declared Error) (object, error) {
	message := d.message(declared)
	details := []proto.Message{&errdetails.ErrorInfo{Reason: declared.Reason, Domain: "gatehouse"}}
	if field, fault, ok := strings.Cut(message, ": "); ok && declared.Code == "invalid_argument" {
		details = append(details, &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
			{Field: field, Description: fault, Reason: declared.Reason},
		}})
	}
	if retries(declared) {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(time.Second)})
	}
	var list []object
	for _, detail := range details {
		value, err := proto.MarshalOptions{Deterministic: true}.Marshal(detail)
		if err != nil {
			return nil, err
		}
		readable, err := protojson.Marshal(detail)
		if err != nil {
			return nil, err
		}
		var debug any // its white space varies
		if err := json.Unmarshal(readable, &debug); err != nil {
			return nil, err
		}
		list = append(list, object{
			{"type", string(detail.ProtoReflect().Descriptor().FullName())},
			{"value", base64.RawStdEncoding.EncodeToString(value)},
			{"debug", debug},
		})
	}
	return object{{"code", declared.Code}, {"message", message}, {"details", list}}, nil
}
