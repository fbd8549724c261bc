package contract

import (
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"gatehouse/e2e/harness"
	"gatehouse/internal/fault"
	"gatehouse/internal/provider/providertest"
)

// The parity corpus: a call gets the same response or the same error on every surface.
// Each case of testdata/parity states it once and runs on every surface that can send it.

// parityCase is one call and its expected result. Its texts may hold placeholders, such
// as {{alice.id}}: see [subject.fill].
type parityCase struct {
	Name string
	// Call is the method, such as "UserService/GetUser".
	Call string
	// As is the person of the fixture whose access token is sent, or "".
	As string
	// Send is the request. Text is one as JSON that says what no message can, and
	// Wire one in hex.
	Send   map[string]any
	Text   string
	Wire   string
	Header map[string]string
	// Before are calls that prepare the case, once for each surface.
	Before []parityStep

	// Answer is all that is answered, where "<…>" stands for what differs from
	// call to call: see [answerShapes].
	Answer map[string]any
	// Error is the code and the reason, Says the message, Fields the violations as
	// "field: description", each with the error's reason: the message is all of
	// them unless it is said. Retry says that the error tells when to try again.
	Error  string
	Says   string
	Fields []string
	Retry  bool

	// Status is that of HTTP on a surface where it isn't what the Connect protocol
	// says of the code.
	Status map[string]int
	// Only are the surfaces that a case is for, Not those that it isn't for, each
	// with the reason.
	Only, Not map[string]string
	// Varies says why a read doesn't answer the same each time.
	Varies string
}

// parityStep is a call before the case's own: it is answered, or refused for one
// of the reasons.
type parityStep struct {
	Call   string
	As     string
	Send   map[string]any
	Header map[string]string
	Reason string
	// Once is a text: the step is taken once all that it names is there.
	Once string
}

