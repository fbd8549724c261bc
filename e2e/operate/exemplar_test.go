package operate

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"

	"gatehouse/e2e/harness"
)

// scrapeOpenMetrics scrapes as Prometheus does: exemplars exist in this format only.
func scrapeOpenMetrics(t *testing.T, url string) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Accept", "application/openmetrics-text; version=1.0.0")
	status, header, body := harness.Do(t, request)
	if status != http.StatusOK || !strings.HasPrefix(header.Get("Content-Type"), "application/openmetrics-text") {
		t.Fatalf("scrape: %d %s", status, header.Get("Content-Type"))
	}
	return body
}

// exemplarOf finds the trace of the exemplars of a method.
func exemplarOf(metric, method string) *regexp.Regexp {
	return regexp.MustCompile(`(?m)^` + metric + `_bucket\{[^}]*` + regexp.QuoteMeta(method) + `[^}]*\} \d+ # \{[^}]*trace_id="([0-9a-f]{32})"`)
}

// getMe calls GetMe as somebody who names a trace.
func getMe(t *testing.T, s *harness.System, token string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/bff.v1.AccountService/GetMe", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"Content-Type": "application/json", "Authorization": "Bearer " + token, "Traceparent": strangersParent,
	} {
		request.Header.Set(name, value)
	}
	if status, _, body := harness.Do(t, request); status != http.StatusOK {
		t.Fatalf("GetMe: %d %s", status, body)
	}
}

// The exemplars of a duration name a trace that the collector has, never that of the
// caller.
func TestDurationsLeadToTraces(t *testing.T) {
	t.Parallel()
	c := newCollector(t)
	s := harness.Start(t, harness.ThreeProcesses, harness.WithOps(), harness.WithSettings("OTEL_EXPORTER_OTLP_ENDPOINT="+c.url, "OTEL_BSP_SCHEDULE_DELAY=100"))
	getMe(t, s, s.SignUp(t, "ada@example.com").Access)
	for _, one := range []struct {
		role, metric, method, span string
		kind                       tracev1.Span_SpanKind
	}{
		{harness.RoleBff, "rpc_server_call_duration_seconds", `rpc_method="bff.v1.AccountService/GetMe"`, "bff.v1.AccountService/GetMe", tracev1.Span_SPAN_KIND_SERVER},
		{harness.RoleBff, "rpc_client_call_duration_seconds", `rpc_method="users.v1.ProfileService/GetProfile"`, "users.v1.ProfileService/GetProfile", tracev1.Span_SPAN_KIND_CLIENT},
		{harness.RoleUsers, "rpc_server_call_duration_seconds", `rpc_method="users.v1.ProfileService/GetProfile"`, "users.v1.ProfileService/GetProfile", tracev1.Span_SPAN_KIND_SERVER},
		{harness.RoleBff, "gatehouse_bff_queue_delay_seconds", `class="`, "bff.v1.AuthService/Register", tracev1.Span_SPAN_KIND_SERVER},
		{harness.RoleAuth, "gatehouse_auth_password_duration_seconds", "", "bff.v1.AuthService/Register", tracev1.Span_SPAN_KIND_SERVER},
	} {
		text := scrapeOpenMetrics(t, s.Ops()[one.role])
		if strings.Contains(text, strangersTrace) {
			t.Errorf("%s: an exemplar has the trace that the caller chose", one.role)
		}
		found := exemplarOf(one.metric, one.method).FindAllStringSubmatch(text, -1)
		if found == nil {
			t.Errorf("%s: %s with %s has no exemplar", one.role, one.metric, one.method)
			continue
		}
		harness.Eventually(t, 30*time.Second, "collect the trace of an exemplar", func() error {
			for _, match := range found {
				if c.find(match[1], one.span, one.kind) != nil {
					return nil
				}
			}
			return fmt.Errorf("%s with %s names the traces %q, of which none has a span of %s", one.metric, one.method, found, one.span)
		})
	}
}

// A process that exports no traces has no exemplars, whatever trace its callers name.
func TestWithoutTracesThereAreNoExemplars(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.OneProcess, harness.WithOps())
	getMe(t, s, s.SignUp(t, "ada@example.com").Access)
	text := scrapeOpenMetrics(t, s.Ops()[harness.RoleUp])
	if !strings.Contains(text, `rpc_method="bff.v1.AccountService/GetMe"`) {
		t.Fatal("GetMe was not measured")
	}
	if found := regexp.MustCompile(`.*trace_id=.*`).FindString(text); found != "" {
		t.Errorf("an exemplar: %s", found)
	}
}
