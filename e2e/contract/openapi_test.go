package contract

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"gatehouse/e2e/harness"
	post "gatehouse/internal/mail"
	"gatehouse/internal/mailtest"
)

const (
	randomRequests = 11000
	// dearRequests are at most as many to each operation that takes a password,
	// which may have to be hashed, or after which the caller has to sign in again.
	dearRequests = 30
)

// Whatever is asked of the system by its own OpenAPI document, valid or not, it
// answers as the document says, and never fails by itself.
func TestRandomRequestsAreAnsweredAsTheDocumentSays(t *testing.T) {
	t.Parallel()
	seed := uint64(1)
	if text := os.Getenv("GATEHOUSE_TEST_SEED"); text != "" {
		seed, _ = strconv.ParseUint(text, 10, 64)
	}
	f := newFuzzed(t, seed)
	start := time.Now()
	for range randomRequests {
		f.one(t)
		if t.Failed() && f.failures >= 20 {
			t.Fatal("and so on")
		}
	}
	f.report(t, time.Since(start))
}

// fuzzed is a system of which random requests are made.
type fuzzed struct {
	values
	log *harness.LockedBuffer
	*harness.Stack
	mails      *mailtest.Server
	read       int // of the mails
	operations []*described
	schemas    *jsonschema.Compiler
	people     map[string]*fuzzer
	made       int
	signedIn   int // to go on
	failures   int
}

// described is an operation of the document.
type described struct {
	path, verb string
	id         string
	parameters []map[string]any
	body       map[string]any // its schema; nil for none
	required   bool
	responses  map[string]any
	dear       bool
	own        bool        // of the gateway's own services, not of the application's
	statuses   map[int]int // how often each was the answer
	asked      int
}

// fuzzer is the caller of a request.
type fuzzer struct {
	harness.Person
	admin bool
}

func newFuzzed(t *testing.T, seed uint64) *fuzzed {
	t.Helper()
	f := &fuzzed{log: &harness.LockedBuffer{}, mails: mailtest.Start(t, mailtest.Config{Rcpt: refuseSome}), people: map[string]*fuzzer{}}
	f.values = values{Rand: rand.New(rand.NewPCG(seed, 1)), known: map[string][]string{}}
	mailer, err := post.NewSMTP(f.mails.URL())
	if err != nil {
		t.Fatal(err)
	}
	f.Stack = harness.StartStack(t, harness.StackConfig{
		Logger: slog.New(slog.NewJSONHandler(f.log, &slog.HandlerOptions{Level: slog.LevelError})),
		Mailer: mailer, TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
	})
	status, _, body := f.send(t, mustRequest(t, http.MethodGet, f.Gateways[0].URL+"/openapi.json", nil))
	if status != http.StatusOK {
		t.Fatalf("GET /openapi.json: %d %s", status, body)
	}
	f.describe(t, body)
	f.learn("password", harness.Password)
	f.learn("Idempotency-Key", "one")
	f.learn("Idempotency-Key", "another")
	f.learn("If-None-Match", "*")
	for range 3 {
		f.signUp(t)
	}
	return f
}

// refuseSome makes some mails fail for good.
func refuseSome(to string) error {
	if strings.HasPrefix(to, "a@") {
		return mailtest.Refuse(550, "no such mailbox")
	}
	return nil
}

const fuzzedDocument = "https://gatehouse.example/openapi.json"

// describe reads the document. Its schemas are closed for the test, so that an
// answer with something that they don't tell of is found.
func (f *fuzzed) describe(t *testing.T, text string) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &f.document); err != nil {
		t.Fatal(err)
	}
	for path, verbs := range f.document["paths"].(map[string]any) {
		for verb, operation := range verbs.(map[string]any) {
			if streams(operation.(map[string]any)) {
				continue // e2e/live asks it
			}
			f.operations = append(f.operations, f.described(path, verb, operation.(map[string]any)))
		}
	}
	slices.SortFunc(f.operations, func(a, b *described) int { return strings.Compare(a.id, b.id) })
	closed, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range closed.(map[string]any)["components"].(map[string]any)["schemas"].(map[string]any) {
		if schema := one.(map[string]any); schema["type"] == "object" {
			schema["additionalProperties"] = false
		}
	}
	f.schemas = jsonschema.NewCompiler()
	f.schemas.AssertFormat()
	if err := f.schemas.AddResource(fuzzedDocument, closed); err != nil {
		t.Fatal(err)
	}
}

