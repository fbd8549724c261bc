package bff

import (
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	bffv1 "gatehouse/gen/bff/v1"
)

var anyURL = regexp.MustCompile(`(?i)(https?:)?//[a-z0-9][^\s"'<>]*`)

func TestPagesAreStrictAndOffline(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	for path, holds := range map[string]string{"/developers": `href="/docs"`, "/docs": "swagger-ui-bundle.js", "/redoc": "redoc.standalone.js"} {
		response, body := h.get(t, path)
		if response.StatusCode != http.StatusOK || !strings.Contains(body, holds) {
			t.Errorf("GET %s: got %d %s, want a page with %s", path, response.StatusCode, body, holds)
		}
		policy := response.Header.Get("Content-Security-Policy")
		for _, directive := range []string{"default-src 'none'", "script-src 'self'", "connect-src 'self'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"} {
			if !slices.Contains(strings.Split(policy, "; "), directive) {
				t.Errorf("GET %s: got Content-Security-Policy %q, want %s", path, policy, directive)
			}
		}
		for _, loose := range []string{"unsafe-", "http:", "https:", "*"} {
			if strings.Contains(policy, loose) {
				t.Errorf("GET %s: got Content-Security-Policy %q, want no %s", path, policy, loose)
			}
		}
		for name, want := range map[string]string{
			"Content-Type": "text/html; charset=utf-8", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cross-Origin-Opener-Policy": "same-origin",
		} {
			if got := response.Header.Get(name); got != want {
				t.Errorf("GET %s: got %s %q, want %q", path, name, got, want)
			}
		}
		for _, url := range anyURL.FindAllString(body, -1) {
			if !strings.HasPrefix(url, publicURL) {
				t.Errorf("GET %s: got the foreign URL %s", path, url)
			}
		}
		for _, active := range []string{"<script>", "<style", " style=", "javascript:", "@import", "url(", " onload=", " onclick="} {
			if strings.Contains(strings.ToLower(body), active) {
				t.Errorf("GET %s: got a page with %s", path, active)
			}
		}
		for _, asset := range assetPath.FindAllString(body, -1) {
			if response, _ := h.get(t, asset); response.StatusCode != http.StatusOK {
				t.Errorf("GET %s, which %s has: got %d", asset, path, response.StatusCode)
			}
		}
	}
}

var assetPath = regexp.MustCompile(`/assets/[^"]+`)

func TestOtherPathsAreNotFound(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	for _, path := range []string{"/x", "/docs/x", "/index.html", "/../etc/passwd", "/.well-known/", "/.well-known/openid-configuration", "/debug/pprof/", "/metrics", "/assets/", "/assets/x/web.go", "/assets/x/index.html"} {
		response, text := h.get(t, path)
		if response.StatusCode != http.StatusNotFound {
			t.Errorf("GET %s: got %d, want 404", path, response.StatusCode)
		}
		if !strings.HasPrefix(path, "/assets/") && !strings.Contains(text, "PATH_UNKNOWN") {
			t.Errorf("GET %s: got %q, want an error as everywhere", path, text)
		}
	}
	for _, path := range []string{"/", "/developers", "/sign-in", "/account/factors", "/docs", "/redoc", "/status.json", "/.well-known/jwks.json"} {
		response, text := h.send(t, path, "{}")
		if response.StatusCode != http.StatusMethodNotAllowed || !strings.Contains(text, "HTTP_METHOD_UNSUPPORTED") || response.Header.Get("Allow") != "GET, HEAD" {
			t.Errorf("POST %s: got %d, Allow %q and %q, want 405 in words", path, response.StatusCode, response.Header.Get("Allow"), text)
		}
		if response, _ := h.fetch(t, http.MethodHead, path, ""); response.StatusCode != http.StatusOK {
			t.Errorf("HEAD %s: got %d, want 200", path, response.StatusCode)
		}
	}
}

const app = "https://app.example"

func TestListedOriginsMayCall(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{origins: []string{app, "http://localhost:5173"}})
	for _, origin := range []string{app, "http://localhost:5173"} {
		response, _ := h.fetch(t, http.MethodOptions, bffv1.AuthServiceLoginProcedure, "", "Origin", origin,
			"Access-Control-Request-Method", "POST",
			"Access-Control-Request-Headers", "authorization,connect-protocol-version,connect-timeout-ms,content-type,grpc-timeout,idempotency-key,x-grpc-web,x-request-id,x-user-agent")
		header := response.Header
		if response.StatusCode != http.StatusNoContent || header.Get("Access-Control-Allow-Origin") != origin {
			t.Errorf("preflight from %s: got %d, allowed %q, want 204 and the origin", origin, response.StatusCode, header.Get("Access-Control-Allow-Origin"))
		}
		if header.Get("Access-Control-Allow-Methods") != "POST" {
			t.Errorf("preflight from %s: got methods %q, want POST", origin, header.Get("Access-Control-Allow-Methods"))
		}
		for _, wanted := range []string{"authorization", "connect-protocol-version", "connect-timeout-ms", "content-type", "grpc-timeout", "idempotency-key", "x-grpc-web", "x-request-id", "x-user-agent"} {
			if !strings.Contains(strings.ToLower(header.Get("Access-Control-Allow-Headers")), wanted) {
				t.Errorf("preflight from %s: got headers %q, want %s too", origin, header.Get("Access-Control-Allow-Headers"), wanted)
			}
		}
		if !strings.Contains(strings.Join(header.Values("Vary"), ","), "Origin") {
			t.Errorf("preflight from %s: got Vary %q, want Origin", origin, header.Values("Vary"))
		}

		_, got := h.getMe(t, "", "Origin", origin)
		if allowed := got.header.Get("Access-Control-Allow-Origin"); allowed != origin {
			t.Errorf("a call from %s: allowed %q, want the origin", origin, allowed)
		}
		for _, wanted := range []string{"Grpc-Status", "Grpc-Message", "Grpc-Status-Details-Bin", "Retry-After", "X-Request-Id"} {
			if exposed := got.header.Get("Access-Control-Expose-Headers"); !strings.Contains(exposed, wanted) {
				t.Errorf("a call from %s: exposed %q, want %s too", origin, exposed, wanted)
			}
		}
		if credentials := got.header.Get("Access-Control-Allow-Credentials"); credentials != "true" {
			t.Errorf("a call from %s: got Access-Control-Allow-Credentials %q, want true: the session may be in cookies", origin, credentials)
		}
	}
}

func TestOtherOriginsMayNot(t *testing.T) {
	t.Parallel()
	for _, listed := range [][]string{{app}, {"*"}, {"https://*.example"}, {}, nil} {
		h := newHarness(t, options{origins: listed})
		for _, origin := range []string{
			"https://evil.example", "http://app.example", app + ":8443", app + ".evil.example", "https://evil.app.example", "https://app.exampl", "null", publicURL, "*",
		} {
			if slices.Contains(listed, origin) {
				continue
			}
			preflight, _ := h.fetch(t, http.MethodOptions, bffv1.AuthServiceLoginProcedure, "", "Origin", origin, "Access-Control-Request-Method", "POST")
			_, got := h.getMe(t, "", "Origin", origin)
			for name := range preflight.Header {
				if strings.HasPrefix(name, "Access-Control-") {
					t.Errorf("origins %q: a preflight from %s got %s: %s", listed, origin, name, preflight.Header.Get(name))
				}
			}
			if allowed := got.header.Get("Access-Control-Allow-Origin"); allowed != "" {
				t.Errorf("origins %q: a call from %s: allowed %q, want none", listed, origin, allowed)
			}
		}
	}
}