func readCases(t testing.TB, file string) []*parityCase {
	t.Helper()
	text, err := os.Open(filepath.Join("e2e", "contract", "testdata", "parity", file+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	defer text.Close()
	var cases []*parityCase
	decoder := yaml.NewDecoder(text)
	decoder.KnownFields(true)
	if err := decoder.Decode(&cases); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	names := map[string]bool{}
	for _, c := range cases {
		if names[c.Name] {
			t.Fatalf("%s: there are two cases %q", file, c.Name)
		}
		names[c.Name] = true
		if (c.Error == "") == (c.Answer == nil) || c.Error != "" && c.Says == "" && c.Fields == nil {
			t.Fatalf("%s: %q must say its answer, or its error with the message", file, c.Name)
		}
	}
	return cases
}

var paritySurfaces = flag.String("surfaces", "", "the surfaces that TestParity runs through, separated by commas; all that need nothing but Go if empty")

// Each case of the table comes to what it says, over every surface.
//
// It does not run in parallel with other tests: it could then take longer than the lifetime of
// its tokens, five minutes.
func TestParity(t *testing.T) {
	p := &parity{surfaces: surfaces, calls: map[string]int{}, answered: map[string]bool{}, refused: map[string]bool{}}
	if *paritySurfaces != "" {
		p.surfaces = nil
		known := slices.Concat(surfaces, moreSurfaces)
		for name := range strings.SplitSeq(*paritySurfaces, ",") {
			i := slices.IndexFunc(known, func(s surface) bool { return s.name == name })
			if i < 0 {
				t.Fatalf("there is no surface %q", name)
			}
			p.surfaces = append(p.surfaces, known[i])
		}
	}
	t.Run("one process", func(t *testing.T) {
		provider := providertest.New(t)
		s := harness.Start(t, harness.OneProcess, withProvider(t, provider), harness.WithSettings("GATEHOUSE_THROTTLE=off", "GATEHOUSE_EMAIL_SIGN_IN=on", "GATEHOUSE_PUBLIC_URL="+parityPage))
		foreign := publishForeignKey(t, s)
		w := newParityFixture(t, s)
		w.signTokens(t, foreign)
		w.provider = provider
		for _, file := range append([]string{"refused", "account", "auth", "codes", "passkeys", "providers", "keys", "webhooks", "users", "input"}, serviceFiles(t)...) {
			w.renew(t)
			p.run(t, w, file)
		}
	})
	t.Run("one process, throttled", func(t *testing.T) {
		s := harness.Start(t, harness.OneProcess, harness.WithSettings("GATEHOUSE_POLICY=bff.v1.AccountService/GetMe rate=1/h burst=1;bff.v1.AuthService/Logout rate=1/h burst=1"))
		w := newParityFixture(t, s)
		w.failToSignIn(t, "guessed@example.com")
		p.run(t, w, "throttled")
	})
	t.Run("three processes, services unreachable", func(t *testing.T) {
		s := harness.Start(t, harness.ThreeProcesses, harness.WithSettings("GATEHOUSE_THROTTLE=off"))
		w := newParityFixture(t, s)
		p.run(t, w, "without-mail")
		p.run(t, w, "factors")
		s.Processes[harness.RoleUsers].Kill()
		w.until(t, http.StatusServiceUnavailable)
		p.run(t, w, "without-users")
		s.Start(t, harness.RoleUsers)
		w.until(t, http.StatusOK)
		s.Processes[harness.RoleAuth].Kill()
		w.until(t, http.StatusServiceUnavailable)
		p.run(t, w, "without-auth")
	})
	total := 0
	for _, calls := range p.calls {
		total += calls
	}
	t.Logf("%d cases, %d calls: %v", p.cases, total, p.calls)
	if p.cases < 150 {
		t.Errorf("the corpus has %d cases, want 150 at least", p.cases)
	}
	for _, call := range publicMethods() {
		if !p.answered[call] || !p.refused[call] {
			t.Errorf("%s: want a case that is answered and one that is refused", call)
		}
	}
}

// parity runs cases through surfaces, and counts.
type parity struct {
	surfaces []surface
	cases    int
	// answered and refused are the methods that have a case of each kind.
	answered, refused map[string]bool

	mu    sync.Mutex
	calls map[string]int // by surface
	// answers are what reads answered, by case and surface.
	answers map[*parityCase]map[string]proto.Message
}

// run runs a file's cases through each surface, surfaces in parallel, and
// compares what the reads answered.
func (p *parity) run(t *testing.T, w *parityFixture, file string) {
	t.Helper()
	cases := readCases(t, file)
	p.cases += len(cases)
	for _, c := range cases {
		p.answered[c.Call] = p.answered[c.Call] || c.Answer != nil
		p.refused[c.Call] = p.refused[c.Call] || c.Error != ""
	}
	p.answers = map[*parityCase]map[string]proto.Message{}
	t.Run(file, func(t *testing.T) {
		for _, on := range p.surfaces {
			t.Run(on.name, func(t *testing.T) {
				t.Parallel()
				caller := on.open(t, w.URL)
				var next atomic.Int64
				var callers sync.WaitGroup
				for range max(on.at, 1) {
					callers.Go(func() {
						for i := next.Add(1); int(i) <= len(cases); i = next.Add(1) {
							c := cases[i-1]
							t.Run(c.Name, func(t *testing.T) { p.try(t, w, c, on, caller) })
						}
					})
				}
				callers.Wait()
			})
		}
	})
	for c, by := range p.answers {
		for name, got := range by {
			if want := by["connect json"]; want != nil && !proto.Equal(got, want) {
				t.Errorf("%s: %s answers %v, and connect json %v", c.Name, name, got, want)
			}
		}
	}
}

// try runs one case on one surface, if the surface can.
func (p *parity) try(t *testing.T, w *parityFixture, c *parityCase, on surface, caller caller) {
	call, of := w.prepare(t, c, on)
	if call == nil {
		return
	}
	got, err := w.ask(t.Context(), caller, call)
	if err != nil {
		t.Fatal(err)
	}
	w.check(t, c, on, of, got)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls[on.name]++
	if readsOnly(call.method) && got.message != nil && c.Varies == "" && len(c.Before) == 0 && c.As != "new" {
		if p.answers[c] == nil {
			p.answers[c] = map[string]proto.Message{}
		}
		p.answers[c][on.name] = got.message
	}
}

// prepare runs the steps before the case and returns its call; nil where the surface
// isn't for it.
func (w *parityFixture) prepare(t *testing.T, c *parityCase, on surface) (*wireCall, *subject) {
	t.Helper()
	if c.Not[on.name] != "" || c.Only != nil && c.Only[on.name] == "" {
		return nil, nil
	}
	of := &subject{fixture: w, t: t, links: map[string]string{}}
	call := &wireCall{procedure: "/bff.v1." + c.Call, header: map[string]string{}}
	call.method = methodOf(c.Call)
	var err error
	if c.Wire != "" {
		if call.bytes, err = hex.DecodeString(strings.ReplaceAll(c.Wire, " ", "")); err != nil {
			t.Fatal(err)
		}
	}
	if !on.can(call, c.Text != "") {
		return nil, nil
	}
	for _, step := range c.Before {
		of.take(step)
	}
	if call.text = of.fill(c.Text); call.text == "" {
		call.text = of.json(c.Send)
	}
	for name, value := range c.Header {
		call.header[name] = of.fill(value)
	}
	if c.As != "" {
		call.header["Authorization"] = "Bearer " + of.token(c.As)
	}
	return call, of
}

// publicMethods are all that the gateway serves, as cases name them.
func publicMethods() (calls []string) {
	protoregistry.GlobalFiles.RangeFilesByPackage("bff.v1", func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			for j := range service.Methods().Len() {
				if service.Methods().Get(j).IsStreamingServer() {
					continue // e2e/live asks it on every protocol
				}
				calls = append(calls, fmt.Sprintf("%s/%s", service.Name(), service.Methods().Get(j).Name()))
			}
		}
		return true
	})
	return calls
}

