package bff

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"buf.build/go/protovalidate"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	policyv1 "gatehouse/gen/policy/v1"
	"gatehouse/internal/fault"
	"gatehouse/internal/policy"
)

// document is the OpenAPI document as tests look at it.
type document struct {
	Servers    []struct{ URL string }
	Paths      map[string]map[string]*operation
	Components struct {
		Responses  map[string]*response
		Parameters map[string]*parameter
	}
	Reasons map[string]struct {
		Code   string
		Status int
	} `json:"x-gatehouse-reasons"`

	compiler *jsonschema.Compiler
}

type operation struct {
	OperationID string
	Description string
	Security    []map[string][]string
	Parameters  []*parameter
	RequestBody *struct {
		Required bool
		Content  map[string]content
	}
	Responses map[string]*response
}

type parameter struct {
	Ref      string `json:"$ref"`
	Name, In string
	Required bool
	Example  any
	Content  map[string]content
}

type response struct {
	Ref     string `json:"$ref"`
	Headers map[string]any
	Content map[string]content
	Reasons []string `json:"x-gatehouse-reasons"`
}

type content struct{ Example json.RawMessage }

const documentURL = "https://gatehouse.example/openapi.json"

func openAPIFor(t testing.TB) *document {
	t.Helper()
	_, body := newHarness(t, options{}).get(t, "/openapi.json")
	text := []byte(body)
	d := &document{compiler: jsonschema.NewCompiler()}
	wantNoError(t, "read the document", json.Unmarshal(text, d))
	whole, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	wantNoError(t, "read the document", err)
	d.compiler.AssertFormat()
	wantNoError(t, "take the document", d.compiler.AddResource(documentURL, whole))
	for _, verbs := range d.Paths {
		for _, operation := range verbs {
			for status, one := range operation.Responses {
				if name, ok := strings.CutPrefix(one.Ref, "#/components/responses/"); ok {
					operation.Responses[status] = d.Components.Responses[name]
				}
			}
			for i, one := range operation.Parameters {
				if name, ok := strings.CutPrefix(one.Ref, "#/components/parameters/"); ok {
					operation.Parameters[i] = d.Components.Parameters[name]
				}
			}
		}
	}
	return d
}

// check holds a JSON against the schema at a place in the document.
func (d *document) check(t testing.TB, what string, text []byte, place ...string) {
	t.Helper()
	for i := range place {
		place[i] = strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D").Replace(place[i])
	}
	schema, err := d.compiler.Compile(documentURL + "#/" + strings.Join(place, "/"))
	wantNoError(t, what+": compile the schema", err)
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	wantNoError(t, what, err)
	if err := schema.Validate(value); err != nil {
		t.Errorf("%s: %s isn't valid: %v", what, text, err)
	}
}

// each calls f with each method's operations over Connect (POST) and REST.
func (d *document) each(t testing.TB, f func(plan *policy.Method, connectPath, restPath, verb string)) {
	t.Helper()
	for _, plan := range newHarness(t, options{}).gateway.rpc.Methods() {
		rule, _ := proto.GetExtension(plan.Descriptor.Options(), annotations.E_Http).(*annotations.HttpRule)
		path, verb := rule.GetGet()+rule.GetPost()+rule.GetPatch()+rule.GetDelete(), ""
		switch rule.GetPattern().(type) {
		case *annotations.HttpRule_Get:
			verb = "get"
		case *annotations.HttpRule_Post:
			verb = "post"
		case *annotations.HttpRule_Patch:
			verb = "patch"
		case *annotations.HttpRule_Delete:
			verb = "delete"
		}
		path = strings.ReplaceAll(path, "{user.id}", "{user_id}")
		if d.Paths[plan.Procedure]["post"] == nil || d.Paths[path][verb] == nil {
			t.Errorf("%s: got no operations at POST %s and %s %s", plan.Procedure, plan.Procedure, verb, path)
			continue
		}
		if plan.Streams() {
			continue // TestOpenAPIDescribesStreamsAsEvents
		}
		f(plan, plan.Procedure, path, verb)
	}
}

