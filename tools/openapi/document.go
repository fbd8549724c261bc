package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// document is the OpenAPI document that is being put together.
type document struct {
	schemas  schemas
	declared map[string]declaredError
	used     map[string]bool // reasons
	failed   map[string]*answer
	tags     []object
	paths    map[string]object
	// What of the components below something refers to.
	headers, parameters map[string]bool
}

func newDocument(declared map[string]declaredError) *document {
	return &document{
		schemas: schemas{named: map[string]object{}}, declared: declared, used: map[string]bool{}, failed: map[string]*answer{},
		paths: map[string]object{}, headers: map[string]bool{}, parameters: map[string]bool{},
	}
}

// publicURL stands in the document for the gateway's, which puts its own there.
const publicURL = "http://localhost:8001"

func (d *document) tag(name, description string) {
	d.tags = append(d.tags, object{{"name", name}, {"description", description}})
}

func (d *document) addOperation(path, verb string, operation object) {
	d.paths[path] = append(d.paths[path], member{verb, operation})
}

func (d *document) header(name string) object {
	d.headers[name] = true
	return object{{"$ref", "#/components/headers/" + name}}
}

func (d *document) parameter(name string) object {
	d.parameters[name] = true
	return object{{"$ref", "#/components/parameters/" + name}}
}

// encode returns the document, the same each time.
func (d *document) encode() (string, error) {
	examples, reasons := object{}, object{}
	for _, reason := range anywhere {
		d.used[reason] = true
	}
	for _, reason := range slices.Sorted(maps.Keys(d.used)) {
		declared, ok := d.declared[reason]
		if !ok {
			return "", fmt.Errorf("%s isn't declared anywhere in the source", reason)
		}
		reasons.set(reason, object{{"code", declared.Code}, {"status", d.statusOf(declared)}, {"message", d.message(declared)}})
		if slices.Contains(anywhere, reason) {
			continue
		}
		example, err := d.errorExample(declared)
		if err != nil {
			return "", err
		}
		examples.set(reason, object{{"summary", reason}, {"value", example}})
	}
	d.schemas.named["Error"] = errorSchema
	responses := d.share()
	paths := sorted(d.paths)
	whole := object{
		{"openapi", "3.1.0"},
		{"info", info},
		{"servers", []object{{{"url", publicURL}, {"description", "This gateway."}}}},
		{"tags", d.tags},
		{"paths", paths},
		{"components", object{
			{"schemas", sorted(d.schemas.named)},
			{"responses", responses},
			{"parameters", only(parameters, d.parameters)},
			{"examples", examples},
			{"headers", only(headers, d.headers)},
			{"securitySchemes", securitySchemes},
		}},
		{"x-gatehouse-reasons", reasons},
	}
	encoded, err := encode(whole)
	if err != nil {
		return "", err
	}
	var text bytes.Buffer
	if err := json.Indent(&text, encoded, "", "  "); err != nil {
		return "", err
	}
	text.WriteByte('\n')
	return text.String(), nil
}

func sorted(named map[string]object) object {
	all := object{}
	for _, name := range slices.Sorted(maps.Keys(named)) {
		all.set(name, named[name])
	}
	return all
}

func only(all object, used map[string]bool) object {
	rest := object{}
	for _, m := range all {
		if used[m.name] {
			rest = append(rest, m)
		}
	}
	slices.SortFunc(rest, func(a, b member) int { return strings.Compare(a.name, b.name) })
	return rest
}

var info = object{
	{"title", "Gatehouse"},
	{"summary", "Sign-up, sign-in, sessions and user management."},
	{"version", "1.0.0"},
	{"description", description},
	{"contact", object{{"name", "Whoever runs this gateway"}, {"url", publicURL}}},
	{"license", object{{"name", "Apache-2.0"}, {"url", "https://www.apache.org/licenses/LICENSE-2.0"}}},
}

const description = "Each method can be called by REST, under `/api/v1`, and by [Connect](https://connectrpc.com), gRPC and gRPC-Web, under `/bff.v1.…`: " +
	"the same method, the same answer, the same error.\n\n" +
	"# Signing in\n\n" +
	"`Login` and `Register` answer with an access token, which lives for five minutes and is sent as `Authorization: Bearer …`, and a refresh token, which `Refresh` exchanges for new ones. " +
	"A browser that sends `X-Gatehouse-Session: cookie` with those gets both in cookies that no script can read, and the gateway refreshes them.\n\n" +
	"# JSON\n\n" +
	"A field whose value is zero, empty or false is left out of answers, and may be left out of requests. A field that isn't known is refused by REST, and passed over by Connect and gRPC.\n\n" +
	"`PATCH` changes what `updateMask` names. Without it, only what is there and not empty changes, so that nothing can be cleared.\n\n" +
	"# Errors\n\n" +
	"An error has a code, a sentence that says what to do, and details; one of them is a `google.rpc.ErrorInfo` with a reason for programs to go by. " +
	"`x-gatehouse-reasons` lists all reasons, at the end of this document and beside each response. " +
	"Apart from what the operations list, a path that isn't there is answered with 404 `PATH_UNKNOWN`, a Connect method that isn't there with 501 `METHOD_UNKNOWN`, and an HTTP method that a path doesn't have with 405 `HTTP_METHOD_UNSUPPORTED` and `Allow`.\n\n" +
	"An answer can lack a part that isn't required: then `errors` says which and why.\n\n" +
	"# Limits\n\n" +
	"Callers are held to the rate of each method, which `RateLimit` and `RateLimit-Policy` tell. A call that is refused for now says in `Retry-After` when to come back. A request may have 1 MiB, and 200 headers of 64 KiB together; what is larger than that gets a bare 431."