func methodOf(call string) protoreflect.MethodDescriptor {
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName("bff.v1." + strings.ReplaceAll(call, "/", ".")))
	if err != nil {
		return nil
	}
	method, _ := found.(protoreflect.MethodDescriptor)
	return method
}

// ask makes a call, and again as long as too many passwords are checked: one
// is at a time, and who waits for long is sent away.
func (w *parityFixture) ask(ctx context.Context, on caller, c *wireCall) (*outcome, error) {
	for {
		got, err := w.once(ctx, on, c)
		if err != nil || got.failure == nil || got.failure.reason() != "TOO_MANY_PASSWORD_CHECKS" {
			return got, err
		}
	}
}

func (w *parityFixture) once(ctx context.Context, on caller, c *wireCall) (*outcome, error) {
	if hashes[strings.TrimPrefix(c.procedure, "/bff.v1.")] {
		w.hashing.Lock()
		defer w.hashing.Unlock()
	}
	return on.call(ctx, c)
}

// hashes are the methods that check or make a password.
var hashes = map[string]bool{
	"AuthService/Register": true, "AuthService/VerifyEmail": true, "AuthService/Login": true, "AuthService/ResetPassword": true,
	"AccountService/Reauthenticate": true, "AccountService/ChangePassword": true, "UserService/CreateUser": true,
}

// connectStatus is the HTTP status of a code in the Connect protocol.
var connectStatus = map[string]int{
	"": 200, "canceled": 499, "unknown": 500, "invalid_argument": 400, "deadline_exceeded": 504, "not_found": 404,
	"already_exists": 409, "permission_denied": 403, "resource_exhausted": 429, "failed_precondition": 400, "aborted": 409,
	"out_of_range": 400, "unimplemented": 501, "internal": 500, "unavailable": 503, "data_loss": 500, "unauthenticated": 401,
}

