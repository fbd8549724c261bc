package openapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"gatehouse/internal/release"
)

// document is the OpenAPI document under construction.
type document struct {
	*names
	schemas  schemas
	lenient  bool
	declared map[string]Error
	used     map[string]bool // reasons
	failed   map[string]*answer
	tags     []object
	paths    map[string]object
	// The components below that are referenced.
	headers, parameters map[string]bool
}

func newDocument(config Config) *document {
	names := &names{short: config.Package, byName: map[string]protoreflect.Descriptor{}}
	d := &document{
		names: names, schemas: schemas{names: names, lenient: config.Lenient, named: map[string]object{}}, lenient: config.Lenient,
		declared: map[string]Error{}, used: map[string]bool{}, failed: map[string]*answer{},
		paths: map[string]object{}, headers: map[string]bool{}, parameters: map[string]bool{},
	}
	for _, one := range config.Errors {
		d.declared[one.Reason] = one
	}
	return d
}

// names are how things are called in the document: by their full name, or without its
// package where that is the document's own.
type names struct {
	short  protoreflect.FullName
	byName map[string]protoreflect.Descriptor
}

func (n *names) isShort(d protoreflect.Descriptor) bool {
	return n.short != "" && d.ParentFile().Package() == n.short
}

// of returns the name of a declaration. Where several upstreams have one of the same
// name, all but the first get a number.
func (n *names) of(d protoreflect.Descriptor) string {
	whole := string(d.FullName())
	switch {
	case n.isShort(d):
		whole = string(d.Name())
	case d.ParentFile().Package() == "":
		whole = "default." + whole
	}
	for name, i := whole, 2; ; name, i = fmt.Sprintf("%s-%d", whole, i), i+1 {
		if known, ok := n.byName[name]; !ok || known == d {
			n.byName[name] = d
			return name
		}
	}
}

// publicURL is the placeholder that each gateway replaces with its public URL.
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

