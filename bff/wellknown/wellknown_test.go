package wellknown

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func serve(t *testing.T, config Config) string {
	t.Helper()
	mux := http.NewServeMux()
	for pattern, handler := range Handlers(config) {
		mux.Handle(pattern, handler)
	}
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL
}

func get(t *testing.T, url string) (*http.Response, string) {
	t.Helper()
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, string(body)
}

func TestDocumentsAreAtTheirPaths(t *testing.T) {
	t.Parallel()
	url := serve(t, Config{
		PublicURL: "https://auth.example.com/", Pages: true, SecurityContact: "mailto:security@example.com",
		Now: func() time.Time { return time.Date(2026, 11, 29, 4, 0, 0, 0, time.UTC) },
	})
	for path, want := range map[string]struct {
		status       int
		kind, within string
	}{
		"/robots.txt": {200, "text/plain; charset=utf-8", "Disallow: /link/"},
		"/.well-known/oauth-authorization-server": {200, "application/json", `{"issuer":"https://auth.example.com","jwks_uri":"https://auth.example.com/.well-known/jwks.json","response_types_supported":[]}`},
		"/.well-known/security.txt":               {200, "text/plain; charset=utf-8", "Contact: mailto:security@example.com\nExpires: 2027-05-28T00:00:00Z\nCanonical: https://auth.example.com/.well-known/security.txt\n"},
		"/.well-known/openid-configuration":       {404, "text/plain; charset=utf-8", ""},
	} {
		response, body := get(t, url+path)
		if response.StatusCode != want.status || response.Header.Get("Content-Type") != want.kind || !strings.Contains(body, want.within) {
			t.Errorf("GET %s: got %d, %q, %q, want %d, %q with %q", path, response.StatusCode, response.Header.Get("Content-Type"), body, want.status, want.kind, want.within)
		}
	}
	response, _ := get(t, url+"/.well-known/change-password")
	if response.StatusCode != http.StatusFound || response.Header.Get("Location") != "/account/password" {
		t.Errorf("change-password: got %d to %q, want 302 to /account/password", response.StatusCode, response.Header.Get("Location"))
	}
}

func TestWithoutPagesNoAddressLeadsToThem(t *testing.T) {
	t.Parallel()
	if response, _ := get(t, serve(t, Config{PublicURL: "https://auth.example.com"})+"/.well-known/change-password"); response.StatusCode != http.StatusNotFound {
		t.Errorf("change-password: got %d to %s, want 404", response.StatusCode, response.Header.Get("Location"))
	}
}

func TestWithoutAContactThereIsNoSecurityDocument(t *testing.T) {
	t.Parallel()
	if response, _ := get(t, serve(t, Config{PublicURL: "https://auth.example.com"})+"/.well-known/security.txt"); response.StatusCode != http.StatusNotFound {
		t.Errorf("got %d, want 404", response.StatusCode)
	}
}
