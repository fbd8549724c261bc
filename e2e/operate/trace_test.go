package operate

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
)

// collector takes traces as an OpenTelemetry collector does.
type collector struct {
	url   string
	mu    sync.Mutex
	spans []span
}

// span is a span and whose it is.
type span struct {
	*tracev1.Span
	service string
}

func newCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var request collectorv1.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(body, &request)
		}
		if err != nil || r.URL.Path != "/v1/traces" {
			http.Error(w, "no traces", http.StatusBadRequest)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, resource := range request.GetResourceSpans() {
			var service string
			for _, attribute := range resource.GetResource().GetAttributes() {
				if attribute.GetKey() == "service.name" {
					service = attribute.GetValue().GetStringValue()
				}
			}
			for _, scope := range resource.GetScopeSpans() {
				for _, one := range scope.GetSpans() {
					c.spans = append(c.spans, span{Span: one, service: service})
				}
			}
		}
	}))
	t.Cleanup(server.Close)
	c.url = server.URL
	return c
}

// find returns the spans of a method and a kind within a trace.
func (c *collector) find(trace, method string, kind tracev1.Span_SpanKind) []span {
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []span
	for _, one := range c.spans {
		if hex.EncodeToString(one.GetTraceId()) == trace && one.GetName() == method && one.GetKind() == kind {
			found = append(found, one)
		}
	}
	return found
}

// spanOf returns a span of a trace by its id; nil if it was not received.
func (c *collector) spanOf(trace string, id []byte) *span {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, one := range c.spans {
		if hex.EncodeToString(one.GetTraceId()) == trace && string(one.GetSpanId()) == string(id) {
			return &one
		}
	}
	return nil
}

// holds reports whether a text stands anywhere in what was traced.
func (c *collector) holds(text string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.ContainsFunc(c.spans, func(one span) bool {
		form, err := proto.Marshal(one.Span)
		return err != nil || bytes.Contains(form, []byte(text))
	})
}

func (c *collector) names() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []string
	for _, one := range c.spans {
		all = append(all, fmt.Sprintf("%x %s %s %s %x below %x", one.GetTraceId(), one.service, one.GetKind(), one.GetName(), one.GetSpanId(), one.GetParentSpanId()))
	}
	slices.Sort(all)
	return all
}

const (
	strangersTrace  = "4bf92f3577b34da6a3ce929d0e0e4736"
	strangersParent = "00-" + strangersTrace + "-00f067aa0ba902b7-01"
)

// A call's trace begins at the gateway, which links to the caller's but doesn't
// go on with it: a stranger must neither choose what is recorded nor write into
// the traces of others. From there it goes through every service, and each line
// of the log that is about the call names it.
func TestATraceGoesThroughEveryHop(t *testing.T) {
	t.Parallel()
	for _, shape := range harness.Shapes {
		t.Run(string(shape), func(t *testing.T) {
			t.Parallel()
			c := newCollector(t)
			// Without operations, so that it is traces alone that are wanted.
			s := harness.Start(t, shape, harness.WithSettings("OTEL_EXPORTER_OTLP_ENDPOINT="+c.url, "OTEL_BSP_SCHEDULE_DELAY=100"))
			ada := s.SignUp(t, "ada@example.com")
			token := ada.Access
			callByKey(t, s, ada)
			request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/bff.v1.AccountService/GetMe", strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			for name, value := range map[string]string{
				"Content-Type": "application/json", "Authorization": "Bearer " + token,
				"Traceparent": strangersParent, "X-Request-Id": "traced",
			} {
				request.Header.Set(name, value)
			}
			if status, _, body := harness.Do(t, request); status != http.StatusOK {
				t.Fatalf("GetMe: %d %s", status, body)
			}

			trace := loggedTrace(t, s, "traced")
			if trace == strangersTrace {
				t.Error("the gateway goes on with a stranger's trace")
			}
			callees := map[string]string{
				"auth.v1.AccountService/GetAccount":   harness.RoleAuth,
				"auth.v1.SessionService/ListSessions": harness.RoleAuth,
				"users.v1.ProfileService/GetProfile":  harness.RoleUsers,
			}
			harness.Eventually(t, timeToExport, "the trace's spans", func() error {
				root := c.find(trace, "bff.v1.AccountService/GetMe", tracev1.Span_SPAN_KIND_SERVER)
				if len(root) != 1 || len(root[0].GetParentSpanId()) != 0 {
					return fmt.Errorf("%d roots in %s; there are\n%s", len(root), trace, strings.Join(c.names(), "\n"))
				}
				if links := root[0].GetLinks(); len(links) != 1 || hex.EncodeToString(links[0].GetTraceId()) != strangersTrace {
					return fmt.Errorf("the root's links are %v, want the caller's trace", links)
				}
				for method, role := range callees {
					calls, answers := c.find(trace, method, tracev1.Span_SPAN_KIND_CLIENT), c.find(trace, method, tracev1.Span_SPAN_KIND_SERVER)
					if len(calls) != 1 || len(answers) != 1 {
						return fmt.Errorf("%s: %d calls and %d answers; there are\n%s", method, len(calls), len(answers), strings.Join(c.names(), "\n"))
					}
					// Between the two is the part of the answer that it is called for.
					part := c.spanOf(trace, calls[0].GetParentSpanId())
					if part == nil || string(part.GetParentSpanId()) != string(root[0].GetSpanId()) || string(answers[0].GetParentSpanId()) != string(calls[0].GetSpanId()) {
						return fmt.Errorf("%s isn't below its caller; there are\n%s", method, strings.Join(c.names(), "\n"))
					}
					want := "gatehouse"
					if shape == harness.ThreeProcesses {
						want += "-" + role
					}
					if answers[0].service != want {
						return fmt.Errorf("%s was answered by %q, want %q", method, answers[0].service, want)
					}
				}
				return nil
			})
			wantNoSecretTraced(t, s, c, token)
			if status, _ := harness.Get(t, s.URL+"/metrics"); status != http.StatusNotFound {
				t.Errorf("/metrics with traces alone: %d", status)
			}
		})
	}
}