// encode returns the document in a deterministic form.
func (d *document) encode() ([]byte, error) {
	examples, reasons := object{}, object{}
	for _, reason := range anywhere {
		d.used[reason] = true
	}
	for _, reason := range slices.Sorted(maps.Keys(d.used)) {
		declared, ok := d.declared[reason]
		if !ok {
			return nil, fmt.Errorf("%s isn't declared anywhere in the source", reason)
		}
		reasons.set(reason, object{{"code", declared.Code}, {"status", d.statusOf(declared)}, {"message", d.message(declared)}})
		if slices.Contains(anywhere, reason) {
			continue
		}
		example, err := d.errorExample(declared)
		if err != nil {
			return nil, err
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
		return nil, err
	}
	var text bytes.Buffer
	if err := json.Indent(&text, encoded, "", "  "); err != nil {
		return nil, err
	}
	text.WriteByte('\n')
	return text.Bytes(), nil
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
	{"version", release.Version},
	{"description", description},
	{"contact", object{{"name", "The operator of this gateway"}, {"url", publicURL}}},
	{"license", object{{"name", "Apache-2.0"}, {"url", "https://www.apache.org/licenses/LICENSE-2.0"}}},
}

const description = "Each method is available as REST under `/api/v1`, and as [Connect](https://connectrpc.com), gRPC and gRPC-Web under `/bff.v1.…`, " +
	"with the same responses and errors.\n\n" +
	"# Signing in\n\n" +
	"`Login` and `Register` return an access token, which is valid for five minutes and sent as `Authorization: Bearer …`, and a refresh token, which `Refresh` exchanges for new ones. " +
	"A browser that sends `X-Gatehouse-Session: cookie` with these calls gets both in `HttpOnly` cookies, which the gateway refreshes.\n\n" +
	"For an account with a second factor, `Login` returns a challenge instead; `CompleteLogin` takes the second proof and returns the tokens.\n\n" +
	"# JSON\n\n" +
	"Responses omit fields whose value is zero, empty or false, and requests may omit them. REST refuses unknown fields; Connect and gRPC ignore them.\n\n" +
	"`PATCH` changes the fields in `updateMask`. Without a mask it changes the fields that are set and not empty, and clears none.\n\n" +
	"# Errors\n\n" +
	"An error has a code, a message that says what to do, and details; one of them is a `google.rpc.ErrorInfo` with a reason for programs to match. " +
	"`x-gatehouse-reasons` lists all reasons at the end of this document, and those of each response. " +
	"In addition, an unknown path gets 404 `PATH_UNKNOWN`, an unknown Connect method 501 `METHOD_UNKNOWN`, and an unsupported HTTP method 405 `HTTP_METHOD_UNSUPPORTED` with `Allow`.\n\n" +
	"A response can lack an optional part; `errors` then says which and why.\n\n" +
	"# Limits\n\n" +
	"Each method has a rate limit for each caller, reported by `RateLimit` and `RateLimit-Policy`. `Retry-After` of a refused call is the delay before a retry. A request may have 1 MiB, and 200 headers with 64 KiB in total; larger headers get 431 without a body."

var errorSchema = object{
	{"type", "object"},
	{"description", "The error of a failed call, the same on every surface."},
	{"properties", object{
		{"code", object{{"type", "string"}, {"description", "The Connect code."}, {"examples", []string{"not_found"}}}},
		{"message", object{{"type", "string"}, {"description", "What to do about it."}, {"minLength", 1}, {"examples", []string{"There is no such user."}}}},
		{"details", object{
			{"type", "array"},
			{"description", "For programs: a google.rpc.ErrorInfo with the reason; a google.rpc.BadRequest if fields are invalid; a google.rpc.RetryInfo if a retry can succeed."},
			{"minItems", 1},
			{"items", object{
				{"type", "object"},
				{"properties", object{
					{"type", object{{"type", "string"}, {"description", "The full name of the message."}, {"examples", []string{"google.rpc.ErrorInfo"}}}},
					{"value", object{{"type", "string"}, {"description", "The binary message in base64 without padding."}}},
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
		{"description", "The access token that Login, Register, VerifyEmail and Refresh return (RFC 9068). It is valid for five minutes."},
	}},
	{"apiKey", object{
		{"type", "http"}, {"scheme", "bearer"}, {"bearerFormat", "ghk_…"},
		{"description", "An API key that CreateKey returns. It must hold one of the scopes of the method, and is accepted by methods that have any."},
	}},
	{"refreshCookie", object{
		{"type", "apiKey"}, {"in", "cookie"}, {"name", "gatehouse-refresh"},
		{"description", "The refresh token in a cookie, named __Host-gatehouse-refresh over https. A sign-in with X-Gatehouse-Session: cookie sets it."},
	}},
	{"sessionCookie", object{
		{"type", "apiKey"}, {"in", "cookie"}, {"name", "gatehouse-access"},
		{"description", "The access token in a cookie, named __Host-gatehouse-access over https. A sign-in with X-Gatehouse-Session: cookie sets it, and the gateway refreshes it."},
	}},
}

func headerParameter(name, description string, schema object) object {
	return object{{"name", name}, {"in", "header"}, {"description", description}, {"schema", schema}}
}

var parameters = object{
	{"Connect-Protocol-Version", headerParameter("Connect-Protocol-Version", "The version of the protocol.", object{{"type", "string"}, {"enum", []string{"1"}}})},
	{"Connect-Timeout-Ms", headerParameter("Connect-Timeout-Ms", "The deadline of the call, in milliseconds from now.", object{{"type", "string"}, {"pattern", "^[0-9]{1,10}$"}})},
	{"Idempotency-Key", headerParameter("Idempotency-Key", "Identifies the call across retries: calls with the same key take effect once within a day. At most 128 bytes of printable UTF-8.",
		object{{"type", "string"}, {"minLength", 1}, {"maxLength", 128}})},
	{"If-None-Match", headerParameter("If-None-Match", "The ETag of a response that the caller has cached.", object{{"type", "string"}})},
	{"X-Gatehouse-Session", headerParameter("X-Gatehouse-Session", "Set to cookie to get the session in cookies instead of in the response.", object{{"type", "string"}, {"enum", []string{"cookie"}}})},
	{"connect", object{{"name", "connect"}, {"in", "query"}, {"description", "The version of the protocol."}, {"schema", object{{"type", "string"}, {"enum", []string{"v1"}}}}}},
	{"encoding", object{{"name", "encoding"}, {"in", "query"}, {"required", true}, {"description", "The encoding of the message."}, {"schema", object{{"type", "string"}, {"enum", []string{"json"}}}}, {"example", "json"}}},
}

func header(description, example string) object {
	return object{{"description", description}, {"schema", object{{"type", "string"}}}, {"example", example}}
}

var headers = object{
	{"Accept-Post", header("The accepted content types.", "application/json, application/proto")},
	{"Cache-Control", header("Caching rules: only the caller may cache, and must revalidate every time.", "private, no-cache")},
	{"ETag", header("The version of this response, for If-None-Match.", `"nUBgXBvvkzMTsPXGCxcX-json"`)},
	{"Location", header("The URL of the created resource.", "/api/v1/users/"+exampleID)},
	{"RateLimit", header("The remaining calls of the method's rate limit, and the seconds until more are available (draft-ietf-httpapi-ratelimit-headers-10).", `"GetMe";r=199;t=1`)},
	{"RateLimit-Policy", header("The method's rate limit: calls per window in seconds.", `"GetMe";q=200;w=4`)},
	{"Retry-After", header("The delay before a retry, in seconds.", "1")},
	{"Set-Cookie", header("The session, if the request asked for cookies.", "gatehouse-access=eyJ…; Path=/; Max-Age=300; HttpOnly; SameSite=Strict")},
	{"WWW-Authenticate", header("How to authenticate (RFC 6750).", `Bearer realm="gatehouse", error="invalid_token"`)},
	{"X-Request-Id", header("The id of the call, also in the log; the caller's own if the request had one.", "5f0c2f6e-6a3c-4a43-9a35-0d0a6b1c2d3e")},
}