// streams reports whether an operation has another body than JSON, or answers with one.
func streams(operation map[string]any) bool {
	bodies := []any{operation["requestBody"], operation["responses"].(map[string]any)["200"]}
	return slices.ContainsFunc(bodies, func(body any) bool {
		described, _ := body.(map[string]any)
		content, ok := described["content"].(map[string]any)
		_, isJSON := content["application/json"]
		return ok && !isJSON
	})
}

func (f *fuzzed) described(path, verb string, operation map[string]any) *described {
	d := &described{path: path, verb: strings.ToUpper(verb), id: operation["operationId"].(string), responses: operation["responses"].(map[string]any), statuses: map[int]int{}, own: isOwn(operation)}
	parameters, _ := operation["parameters"].([]any)
	for _, parameter := range parameters {
		d.parameters = append(d.parameters, f.resolve(parameter.(map[string]any)))
	}
	if body, ok := operation["requestBody"].(map[string]any); ok {
		d.required, _ = body["required"].(bool)
		d.body = body["content"].(map[string]any)["application/json"].(map[string]any)["schema"].(map[string]any)
		properties, _ := f.resolve(d.body)["properties"].(map[string]any)
		d.dear = slices.ContainsFunc(slices.Collect(maps.Keys(properties)), func(name string) bool { return strings.HasSuffix(strings.ToLower(name), "password") })
	}
	d.dear = d.dear || slices.ContainsFunc([]string{"DeleteMe", "RevokeAllSessions", "Logout", "DisableUser", "DeleteUser", "SetUserRoles", "RevokeUserSessions", "ForcePasswordReset"}, func(name string) bool {
		return strings.EqualFold(strings.TrimPrefix(d.id, "connect"), name)
	})
	return d
}

// isOwn reports whether an operation is of one of the gateway's own services. A random
// request rarely names a row of the application's and its owner.
func isOwn(operation map[string]any) bool {
	tag, _, _ := strings.Cut(fmt.Sprint(operation["tags"].([]any)[0]), " ")
	return slices.Contains([]string{"AccountService", "AuthService", "UserService"}, tag)
}

// one makes one request and looks at the answer.
func (f *fuzzed) one(t *testing.T) {
	t.Helper()
	d := pick(&f.values, f.operations)
	for d.dear && d.asked >= dearRequests {
		d = pick(&f.values, f.operations)
	}
	d.asked++
	f.about, f.user = d.id, ""
	f.made++
	who := f.who(t)
	request, sent, mutated := f.request(t, d, who)
	status, header, body := f.send(t, request)
	d.statuses[status]++
	if fault := f.fault(d, status, header, body, mutated); fault != "" {
		f.failures++
		t.Errorf("request %d, %s as %s: %s %s\n%.600s\ngot %d %.600s\n%s\n%s", f.made, d.id, cmp.Or(who.Email, "nobody"), request.Method, request.URL, sent, status, body, fault, f.log.String())
	}
	if status/100 == 2 {
		f.learn("If-None-Match", header.Get("ETag"))
		f.learnFrom(d, body)
	}
	f.readMails()
	if status == http.StatusUnauthorized && who.Access != "" || status == http.StatusNotFound && strings.Contains(d.path, "/me") {
		f.renew(t, who)
	}
}

// who is nobody, a user or the administrator.
func (f *fuzzed) who(t *testing.T) *fuzzer {
	t.Helper()
	switch choice := f.IntN(10); {
	case choice < 2:
		return &fuzzer{}
	case choice < 6:
		if f.people["user"] == nil {
			f.people["user"] = f.signUp(t)
		}
		return f.people["user"]
	}
	if f.people["admin"] == nil {
		f.people["admin"] = f.administrator(t)
	}
	return f.people["admin"]
}

