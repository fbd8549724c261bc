package openapi

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"gatehouse/internal/policy"
)

// surface is a protocol by which a method is called.
type surface int

const (
	rest surface = iota
	connectPost
	connectGet
)

// method is a method with its description, policy and reasons.
type method struct {
	protoreflect.MethodDescriptor
	policy      *policy.Method
	description string
	name        string
	reasons     []string // that its comment names
	reads       bool     // it has no side effects
	idempotent  bool
	signsIn     bool // its answer holds tokens
}

func (d *document) addService(service protoreflect.Descriptor) {
	name := d.of(service)
	d.tag(name, cmp.Or(commentOf(service), "The methods of "+name+"."))
	d.tag(name+" over Connect", "The same methods over Connect: `POST` with the whole request as JSON, "+
		"or as binary with `Content-Type: application/proto`. What has no side effects can be had by `GET` too. gRPC and gRPC-Web go to the same paths.")
}

func (d *document) addMethod(described Method) (err error) {
	descriptor := described.Policy.Descriptor
	m := &method{MethodDescriptor: descriptor, policy: described.Policy}
	m.name = string(m.Name())
	if !d.isShort(m) {
		m.name = d.of(m.Parent()) + "." + m.name
	}
	m.signsIn = d.isShort(m) && holdsTokens(descriptor.Output())
	level := descriptor.Options().(*descriptorpb.MethodOptions).GetIdempotencyLevel()
	m.reads = level == descriptorpb.MethodOptions_NO_SIDE_EFFECTS
	m.idempotent = level != descriptorpb.MethodOptions_IDEMPOTENCY_UNKNOWN
	if m.description, m.reasons, err = d.describe(m, described.Reasons); err != nil {
		return fmt.Errorf("its comment: %w", err)
	}
	m.reasons = append(m.reasons, described.Always...)
	if descriptor.IsStreamingClient() || descriptor.IsStreamingServer() {
		return d.addStream(m)
	}
	if err := d.addREST(m); err != nil {
		return err
	}
	return d.addConnect(m)
}

// describe returns a method's description, and the reasons of its errors.
func (d *document) describe(m *method, further []string) (text string, reasons []string, err error) {
	comment := commentOf(m)
	if !d.lenient {
		return splitErrors(comment, d.declared)
	}
	text, named := errorsOf(comment)
	for _, one := range named {
		if _, ok := d.declared[one.Reason]; !ok && slices.Contains(further, one.Reason) {
			d.declared[one.Reason] = one
		}
		if known, ok := d.declared[one.Reason]; ok && known.Code == one.Code && !slices.Contains(reasons, one.Reason) {
			reasons = append(reasons, one.Reason)
		}
	}
	return cmp.Or(text, words(string(m.Name()))+"."), reasons, nil
}

func holdsTokens(message protoreflect.MessageDescriptor) bool {
	for i := range message.Fields().Len() {
		if inner := message.Fields().Get(i).Message(); inner != nil && (inner.Name() == "Tokens" || inner.Name() == "SignedIn") {
			return true
		}
	}
	return false
}

func (d *document) addConnect(m *method) error {
	path := "/" + string(m.Parent().FullName()) + "/" + string(m.Name())
	request, err := d.schemas.ref(m.Input())
	if err != nil {
		return err
	}
	example, err := d.schemas.request(m)
	if err != nil {
		return err
	}
	post, err := d.operation(m, connectPost, []any{d.parameter("Connect-Protocol-Version"), d.parameter("Connect-Timeout-Ms")}, &body{schema: request, example: example, required: true})
	if err != nil {
		return err
	}
	d.addOperation(path, "post", post)
	if !m.reads {
		return nil
	}
	message := object{
		{"name", "message"}, {"in", "query"}, {"required", true}, {"description", "The request as JSON."},
		{"content", object{{"application/json", media(request, example)}}},
	}
	get, err := d.operation(m, connectGet, []any{message, d.parameter("encoding"), d.parameter("connect"), d.parameter("Connect-Timeout-Ms")}, nil)
	if err != nil {
		return err
	}
	d.addOperation(path, "get", get)
	return nil
}

func (d *document) operation(m *method, how surface, parameters []any, given *body) (object, error) {
	id, tag := m.operationID(how), d.of(m.Parent())
	if how != rest {
		tag += " over Connect"
	}
	operation := object{
		{"operationId", id}, {"tags", []string{tag}}, {"summary", words(string(m.Name()))},
		{"description", m.description + "\n\n" + sentences(m.policy)},
		{"security", d.securityOf(m)},
	}
	if m.policy.IdempotencyKey {
		parameters = append(parameters, d.parameter("Idempotency-Key"))
	}
	if m.signsIn {
		parameters = append(parameters, d.parameter("X-Gatehouse-Session"))
	}
	if m.reads && how != connectPost {
		parameters = append(parameters, d.parameter("If-None-Match"))
	}
	if len(parameters) > 0 {
		operation.set("parameters", parameters)
	}
	if given != nil {
		operation.set("requestBody", object{
			{"required", given.required},
			{"content", object{{"application/json", media(given.schema, given.example)}}},
		})
	}
	responses, err := d.responses(m, how, given != nil)
	if err != nil {
		return nil, err
	}
	operation.set("responses", responses)
	operation.set("x-gatehouse-policy", policyExtension(m.policy))
	return operation, nil
}