func TestOpenAPIExamplesOfRequestsAreAccepted(t *testing.T) {
	t.Parallel()
	d := openAPIFor(t)
	d.each(t, func(plan *policy.Method, connectPath, restPath, verb string) {
		example := d.Paths[connectPath]["post"].RequestBody.Content["application/json"].Example
		d.check(t, connectPath, example, "paths", connectPath, "post", "requestBody", "content", "application/json", "schema")
		wantAccepted(t, connectPath, plan, example)
		if get := d.Paths[connectPath]["get"]; get != nil {
			example := get.Parameters[0].Content["application/json"].Example
			d.check(t, connectPath, example, "paths", connectPath, "get", "parameters", "0", "content", "application/json", "schema")
			wantAccepted(t, "GET "+connectPath, plan, example)
		}
		what := verb + " " + restPath
		request := map[string]any{}
		if body := d.Paths[restPath][verb].RequestBody; body != nil {
			example := body.Content["application/json"].Example
			d.check(t, what, example, "paths", restPath, verb, "requestBody", "content", "application/json", "schema")
			wantNoError(t, what, json.Unmarshal(example, &request))
			rule, _ := proto.GetExtension(plan.Descriptor.Options(), annotations.E_Http).(*annotations.HttpRule)
			if rule.GetBody() != "*" {
				request = map[string]any{rule.GetBody(): request}
			}
		}
		for _, parameter := range d.Paths[restPath][verb].Parameters {
			if parameter.In != "path" {
				continue
			}
			if user, ok := request["user"].(map[string]any); ok {
				user["id"] = parameter.Example
				continue
			}
			request[parameter.Name] = parameter.Example
		}
		whole, err := json.Marshal(request)
		wantNoError(t, what, err)
		wantAccepted(t, what, plan, whole)
	})
}

// wantAccepted wants a request to be one of the method's, and valid.
func wantAccepted(t testing.TB, what string, plan *policy.Method, text []byte) {
	t.Helper()
	request := newMessage(t, plan.Descriptor.Input())
	if err := protojson.Unmarshal(text, request); err != nil {
		t.Errorf("%s: %s: %v", what, text, err)
		return
	}
	if err := protovalidate.Validate(request); err != nil {
		t.Errorf("%s: %s isn't valid: %v", what, text, err)
	}
}

func newMessage(t testing.TB, schema protoreflect.MessageDescriptor) proto.Message {
	t.Helper()
	kind, err := protoregistry.GlobalTypes.FindMessageByName(schema.FullName())
	wantNoError(t, "find a message", err)
	return kind.New().Interface()
}

func TestOpenAPIExamplesOfAnswersAreValid(t *testing.T) {
	t.Parallel()
	d := openAPIFor(t)
	d.each(t, func(plan *policy.Method, connectPath, restPath, verb string) {
		for _, at := range []struct{ path, verb string }{{connectPath, "post"}, {connectPath, "get"}, {restPath, verb}} {
			operation := d.Paths[at.path][at.verb]
			if operation == nil {
				continue
			}
			for status, response := range operation.Responses {
				what := at.verb + " " + at.path + " " + status
				if status[0] != '2' || response.Content == nil {
					continue
				}
				example := response.Content["application/json"].Example
				d.check(t, what, example, "paths", at.path, at.verb, "responses", status, "content", "application/json", "schema")
				answer := newMessage(t, plan.Descriptor.Output())
				if err := protojson.Unmarshal(example, answer); err != nil {
					t.Errorf("%s: %s: %v", what, example, err)
				}
				if err := protovalidate.Validate(answer); err != nil {
					t.Errorf("%s: %s isn't valid: %v", what, example, err)
				}
			}
		}
	})
}