// renew forgets a caller whose token no longer works, so that the next one signs in.
func (f *fuzzed) renew(t *testing.T, who *fuzzer) {
	t.Helper()
	request := mustRequest(t, http.MethodGet, f.Gateways[0].URL+"/api/v1/me", nil)
	request.Header.Set("Authorization", "Bearer "+who.Access)
	if status, _, _ := f.send(t, request); status != http.StatusOK {
		delete(f.people, map[bool]string{true: "admin", false: "user"}[who.admin])
	}
}

func (f *fuzzed) signUp(t *testing.T) *fuzzer {
	t.Helper()
	who := &fuzzer{Person: harness.Person{Email: fmt.Sprintf("fuzz%d@example.com", f.signedIn)}}
	who.Access = f.signIn(t, "/api/v1/auth/register", fmt.Sprintf(`{"email":%q,"password":"correct horse battery"}`, who.Email))
	f.learn("email", who.Email)
	return who
}

func (f *fuzzed) administrator(t *testing.T) *fuzzer {
	t.Helper()
	email := fmt.Sprintf("admin%d@localhost", f.signedIn) // another may have lost the account to a link
	if err := f.Auths[0].CreateAdministrator(t.Context(), email, harness.AdminPassword); err != nil {
		t.Fatal(err)
	}
	token := f.signIn(t, "/api/v1/auth/login", fmt.Sprintf(`{"email":%q,"password":%q}`, email, harness.AdminPassword))
	return &fuzzer{Person: harness.Person{Email: email, Access: token}, admin: true}
}

func (f *fuzzed) signIn(t *testing.T, path, body string) (token string) {
	t.Helper()
	request := mustRequest(t, http.MethodPost, f.Gateways[0].URL+path, strings.NewReader(body))
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("X-Forwarded-For", f.address())
	status, _, text := f.send(t, request)
	var answer struct {
		SignedIn struct {
			User   struct{ ID string }
			Tokens struct{ AccessToken, RefreshToken string }
		}
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil || answer.SignedIn.Tokens.AccessToken == "" {
		t.Fatalf("%s %s: got %d %s", path, body, status, text)
	}
	token = answer.SignedIn.Tokens.AccessToken
	f.settle(t, token)
	f.signedIn++
	f.learn("refreshToken", answer.SignedIn.Tokens.RefreshToken)
	if !strings.Contains(body, harness.AdminPassword) { // who has to stay able to sign in
		f.learn("userId", answer.SignedIn.User.ID)
	}
	return token
}

// settle waits until users has heard of a new account.
func (f *fuzzed) settle(t *testing.T, token string) {
	t.Helper()
	harness.Eventually(t, 10*time.Second, "the profile", func() error {
		request := mustRequest(t, http.MethodGet, f.Gateways[0].URL+"/api/v1/me", nil)
		request.Header.Set("Authorization", "Bearer "+token)
		if status, _, body := f.send(t, request); status != http.StatusOK {
			return fmt.Errorf("%d %s", status, body)
		}
		return nil
	})
}

func (f *fuzzed) address() string {
	return fmt.Sprintf("10.%d.%d.%d", f.IntN(256), f.IntN(256), f.IntN(256))
}

// request makes a request of an operation: about half of them valid as far as
// their schemas tell. mutated says that the path may be another's.
func (f *fuzzed) request(t *testing.T, d *described, who *fuzzer) (request *http.Request, sent []byte, mutated bool) {
	t.Helper()
	path, query, headers := d.path, url.Values{}, http.Header{}
	breaks := f.chance(50)
	for _, parameter := range d.parameters {
		name, in := parameter["name"].(string), parameter["in"].(string)
		if required, _ := parameter["required"].(bool); !required && f.chance(70) || in != "path" && breaks && f.chance(10) {
			continue
		}
		broken := breaks && f.chance(30)
		value := f.parameter(name, parameter, broken)
		switch in {
		case "path":
			value := fmt.Sprint(value)
			mutated = mutated || broken
			path = strings.ReplaceAll(path, "{"+name+"}", url.PathEscape(value))
		case "query":
			query.Add(name, fmt.Sprint(value))
		case "header":
			if text := fmt.Sprint(value); isHeaderValue(text) {
				headers.Set(name, text)
			}
		}
	}
	if breaks && f.chance(5) {
		query.Add(pick(&f.values, []string{"hat", "page_size", "user.email", "", "connect"}), fmt.Sprint(f.odd()))
	}
	if d.body != nil && (d.required || f.chance(50)) {
		value := f.valid("", d.body)
		if breaks {
			value = f.broken(value)
		}
		var err error
		if sent, err = json.Marshal(value); err != nil {
			t.Fatal(err)
		}
		if breaks && f.chance(15) {
			sent = f.garbage(sent)
		}
		headers.Set("Content-Type", "application/json")
	}
	target := f.Gateways[0].URL + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	request, err := http.NewRequestWithContext(t.Context(), d.verb, target, bytes.NewReader(sent))
	if err != nil {
		t.Fatalf("%s: %v", d.id, err)
	}
	request.Header = headers
	request.Header.Set("X-Forwarded-For", f.address())
	if who.Access != "" {
		request.Header.Set("Authorization", "Bearer "+who.Access)
	}
	if breaks && f.chance(5) {
		request.Header.Set("Content-Type", pick(&f.values, []string{"text/plain", "application/json; charset=latin1", "application/x-www-form-urlencoded", "nonsense", "application/grpc-web+text"}))
	}
	if breaks && f.chance(3) {
		request.Header.Set("Authorization", pick(&f.values, []string{"Bearer", "Bearer x.y.z", "Basic YTpi", "Bearer " + who.Access + "x"}))
	}
	return request, sent, mutated
}

func isHeaderValue(text string) bool {
	return !strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c == 0x7f })
}