// check compares what came of a call with what the case says.
func (w *parityFixture) check(t *testing.T, c *parityCase, on surface, of *subject, got *outcome) {
	t.Helper()
	code, reason, _ := strings.Cut(c.Error, " ")
	if got.status != 0 {
		want, ok := c.Status[on.name]
		if !ok {
			want = connectStatus[code]
		}
		if got.status != want {
			t.Errorf("got the status %d, want %d", got.status, want)
		}
	}
	if c.Error == "" {
		if got.failure != nil {
			t.Errorf("got %s, want an answer", got.failure)
			return
		}
		written, err := protojson.Marshal(got.message)
		if err != nil {
			t.Fatal(err)
		}
		var found, want any
		_ = json.Unmarshal(written, &found)
		_ = json.Unmarshal([]byte(of.json(c.Answer)), &want)
		omitServices(found)
		for _, fault := range differ("", found, want) {
			t.Error(fault)
		}
		return
	}
	if got.failure == nil {
		t.Errorf("got %v, want %s", got.message, c.Error)
		return
	}
	want := failure{code: code, message: of.fill(c.Says)}
	want.details = append(want.details, &errdetails.ErrorInfo{Reason: reason, Domain: fault.Domain})
	if len(c.Fields) > 0 {
		bad := &errdetails.BadRequest{}
		for _, field := range c.Fields {
			name, description, _ := strings.Cut(of.fill(field), ": ")
			bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{Field: name, Description: description, Reason: reason})
		}
		want.details = append(want.details, bad)
		want.message = cmp.Or(want.message, of.fill(strings.Join(c.Fields, "; ")))
	}
	if after := got.failure.retry(); c.Retry && after != nil && after.GetRetryDelay().AsDuration() > 0 {
		want.details = append(want.details, after) // how long is another test's matter
	} else if c.Retry {
		want.details = append(want.details, &errdetails.RetryInfo{})
	}
	if c.Retry && got.header != nil && got.header.Get("Retry-After") == "" && (got.status != 0 || on.name == "grpc") {
		t.Error("there is no Retry-After")
	}
	if got.failure.String() != want.String() {
		t.Errorf("\n got %s\nwant %s", got.failure, &want)
	}
}

func (f *failure) String() string {
	text := fmt.Sprintf("%s %q", f.code, f.message)
	var details []string
	for _, detail := range f.details {
		written, _ := protojson.Marshal(detail)
		var plain any
		_ = json.Unmarshal(written, &plain)
		even, _ := json.Marshal(plain) // protojson's spaces vary
		details = append(details, fmt.Sprintf("%s%s", detail.ProtoReflect().Descriptor().Name(), even))
	}
	slices.Sort(details)
	return text + " " + strings.Join(details, " ")
}