// callByKey makes a call by an API key.
func callByKey(t *testing.T, s *harness.System, p *harness.Person) {
	t.Helper()
	if _, err := s.Owner.Exec(t.Context(), "UPDATE auth.accounts SET email_verified = true"); err != nil {
		t.Fatal(err)
	}
	key, err := p.Client().Account.CreateKey(t.Context(), &bffv1.CreateKeyRequest{Name: "Report", Scopes: []string{"me:read"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Client(key.GetSecret()).Account.GetMe(t.Context(), &bffv1.GetMeRequest{}); err != nil {
		t.Fatalf("GetMe with a key: %v", err)
	}
}

// wantNoSecretTraced signs in with wrong credentials and checks that the traces hold
// the calls and nothing that they carry.
func wantNoSecretTraced(t *testing.T, s *harness.System, c *collector, token string) {
	t.Helper()
	const guess = "a guess at hers"
	if _, err := s.Client("").Auth.Login(t.Context(), &bffv1.LoginRequest{Email: "ada@example.com", Password: guess}); err == nil {
		t.Error("a guess signs in")
	}
	if _, err := s.Client("").Auth.Login(t.Context(), &bffv1.LoginRequest{Email: guess, Password: guess}); err == nil {
		t.Error("what is no email signs in")
	}
	harness.Eventually(t, timeToExport, "the sign-ins' spans", func() error {
		if n := strings.Count(strings.Join(c.names(), "\n"), "SERVER bff.v1.AuthService/Login"); n != 2 {
			return fmt.Errorf("%d spans of Login", n)
		}
		return nil
	})
	if !c.holds("AuthService/Login") {
		t.Error("nothing is found in the traces")
	}
	for _, secret := range []string{harness.Password, guess, "ada@example.com", token, "ghr_", "ghk_"} {
		if c.holds(secret) {
			t.Errorf("the traces hold %q", secret)
		}
	}
}

// timeToExport is long enough for a machine that is busy with other tests.
const timeToExport = 30 * time.Second

// loggedTrace returns the one trace that all lines about a request name, in the
// logs of all processes.
func loggedTrace(t *testing.T, s *harness.System, requestID string) string {
	t.Helper()
	want := 1
	if len(s.Processes) > 1 {
		want = 4 // the gateway's, and those of its three calls
	}
	var trace string
	harness.Eventually(t, 10*time.Second, "the log's lines", func() error {
		lines := 0
		for _, p := range s.Processes {
			for line := range strings.Lines(p.Stderr.String()) {
				var entry struct {
					Message   string `json:"msg"`
					RequestID string `json:"request_id"`
					TraceID   string `json:"trace_id"`
				}
				if json.Unmarshal([]byte(line), &entry) != nil || entry.Message != "call" || entry.RequestID != requestID {
					continue
				}
				if lines++; entry.TraceID == "" || lines > 1 && entry.TraceID != trace {
					return fmt.Errorf("a line names the trace %q, another %q", entry.TraceID, trace)
				}
				trace = entry.TraceID
			}
		}
		if lines != want {
			return fmt.Errorf("there are %d, want %d", lines, want)
		}
		return nil
	})
	return trace
}

// Without a collector and without operators, a call is neither measured nor
// traced: what a caller sends as its trace has no effect.
func TestWithoutTelemetryNothingIsTraced(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.ThreeProcesses)
	token := s.SignUp(t, "ada@example.com").Access
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/bff.v1.AccountService/GetMe", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", "Bearer "+token)
	request.Header.Set("Traceparent", strangersParent)
	if status, _, body := harness.Do(t, request); status != http.StatusOK {
		t.Fatalf("GetMe: %d %s", status, body)
	}
	for name, p := range s.Processes {
		if strings.Contains(p.Stderr.String(), "trace_id") {
			t.Errorf("%s names a trace:\n%s", name, p.Stderr.String())
		}
	}
}

// An unreachable collector costs its traces and a line in the log, no call and
// no exit.
func TestAnUnreachableCollectorDelaysNoCall(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.OneProcess, harness.WithSettings("OTEL_EXPORTER_OTLP_ENDPOINT=http://"+harness.FreeAddress(t), "OTEL_BSP_SCHEDULE_DELAY=50"))
	p := s.Processes[harness.RoleUp]
	s.SignUp(t, "ada@example.com")
	harness.Eventually(t, timeToExport, "the log's line", func() error {
		if !strings.Contains(p.Stderr.String(), "telemetry is lost") {
			return fmt.Errorf("there is none:\n%s", p.Stderr.String())
		}
		return nil
	})
	if took, status := p.Interrupt(t); status != 0 || took > timeToExport {
		t.Errorf("it ended with %d after %s", status, took)
	}
}