func (f *fuzzed) parameter(name string, parameter map[string]any, broken bool) any {
	var value any
	if content, ok := parameter["content"].(map[string]any); ok {
		value = f.valid("", content["application/json"].(map[string]any)["schema"].(map[string]any))
		if broken {
			value = f.broken(value)
		}
		text, _ := json.Marshal(value)
		if broken && f.chance(20) {
			text = f.garbage(text)
		}
		// HTTP's own limit is kept by Go's server, in words of its own.
		return string(text[:min(len(text), 10_000)])
	}
	value = f.valid(name, parameter["schema"].(map[string]any))
	switch {
	case name == "Connect-Timeout-Ms" && broken:
		return pick(&f.values, []string{"soon", "-1", "12345678901", "1.5", " "})
	case name == "Connect-Timeout-Ms":
		return "30000" // what is short would be over
	case broken:
		return f.broken(value)
	}
	return value
}

func (f *fuzzed) send(t *testing.T, request *http.Request) (int, http.Header, string) {
	t.Helper()
	return harness.Do(t, request)
}

func mustRequest(t *testing.T, method, target string, body io.Reader) *http.Request {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, target, body)
	if err != nil {
		t.Fatal(err)
	}
	return request
}

// fault is what is wrong with an answer; "" for nothing.
func (f *fuzzed) fault(d *described, status int, header http.Header, body string, mutated bool) string {
	if status >= 500 {
		return "that is the system's own fault"
	}
	listed, ok := d.responses[strconv.Itoa(status)].(map[string]any)
	reason := reasonIn(body)
	switch {
	case mutated && reason == "HTTP_METHOD_UNSUPPORTED" && status == http.StatusMethodNotAllowed:
		return f.check(body, "components", "schemas", "Error") // another path
	case !ok:
		return fmt.Sprintf("the document has no status %d for it", status)
	case header.Get("X-Request-Id") == "":
		return "it has no X-Request-Id"
	}
	listed = f.resolve(listed)
	reasons, _ := listed["x-gatehouse-reasons"].([]any)
	place := []string{"paths", d.path, strings.ToLower(d.verb), "responses", strconv.Itoa(status)}
	if ref, ok := d.responses[strconv.Itoa(status)].(map[string]any)["$ref"].(string); ok {
		place = strings.Split(strings.TrimPrefix(ref, "#/"), "/")
	}
	switch {
	case listed["content"] == nil && body != "":
		return "the document has no body for it"
	case listed["content"] == nil:
		return ""
	case header.Get("Content-Type") != "application/json":
		return "its Content-Type is " + header.Get("Content-Type")
	case status >= 400 && !slices.Contains(reasons, any(reason)):
		return fmt.Sprintf("the document has not the reason %q for it, but %v", reason, reasons)
	}
	return f.check(body, append(place, "content", "application/json", "schema")...)
}