func (f *failure) reason() string {
	for _, detail := range f.details {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}

func (f *failure) retry() *errdetails.RetryInfo {
	for _, detail := range f.details {
		if info, ok := detail.(*errdetails.RetryInfo); ok {
			return info
		}
	}
	return nil
}

// answerShapes are what may stand for a value that differs from call to call.
var answerShapes = map[string]*regexp.Regexp{
	"<uuid>":              regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`),
	"<time>":              regexp.MustCompile(`^20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z$`),
	"<etag>":              regexp.MustCompile(`^[A-Za-z0-9_-]{11}$`),
	"<key id>":            regexp.MustCompile(`^[A-Za-z0-9_-]{8,64}$`),
	"<url>":               regexp.MustCompile(`^http://[a-z0-9.:]+$`),
	"<access token>":      regexp.MustCompile(`^ey[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{86}$`),
	"<refresh token>":     regexp.MustCompile(`^ghr_[A-Za-z0-9_-]+$`),
	"<device token>":      regexp.MustCompile(`^ghd_[A-Za-z0-9_-]+$`),
	"<authorization URL>": regexp.MustCompile(`^http://127\.0\.0\.1:[0-9]+/authorize\?[A-Za-z0-9_.%=&+-]+$`),
	"<nonce>":             regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`),
	"<challenge>":         regexp.MustCompile(`^ghc_[A-Za-z0-9_-]{43}$`),
	"<API key>":           regexp.MustCompile(`^ghk_[A-Za-z0-9_-]{22}_[A-Za-z0-9_-]{43}[A-Za-z0-9]{6}$`),
	"<webhook secret>":    regexp.MustCompile(`^whsec_[A-Za-z0-9+/]{43}=$`),
	"<public key>":        regexp.MustCompile(`^whpk_[A-Za-z0-9+/]{43}=$`),
	"<recovery code>":     regexp.MustCompile(`^[0-9A-Z]{4}(-[0-9A-Z]{4}){3}$`),
	"<page token>":        regexp.MustCompile(`^[A-Za-z0-9_-]{8,}$`),
	"<text>":              regexp.MustCompile(`.`),
}

// differ describes the differences between a response and the expected one.
func differ(at string, got, want any) (faults []string) {
	switch want := want.(type) {
	case map[string]any:
		found, ok := got.(map[string]any)
		if !ok {
			return []string{fmt.Sprintf("%s: got %v, want %v", at, got, want)}
		}
		for name, value := range want {
			if _, ok := found[name]; !ok {
				faults = append(faults, fmt.Sprintf("%s.%s: there is none, want %v", at, name, value))
				continue
			}
			faults = append(faults, differ(at+"."+name, found[name], value)...)
		}
		for name, value := range found {
			if _, ok := want[name]; !ok {
				faults = append(faults, fmt.Sprintf("%s.%s: got %v, want none", at, name, value))
			}
		}
		return faults
	case []any:
		found, _ := got.([]any)
		if n := len(want); n == 2 && want[1] == "…" { // any number of those
			for i, value := range found {
				faults = append(faults, differ(fmt.Sprintf("%s[%d]", at, i), value, want[0])...)
			}
			if len(found) > 0 {
				return faults
			}
		}
		if len(found) != len(want) {
			return []string{fmt.Sprintf("%s: got %d, want %d: %v", at, len(found), len(want), got)}
		}
		for i := range want {
			faults = append(faults, differ(fmt.Sprintf("%s[%d]", at, i), found[i], want[i])...)
		}
		return faults
	case string:
		if _, ok := got.(map[string]any); ok && want == "<object>" {
			return nil
		}
		if _, ok := got.(float64); ok && want == "<number>" {
			return nil
		}
		if want == "<30 days>" { // in seconds, a few of which may have passed
			if n, ok := got.(float64); !ok || n > 2592000 || n < 2592000-60 {
				faults = append(faults, fmt.Sprintf("%s: got %v, want %s", at, got, want))
			}
			return faults
		}
		if want == "<number>" {
			if n, ok := got.(float64); !ok || n < 1 {
				faults = append(faults, fmt.Sprintf("%s: got %v, want %s", at, got, want))
			}
			return faults
		}
		if shape := answerShapes[want]; shape != nil {
			if text, ok := got.(string); !ok || !shape.MatchString(text) {
				faults = append(faults, fmt.Sprintf("%s: got %v, want %s", at, got, want))
			}
			return faults
		}
	}
	if !reflect.DeepEqual(got, want) {
		faults = append(faults, fmt.Sprintf("%s: got %v, want %v", at, got, want))
	}
	return faults
}

// until waits until bob's GetMe has a status: what is kept of answers is given
// for a moment after a part has gone.
func (w *parityFixture) until(t *testing.T, want int) {
	t.Helper()
	harness.Eventually(t, 10*time.Second, fmt.Sprintf("GetMe has the status %d", want), func() error {
		if status, _, body := w.Post(t, "/bff.v1.AccountService/GetMe", w.people["bob"].Access, "{}"); status != want {
			return fmt.Errorf("%d %s", status, body)
		}
		return nil
	})
}
