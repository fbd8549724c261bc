package bff

import (
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"

	policyv1 "gatehouse/gen/policy/v1"
	"gatehouse/internal/fault"
)

func TestLinkPagesAreStrictAndOffline(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	kinds := map[string]string{
		"/link/verify": "text/html; charset=utf-8", "/link/reset": "text/html; charset=utf-8", "/link/email": "text/html; charset=utf-8",
		"/link/sign-in": "text/html; charset=utf-8",
		"/link/link.js": "text/javascript; charset=utf-8", "/link/link.css": "text/css; charset=utf-8",
	}
	for path, kind := range kinds {
		response, body := h.get(t, path)
		header := response.Header
		if response.StatusCode != http.StatusOK || header.Get("Content-Type") != kind || body == "" {
			t.Errorf("GET %s: got %d, %s, want a %s", path, response.StatusCode, header.Get("Content-Type"), kind)
		}
		for name, want := range map[string]string{
			"Referrer-Policy": "no-referrer", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
			"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
		} {
			if got := header.Get(name); got != want {
				t.Errorf("GET %s: got %s %q, want %q", path, name, got, want)
			}
		}
		for _, url := range anyURL.FindAllString(body, -1) {
			if !strings.HasPrefix(url, "// ") {
				t.Errorf("GET %s: got the foreign URL %s", path, url)
			}
		}
		for _, active := range []string{"javascript:", "@import", "url(", " onload=", " onclick=", " style=", "<style", "eval(", "innerhtml"} {
			if strings.Contains(strings.ToLower(body), active) {
				t.Errorf("GET %s: got %s", path, active)
			}
		}
		if response, _ := h.send(t, path, "{}"); response.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("POST %s: got %d, want 405", path, response.StatusCode)
		}
		if !strings.HasPrefix(kind, "text/html") {
			continue
		}
		want := []string{
			"default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'",
			"frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'",
		}
		if got := strings.Split(header.Get("Content-Security-Policy"), "; "); !slices.Equal(got, want) {
			t.Errorf("GET %s: got Content-Security-Policy %q, want %q", path, got, want)
		}
		for _, tag := range regexp.MustCompile(`<(script|link)\b[^>]*>([^<]*)`).FindAllStringSubmatch(body, -1) {
			reference := regexp.MustCompile(`(?:src|href)="([^"]*)"`).FindStringSubmatch(tag[0])
			if reference == nil || kinds[reference[1]] == "" || strings.TrimSpace(tag[2]) != "" {
				t.Errorf("GET %s: got %s, want it to name a file that is served and to hold nothing", path, tag[0])
			}
		}
	}
}

// linkPages are the pages that mailed links open, and linkForm what their forms send.
var (
	linkPages = []string{"/link/verify", "/link/reset", "/link/email"}
	linkForm  = regexp.MustCompile(`data-method="([^"]*)" data-password="([^"]*)" data-done="[^"]+"`)
)

// What a page's script sends is what the method that it names takes.
func TestLinkPagesNameMethodsForAnyone(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	policy, err := PolicyOf("", nil, backends(nil, nil)...)
	wantNoError(t, "PolicyOf", err)
	methods := policy.Methods
	for _, path := range linkPages {
		_, body := h.get(t, path)
		found := linkForm.FindStringSubmatch(body)
		if found == nil {
			t.Errorf("GET %s: got no form: %s", path, body)
			continue
		}
		at := slices.IndexFunc(methods, func(m Method) bool { return m.Path == found[1] })
		if at < 0 || methods[at].Who != describeAccess(&policyv1.Access{Who: &policyv1.Access_Anyone{}}) {
			t.Errorf("GET %s: it names %s, want a method for anyone", path, found[1])
			continue
		}
		fields := strings.Split(methods[at].Fields, ", ")
		if !slices.Contains(fields, "token") || found[2] != "" && !slices.Contains(fields, found[2]) {
			t.Errorf("GET %s: it sends token and %q to a method that takes %q", path, found[2], fields)
		}
		want := map[string]int{"/link/verify": 1, "/link/reset": 2}[path] // what may be known already isn't asked twice
		if inputs := strings.Count(body, `type="password"`); inputs != want {
			t.Errorf("GET %s: got %d password fields for the field %q", path, inputs, found[2])
		}
	}
}

// The page's script finds the reason of an error where Connect puts it.
func TestTheLinkPageFindsTheReasonOfAnError(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	for _, path := range linkPages {
		_, page := h.get(t, path)
		form := linkForm.FindStringSubmatch(page)
		procedure, password := form[1], form[2]
		method := strings.Replace(procedure, "/bff.v1.AuthService/", "/auth.v1.LinkService/", 1)
		method = strings.Replace(method, "/bff.v1.AccountService/", "/auth.v1.LinkService/", 1)
		h.fail(method, fault.New(connect.CodeFailedPrecondition, "LINK_USED", "Used."))
		body := `{"token":"ghl_x"}`
		if password != "" {
			body = `{"token":"ghl_x","` + password + `":"long enough"}`
		}
		response, got := h.send(t, procedure, body)
		for _, part := range []string{`"code":"failed_precondition"`, `"message":"Used."`, `"debug":{`, `"reason":"LINK_USED"`} {
			if response.StatusCode != http.StatusBadRequest || !strings.Contains(strings.ReplaceAll(got, " ", ""), part) {
				t.Errorf("POST %s: got %d %s, want %s", procedure, response.StatusCode, got, part)
			}
		}
	}
}