// check holds a body against the schema at a place in the document.
func (f *fuzzed) check(body string, place ...string) string {
	for i := range place {
		place[i] = strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D").Replace(place[i])
	}
	schema, err := f.schemas.Compile(fuzzedDocument + "#/" + strings.Join(place, "/"))
	if err != nil {
		return err.Error()
	}
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(body))
	if err != nil {
		return err.Error()
	}
	if err := schema.Validate(value); err != nil {
		return err.Error()
	}
	return ""
}

func reasonIn(body string) string {
	var failure struct {
		Details []struct {
			Type  string
			Debug struct{ Reason string }
		}
	}
	_ = json.Unmarshal([]byte(body), &failure) // what is no JSON has none
	for _, detail := range failure.Details {
		if detail.Type == "google.rpc.ErrorInfo" {
			return detail.Debug.Reason
		}
	}
	return ""
}

// learnFrom takes the ids and tokens of an answer, for requests to come.
func (f *fuzzed) learnFrom(d *described, body string) {
	var answer any
	if json.Unmarshal([]byte(body), &answer) != nil {
		return
	}
	var walk func(name string, value any)
	walk = func(name string, value any) {
		switch value := value.(type) {
		case map[string]any:
			if id, ok := value["id"].(string); ok {
				switch {
				case value["lastUsedTime"] != nil:
					f.learn("sessionId", id)
				case value["status"] == "MAIL_STATUS_FAILED" || value["recipient"] != nil && f.chance(10):
					f.learn("mailId", id)
				}
			}
			for name, inner := range value {
				walk(name, inner)
			}
		case []any:
			for _, inner := range value {
				walk(name, inner)
			}
		case string:
			switch name {
			case "refreshToken", "deviceToken", "etag":
				f.learn(name, value)
			case "nextPageToken":
				f.learn("pageToken", value)
			}
		}
	}
	walk("", answer)
	if strings.HasSuffix(d.id, "istUserSessions") { // of whom the sessions are
		f.learn("userId", f.user)
	}
}

var linkToken = regexp.MustCompile(`/link/(\w+)#token=(ghl_[A-Za-z0-9_-]+)`)

// readMails takes the links of new mails.
func (f *fuzzed) readMails() {
	received := f.mails.Received()
	for _, mail := range received[f.read:] {
		if match := linkToken.FindStringSubmatch(mail.Text); match != nil {
			f.learn(match[1], match[2])
		}
	}
	f.read = len(received)
}

// needsAuthenticator matches operations whose success takes another provider, or a second
// factor of the caller's, which no document describes. TestParity has their answers.
var needsAuthenticator = regexp.MustCompile(`(?i)(CompleteLogin|CompleteReauthentication|Passkey\w*|FinishTOTPEnrolment|RegenerateRecoveryCodes|RemovePassword|ForgetDevice|ListUserFactors|FederatedLogin|LinkIdentity|UnlinkIdentity)$`)

// report wants most operations to have been met with success, and many with
// refusals: requests that never get anywhere would show nothing.
func (f *fuzzed) report(t *testing.T, took time.Duration) {
	t.Helper()
	all := map[int]int{}
	var never []string
	own := 0
	for _, d := range f.operations {
		good := 0
		for status, count := range d.statuses {
			all[status/100*100] += count
			if status < 400 {
				good += count
			}
		}
		own += map[bool]int{true: 1}[d.own]
		if good == 0 && d.own && !needsAuthenticator.MatchString(d.id) {
			never = append(never, d.id)
		}
	}
	t.Logf("%d requests of %d operations, and %d sign-ins, in %s: %v; never met with success: %v", f.made, len(f.operations), f.signedIn, took.Round(time.Millisecond), all, never)
	if all[200] < f.made/5 || all[400] < f.made/5 || len(never) > own/10 {
		t.Errorf("got %v, and never a success of %d operations %v: want a fifth of each kind, and a success of nine in ten operations", all, len(never), never)
	}
}