// The document describes the policies that the gateway enforces.
func TestOpenAPIDocumentsAccessAndErrors(t *testing.T) {
	t.Parallel()
	d := openAPIFor(t)
	d.each(t, func(plan *policy.Method, connectPath, restPath, verb string) {
		for _, operation := range []*operation{d.Paths[connectPath]["post"], d.Paths[restPath][verb]} {
			_, anyone := plan.Access.GetWho().(*policyv1.Access_Anyone)
			_, signedIn := plan.Access.GetWho().(*policyv1.Access_SignedIn)
			token := slices.ContainsFunc(operation.Security, func(way map[string][]string) bool { return way["accessToken"] != nil })
			for what, both := range map[string][2]bool{
				"asks for an access token":    {token, !anyone},
				"refuses other roles":         {operation.gives("403", fault.ReasonPermissionDenied), !anyone && !signedIn},
				"refuses bad access tokens":   {operation.gives("401", "TOKEN_INVALID"), !anyone},
				"limits the rate":             {operation.gives("429", "RATE_LIMITED"), plan.Rate != nil},
				"wants a recent sign-in":      {operation.gives("400", "REAUTHENTICATION_REQUIRED"), plan.RecentSignIn},
				"takes an idempotency key":    {operation.takes(idempotencyHeader), plan.IdempotencyKey},
				"refuses bad keys":            {operation.gives("400", "IDEMPOTENCY_KEY_INVALID"), plan.IdempotencyKey},
				"names the time limit":        {strings.Contains(operation.Description, fmt.Sprintf("**Time limit:** %g s.", plan.TimeLimit.Seconds())), true},
				"fails as everything may":     {operation.gives("500", fault.ReasonInternal), true},
				"fails when services do":      {operation.gives("503", fault.ReasonUnavailable), true},
				"fails when the time is over": {operation.gives("504", fault.ReasonDeadline), true},
			} {
				if both[0] != both[1] {
					t.Errorf("%s: %s: got %t, want %t", operation.OperationID, what, both[0], both[1])
				}
			}
		}
	})
}

func TestOpenAPIDescribesStreamsAsEvents(t *testing.T) {
	t.Parallel()
	d := openAPIFor(t)
	for _, plan := range newHarness(t, options{}).gateway.rpc.Methods() {
		if !plan.Streams() {
			continue
		}
		rule, _ := proto.GetExtension(plan.Descriptor.Options(), annotations.E_Http).(*annotations.HttpRule)
		for at, operation := range map[string]*operation{
			"text/event-stream": d.Paths[rule.GetGet()]["get"], "application/connect+json": d.Paths[plan.Procedure]["post"],
		} {
			if operation == nil {
				t.Errorf("%s: there is no operation of %s", plan.Procedure, at)
				continue
			}
			if _, ok := operation.Responses["200"].Content[at]; !ok {
				t.Errorf("%s: its answer is no %s", operation.OperationID, at)
			}
			status := map[string]string{"text/event-stream": "429", "application/connect+json": "200"}[at]
			if !operation.gives(status, "TOO_MANY_STREAMS") || !operation.gives(status, "RATE_LIMITED") {
				t.Errorf("%s: it does not say that it is bounded", operation.OperationID)
			}
		}
	}
}

func (o *operation) gives(status, reason string) bool {
	return o.Responses[status] != nil && slices.Contains(o.Responses[status].Reasons, reason)
}

func (o *operation) takes(header string) bool {
	return slices.ContainsFunc(o.Parameters, func(p *parameter) bool { return p.In == "header" && p.Name == header })
}

// Reasons that don't reach those who call the gateway, and why.
var internalReasons = map[string]string{
	"ACCOUNT_EXISTS":         "the gateway chooses a new id for each account",
	"CURSOR_EXPIRED":         "of auth's account log, which services read",
	"CREDENTIAL_INVALID":     "of the account feed, which upstreams read",
	"TOO_MANY_READERS":       "of the account feed, which upstreams read",
	"INTERNAL_TOKEN_INVALID": "of a service for the gateway",
	"PROFILE_NOT_FOUND":      "the gateway makes USER_NOT_FOUND or PROFILE_PENDING of it",
}