// operationID returns the id of one of a method's operations.
func (m *method) operationID(how surface) string {
	simple := string(m.Name())
	if m.name == simple {
		return map[surface]string{rest: strings.ToLower(simple[:1]) + simple[1:], connectPost: "connect" + simple, connectGet: "connectGet" + simple}[how]
	}
	return map[surface]string{rest: "", connectPost: "connect.", connectGet: "connectGet."}[how] + m.name
}

// media describes a message with its example, if there is one.
func media(schema object, example any) object {
	described := object{{"schema", schema}}
	if example != nil {
		described.set("example", example)
	}
	return described
}

// securityOf returns the accepted credentials: for a method that anyone may call,
// none, or the cookie with the refresh token if the method takes one.
func (d *document) securityOf(m *method) []object {
	switch {
	case personal(m.policy):
		accepted := []object{{{"accessToken", []string{}}}, {{"sessionCookie", []string{}}}}
		if len(m.policy.Scopes) > 0 {
			accepted = append(accepted, object{{"apiKey", []string{}}})
		}
		return accepted
	case d.isShort(m) && m.Input().Fields().ByName("refresh_token") != nil:
		return []object{{}, {{"refreshCookie", []string{}}}}
	}
	return []object{}
}

func (d *document) responses(m *method, how surface, hasBody bool) (object, error) {
	responses, err := d.successes(m, how)
	if err != nil {
		return nil, err
	}
	if m.reads && how != connectPost {
		responses.set(strconv.Itoa(http.StatusNotModified), object{
			{"description", "Not modified since the response that If-None-Match names."},
			{"headers", object{{"ETag", d.header("ETag")}, {"X-Request-Id", d.header("X-Request-Id")}}},
		})
	}
	failures, err := d.failures(m, how, hasBody)
	if err != nil {
		return nil, err
	}
	for _, one := range failures {
		responses.set(strconv.Itoa(one.status), one)
	}
	return responses, nil
}

func (d *document) successes(m *method, how surface) (object, error) {
	verb, _ := verbOf(httpRule(m))
	text := d.outputText(m)
	switch {
	case how == rest && verb == "delete":
		return object{{strconv.Itoa(http.StatusNoContent), object{{"description", text}, {"headers", d.successHeaders(m, how)}}}}, nil
	case how == rest && m.policy.Created != nil:
		return d.created(m, text)
	}
	success, err := d.success(m, how, text, false)
	return object{{strconv.Itoa(http.StatusOK), success}}, err
}

// created returns the success responses of a method that creates something: 202 if
// the creation may be pending.
func (d *document) created(m *method, text string) (object, error) {
	made, err := d.success(m, rest, text, false)
	if err != nil {
		return nil, err
	}
	headers := made.get("headers").(object)
	headers.set("Location", d.header("Location"))
	for i := range made {
		if made[i].name == "headers" {
			made[i].value = headers
		}
	}
	answers := object{{strconv.Itoa(http.StatusCreated), made}}
	for _, match := range braced.FindAllStringSubmatch(m.policy.Created.String(), -1) {
		first, _, _ := strings.Cut(match[1], ".")
		field := m.Output().Fields().ByName(protoreflect.Name(first))
		if field == nil {
			return nil, fmt.Errorf("what it makes has no field %s", match[1])
		}
		if field.ContainingOneof() != nil {
			pending, err := d.success(m, rest, text+" Nothing is made yet.", true)
			if err != nil {
				return nil, err
			}
			answers.set(strconv.Itoa(http.StatusAccepted), pending)
		}
	}
	return answers, nil
}

func (d *document) success(m *method, how surface, text string, last bool) (object, error) {
	schema, err := d.schemas.ref(m.Output())
	if err != nil {
		return nil, err
	}
	example, err := d.schemas.responseExample(m.Output(), last)
	if err != nil {
		return nil, err
	}
	return object{
		{"description", text}, {"headers", d.successHeaders(m, how)},
		{"content", object{{"application/json", media(schema, example)}}},
	}, nil
}

func (d *document) outputText(m *method) string {
	return cmp.Or(commentOf(m.Output()), "The response of "+words(string(m.Name()))+".")
}

func (d *document) successHeaders(m *method, how surface) object {
	names := []string{"X-Request-Id"}
	if m.policy.Rate != nil {
		names = append(names, "RateLimit", "RateLimit-Policy")
	}
	if m.reads && how != connectPost {
		names = append(names, "ETag", "Cache-Control")
	}
	if m.signsIn {
		names = append(names, "Set-Cookie")
	}
	headers := object{}
	for _, name := range names {
		headers.set(name, d.header(name))
	}
	return headers
}