var errorSchema = object{
	{"type", "object"},
	{"description", "Error is what every call fails with, whichever way it came."},
	{"properties", object{
		{"code", object{{"type", "string"}, {"description", "The Connect code."}, {"examples", []string{"not_found"}}}},
		{"message", object{{"type", "string"}, {"description", "What to do about it."}, {"minLength", 1}, {"examples", []string{"There is no such user."}}}},
		{"details", object{
			{"type", "array"},
			{"description", "What programs can go by: a google.rpc.ErrorInfo with the reason; a google.rpc.BadRequest where fields are at fault; a google.rpc.RetryInfo where it is worth another try."},
			{"minItems", 1},
			{"items", object{
				{"type", "object"},
				{"properties", object{
					{"type", object{{"type", "string"}, {"description", "The name of the detail's message."}, {"examples", []string{"google.rpc.ErrorInfo"}}}},
					{"value", object{{"type", "string"}, {"description", "The message in binary, in base64 without padding."}}},
					{"debug", object{{"type", "object"}, {"description", "The same message in JSON."}, {"additionalProperties", true}}},
				}},
				{"required", []string{"type", "value"}},
			}},
		}},
	}},
	{"required", []string{"code", "message", "details"}},
}

var securitySchemes = object{
	{"accessToken", object{
		{"type", "http"}, {"scheme", "bearer"}, {"bearerFormat", "JWT"},
		{"description", "The access token that Login, Register, VerifyEmail and Refresh answer with (RFC 9068). It lives for five minutes."},
	}},
	{"refreshCookie", object{
		{"type", "apiKey"}, {"in", "cookie"}, {"name", "gatehouse-refresh"},
		{"description", "The refresh token in a cookie; over https it is called __Host-gatehouse-refresh. It comes from signing in with X-Gatehouse-Session: cookie."},
	}},
	{"sessionCookie", object{
		{"type", "apiKey"}, {"in", "cookie"}, {"name", "gatehouse-access"},
		{"description", "The access token in a cookie; over https it is called __Host-gatehouse-access. It comes from signing in with X-Gatehouse-Session: cookie, and the gateway renews it."},
	}},
}

func headerParameter(name, description string, schema object) object {
	return object{{"name", name}, {"in", "header"}, {"description", description}, {"schema", schema}}
}

var parameters = object{
	{"Connect-Protocol-Version", headerParameter("Connect-Protocol-Version", "The version of the protocol.", object{{"type", "string"}, {"enum", []string{"1"}}})},
	{"Connect-Timeout-Ms", headerParameter("Connect-Timeout-Ms", "How long the caller waits, in milliseconds.", object{{"type", "string"}, {"pattern", "^[0-9]{1,10}$"}})},
	{"Idempotency-Key", headerParameter("Idempotency-Key", "Any text of the caller's, the same when a call is repeated because its answer was lost: the work is then done once, for a day. At most 128 bytes of printable UTF-8.",
		object{{"type", "string"}, {"minLength", 1}, {"maxLength", 128}})},
	{"If-None-Match", headerParameter("If-None-Match", "The ETag of an answer that the caller has.", object{{"type", "string"}})},
	{"X-Gatehouse-Session", headerParameter("X-Gatehouse-Session", "Say cookie to have the session in cookies rather than in the answer.", object{{"type", "string"}, {"enum", []string{"cookie"}}})},
	{"connect", object{{"name", "connect"}, {"in", "query"}, {"description", "The version of the protocol."}, {"schema", object{{"type", "string"}, {"enum", []string{"v1"}}}}}},
	{"encoding", object{{"name", "encoding"}, {"in", "query"}, {"required", true}, {"description", "How the message is written."}, {"schema", object{{"type", "string"}, {"enum", []string{"json"}}}}, {"example", "json"}}},
}

func header(description, example string) object {
	return object{{"description", description}, {"schema", object{{"type", "string"}}}, {"example", example}}
}

var headers = object{
	{"Accept-Post", header("What a request may be written as.", "application/json, application/proto")},
	{"Cache-Control", header("Who may keep the answer. Caches have to ask each time.", "private, no-cache")},
	{"ETag", header("Names this answer, for If-None-Match.", `"nUBgXBvvkzMTsPXGCxcX-json"`)},
	{"Location", header("Where what was made is found.", "/api/v1/users/"+adaID)},
	{"RateLimit", header("How much of the method's rate is left, and in how many seconds there is more (draft-ietf-httpapi-ratelimit-headers-10).", `"GetMe";r=199;t=1`)},
	{"RateLimit-Policy", header("The method's rate: how many calls may come in how many seconds.", `"GetMe";q=200;w=4`)},
	{"Retry-After", header("In how many seconds to try again.", "1")},
	{"Set-Cookie", header("The session, where it was asked for in cookies.", "gatehouse-access=eyJ…; Path=/; Max-Age=300; HttpOnly; SameSite=Strict")},
	{"WWW-Authenticate", header("How to show who is calling (RFC 6750).", `Bearer realm="gatehouse", error="invalid_token"`)},
	{"X-Request-Id", header("The call's id, which the log has too. It is the caller's own if the request had one.", "5f0c2f6e-6a3c-4a43-9a35-0d0a6b1c2d3e")},
}
