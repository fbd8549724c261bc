package openapi

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
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
	reasons     []string // that its comment names
	reads       bool     // it has no side effects
	idempotent  bool
	signsIn     bool // its answer holds tokens
}

func (d *document) addService(service protoreflect.Descriptor) {
	name := d.names.of(service)
	d.tag(name, commentOf(service))
	d.tag(name+" over Connect", "The same methods over Connect: `POST` with the whole request as JSON, "+
		"or as binary with `Content-Type: application/proto`. What has no side effects can be had by `GET` too. gRPC and gRPC-Web go to the same paths.")
}

func (d *document) addMethod(described Method) (err error) {
	descriptor := described.Policy.Descriptor
	if descriptor.IsStreamingClient() || descriptor.IsStreamingServer() {
		return errors.New("streams can't be described")
	}
	m := &method{MethodDescriptor: descriptor, policy: described.Policy, signsIn: holdsTokens(descriptor.Output())}
	level := descriptor.Options().(*descriptorpb.MethodOptions).GetIdempotencyLevel()
	m.reads = level == descriptorpb.MethodOptions_NO_SIDE_EFFECTS
	m.idempotent = level != descriptorpb.MethodOptions_IDEMPOTENCY_UNKNOWN
	if m.description, m.reasons, err = splitErrors(commentOf(descriptor), d.declared); err != nil {
		return fmt.Errorf("its comment: %w", err)
	}
	if err := d.addREST(m); err != nil {
		return err
	}
	return d.addConnect(m)
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
	example, err := d.schemas.requestExample(m.Input(), nil)
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
		{"content", object{{"application/json", object{{"schema", request}, {"example", example}}}}},
	}
	get, err := d.operation(m, connectGet, []any{message, d.parameter("encoding"), d.parameter("connect"), d.parameter("Connect-Timeout-Ms")}, nil)
	if err != nil {
		return err
	}
	d.addOperation(path, "get", get)
	return nil
}

// braced matches a path parameter of google.api.http.
var braced = regexp.MustCompile(`\{([a-z_.]+)\}`)

func (d *document) addREST(m *method) error {
	rule := httpRule(m)
	verb, path := verbOf(rule)
	if verb == "" || len(rule.GetAdditionalBindings()) > 0 || rule.GetResponseBody() != "" {
		return errors.New("its google.api.http has to give one path, and the whole answer")
	}
	// The other fields of a message with a field in the path are in the body.
	var parameters []any
	elsewhere := map[protoreflect.Name]bool{}
	for _, match := range braced.FindAllStringSubmatch(path, -1) {
		field, err := fieldAt(m.Input(), match[1])
		if err != nil {
			return err
		}
		elsewhere[field.Name()] = elsewhere[field.Name()] || !strings.Contains(match[1], ".")
		parameter, err := d.fieldParameter(field, strings.ReplaceAll(match[1], ".", "_"), "path")
		if err != nil {
			return err
		}
		parameters = append(parameters, parameter)
	}
	path = braced.ReplaceAllStringFunc(path, func(name string) string { return strings.ReplaceAll(name, ".", "_") })
	given, err := d.restBody(m, rule.GetBody(), elsewhere)
	if err != nil {
		return err
	}
	if rule.GetBody() != "*" {
		for i := range m.Input().Fields().Len() {
			field := m.Input().Fields().Get(i)
			if elsewhere[field.Name()] || string(field.Name()) == rule.GetBody() {
				continue
			}
			parameter, err := d.fieldParameter(field, field.JSONName(), "query")
			if err != nil {
				return err
			}
			parameters = append(parameters, parameter)
		}
	}
	operation, err := d.operation(m, rest, parameters, given)
	if err != nil {
		return err
	}
	d.addOperation(path, verb, operation)
	return nil
}

func httpRule(m *method) *annotations.HttpRule {
	rule, _ := proto.GetExtension(m.Options(), annotations.E_Http).(*annotations.HttpRule)
	return rule
}

func verbPath(m *method) string {
	_, path := verbOf(httpRule(m))
	return path
}

