package browser

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestAFormCannotUseCookies(t *testing.T) {
	t.Parallel()
	const app = "https://app.example"
	origins := NewOrigins([]string{app}, slog.New(slog.DiscardHandler))
	for kind, mayUse := range map[string]bool{
		"application/x-www-form-urlencoded": false, "multipart/form-data; boundary=x": false, "text/plain": false, "Text/Plain;application/json": false, "": false,
		"application/json": true, "application/proto": true,
	} {
		for _, page := range [][]string{{"Sec-Fetch-Site", "same-origin"}, {"Sec-Fetch-Site", "cross-site", "Origin", app}} {
			request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "https://gatehouse.example/api/v1/me", http.NoBody)
			for i := 0; i < len(page); i += 2 {
				request.Header.Set(page[i], page[i+1])
			}
			request.Header.Set("Content-Type", kind)
			if got := origins.mayUse(request); got != mayUse {
				t.Errorf("a write of type %q of a page %v: may use the cookies: %v, want %v", kind, page, got, mayUse)
			}
			request.Header.Set("Connect-Protocol-Version", "1")
			if !origins.mayUse(request) {
				t.Errorf("a write of type %q of a page %v, with the Connect header: may not use the cookies", kind, page)
			}
		}
	}
}