// Reasons that belong to no operation.
var homelessReasons = []string{"CANCELED", "HTTP_METHOD_UNSUPPORTED", "METHOD_UNKNOWN"}

func TestOpenAPIHasEveryReasonInTheSource(t *testing.T) {
	t.Parallel()
	d := openAPIFor(t)
	given := map[string]bool{}
	for _, verbs := range d.Paths {
		for _, operation := range verbs {
			for _, response := range operation.Responses {
				for _, reason := range response.Reasons {
					given[reason] = true
				}
			}
		}
	}
	declared := reasonsInTheSource(t)
	if len(declared) < 60 {
		t.Fatalf("got only %d reasons in the source: %v", len(declared), declared)
	}
	for _, reason := range declared {
		_, listed := d.Reasons[reason]
		homeless := slices.Contains(homelessReasons, reason)
		// Methods of upstreams are in the document of a gateway that publishes some.
		switch internal := internalReasons[reason] != "" || strings.HasPrefix(reason, "UPSTREAM_"); {
		case internal && (listed || given[reason]):
			t.Errorf("%s: got it in the document, and it should reach nobody", reason)
		case !internal && !listed:
			t.Errorf("%s: got it in the source, and not in the document", reason)
		case !internal && given[reason] == homeless:
			t.Errorf("%s: an operation answers with it: got %t, want %t", reason, given[reason], !homeless)
		}
	}
	for reason := range d.Reasons {
		if !slices.Contains(declared, reason) {
			t.Errorf("%s: got it in the document, and not in the source", reason)
		}
	}
}

// reasonsInTheSource returns the reasons that the Go code declares, as tools/reasons
// lists them.
func reasonsInTheSource(t testing.TB) []string {
	t.Helper()
	text, err := os.ReadFile("../gen/reasons.json")
	wantNoError(t, "read the list of reasons", err)
	var declared []struct{ Reason string }
	wantNoError(t, "read the list of reasons", json.Unmarshal(text, &declared))
	var reasons []string
	for _, one := range declared {
		reasons = append(reasons, one.Reason)
	}
	return reasons
}

func TestOpenAPIIsServed(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{origins: []string{app}})
	response, body := h.get(t, "/openapi.json", "Origin", "https://tool.example")
	var d document
	wantNoError(t, "read it", json.Unmarshal([]byte(body), &d))
	if len(d.Servers) != 1 || d.Servers[0].URL != publicURL || strings.Contains(body, "http://localhost:8001") {
		t.Errorf("got servers %v, want %s and nothing of %s", d.Servers, publicURL, "http://localhost:8001")
	}
	header := response.Header
	for name, want := range map[string]string{
		"Content-Type": "application/json", "Cache-Control": "public, no-cache", "X-Content-Type-Options": "nosniff",
		"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Credentials": "",
	} {
		if got := header.Get(name); got != want {
			t.Errorf("got %s: %q, want %q", name, got, want)
		}
	}
	if response, _ := h.get(t, "/openapi.json", "Origin", app); response.Header.Get("Access-Control-Allow-Origin") != app {
		t.Errorf("from a listed origin: got it allowed to %q, want %q", response.Header.Get("Access-Control-Allow-Origin"), app)
	}
	tag := header.Get("ETag")
	if response, body := h.get(t, "/openapi.json", "If-None-Match", tag); tag == "" || response.StatusCode != http.StatusNotModified || body != "" {
		t.Errorf("with the ETag %q: got %d and %d bytes, want 304 and none", tag, response.StatusCode, len(body))
	}
	if response, packed := h.get(t, "/openapi.json", "Accept-Encoding", "gzip"); response.Header.Get("Content-Encoding") != "gzip" ||
		response.Header.Get("ETag") == tag || len(packed) > len(body)/5 {
		t.Errorf("packed: got %d of %d bytes, ETag %q, want much less and another ETag", len(packed), len(body), response.Header.Get("ETag"))
	}
}