func verbOf(rule *annotations.HttpRule) (verb, path string) {
	switch pattern := rule.GetPattern().(type) {
	case *annotations.HttpRule_Get:
		return "get", pattern.Get
	case *annotations.HttpRule_Post:
		return "post", pattern.Post
	case *annotations.HttpRule_Patch:
		return "patch", pattern.Patch
	case *annotations.HttpRule_Put:
		return "put", pattern.Put
	case *annotations.HttpRule_Delete:
		return "delete", pattern.Delete
	}
	return "", ""
}

func fieldAt(message protoreflect.MessageDescriptor, path string) (field protoreflect.FieldDescriptor, err error) {
	for name := range strings.SplitSeq(path, ".") {
		if message == nil || message.Fields().ByName(protoreflect.Name(name)) == nil {
			return nil, fmt.Errorf("there is no field %s", path)
		}
		field = message.Fields().ByName(protoreflect.Name(name))
		message = field.Message()
	}
	return field, nil
}

// body returns the request body.
type body struct {
	schema, example object
	required        bool
}

// restBody returns the part of the request in the body; nil for none.
func (d *document) restBody(m *method, rule string, elsewhere map[protoreflect.Name]bool) (*body, error) {
	switch rule {
	case "":
		return nil, nil
	case "*":
		schema, err := d.schemas.object(m.Input(), elsewhere)
		if err != nil {
			return nil, err
		}
		if schema.get("properties") == nil {
			return &body{schema: object{{"type", "object"}}, example: object{}}, nil
		}
		example, err := d.schemas.requestExample(m.Input(), elsewhere)
		if err != nil {
			return nil, err
		}
		if len(elsewhere) == 0 {
			schema, err = d.schemas.ref(m.Input())
		} else {
			name := string(m.Name()) + "Body"
			d.schemas.named[name] = schema
			schema = schemaRef(name)
		}
		return &body{schema: schema, example: example, required: true}, err
	}
	field, err := fieldAt(m.Input(), rule)
	if err != nil {
		return nil, err
	}
	// Rules on fields in the path don't apply to the body.
	schema, err := d.schemas.ref(field.Message())
	if err != nil {
		return nil, err
	}
	example, err := d.schemas.requestExample(field.Message(), nil)
	return &body{schema: schema, example: example, required: true}, err
}

// fieldParameter returns the parameter for a field in the path or the query.
func (d *document) fieldParameter(field protoreflect.FieldDescriptor, name, in string) (object, error) {
	if field.Message() != nil && !isText(field) {
		return nil, fmt.Errorf("%s can't be given in a %s", field.FullName(), in)
	}
	schema, needed, err := d.schemas.field(field)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", field.FullName(), err)
	}
	example, err := scalarExample(field)
	if err != nil {
		return nil, err
	}
	parameter := object{{"name", name}, {"in", in}, {"description", schema.get("description")}}
	if needed || in == "path" {
		parameter.set("required", true)
	}
	parameter.set("schema", schema.without("description", "examples", "readOnly"))
	if in == "path" { // what an example of a query asks for may not be there
		parameter.set("example", example)
	}
	return parameter, nil
}

func (d *document) operation(m *method, how surface, parameters []any, given *body) (object, error) {
	name := string(m.Name())
	id, tag := strings.ToLower(name[:1])+name[1:], d.names.of(m.Parent())
	switch how {
	case connectPost:
		id, tag = "connect"+name, tag+" over Connect"
	case connectGet:
		id, tag = "connectGet"+name, tag+" over Connect"
	}
	operation := object{
		{"operationId", id}, {"tags", []string{tag}}, {"summary", words(name)},
		{"description", m.description + "\n\n" + sentences(m.policy)},
		{"security", securityOf(m)},
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
			{"content", object{{"application/json", object{{"schema", given.schema}, {"example", given.example}}}}},
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

// securityOf returns the accepted credentials: for a method that anyone may call,
// none, or the cookie with the refresh token if the method takes one.
func securityOf(m *method) []object {
	switch {
	case personal(m.policy):
		return []object{{{"accessToken", []string{}}}, {{"sessionCookie", []string{}}}}
	case m.Input().Fields().ByName("refresh_token") != nil:
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
	text := commentOf(m.Output())
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
		{"content", object{{"application/json", object{{"schema", schema}, {"example", example}}}}},
	}, nil
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
