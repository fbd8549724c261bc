package bff

import (
	"compress/gzip"
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestAssetsAreCompressedForClientsThatAcceptIt(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	path := h.assetPath(t, "/docs", "swagger-ui/swagger-ui.css")
	_, plain := h.fetch(t, http.MethodGet, path, "", "Accept-Encoding", "identity")
	if !strings.Contains(plain, ".swagger-ui") {
		t.Fatalf("GET %s: got %.80q, want Swagger UI's styles", path, plain)
	}
	for accepted, packed := range map[string]bool{
		"gzip": true, "br, gzip;q=0.8": true, "GZIP": true, "*": true, "identity;q=0, *;q=0.5": true,
		"": false, "br": false, "gzip;q=0": false, "gzip; q=0.0, *": false, "*;q=0": false, "xgzip": false,
	} {
		response, body := h.fetch(t, http.MethodGet, path, "", "Accept-Encoding", accepted)
		if got := response.Header.Get("Content-Encoding") == "gzip"; got != packed {
			t.Errorf("Accept-Encoding %q: got packed %v, want %v", accepted, got, packed)
			continue
		}
		if packed {
			reader, err := gzip.NewReader(strings.NewReader(body))
			wantNoError(t, "read", err)
			text, err := io.ReadAll(reader)
			wantNoError(t, "unpack", err)
			body = string(text)
		}
		if body != plain {
			t.Errorf("Accept-Encoding %q: got %d other bytes, want the %d that it is", accepted, len(body), len(plain))
		}
		if got := response.Header.Get("Vary"); !strings.Contains(got, "Accept-Encoding") {
			t.Errorf("Accept-Encoding %q: got Vary %q", accepted, got)
		}
	}
}

func TestAssetsAreCachedUntilTheyChange(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	current := h.assetPath(t, "/developers", "index.js")
	for path, want := range map[string]string{
		current: "public, max-age=31536000, immutable", "/assets/0123456789abcdef/index.js": "no-store",
	} {
		response, body := h.get(t, path)
		if got := response.Header.Get("Cache-Control"); response.StatusCode != http.StatusOK || got != want {
			t.Errorf("GET %s: got %d, Cache-Control %q, want %q", path, response.StatusCode, got, want)
		}
		if kind, sniff := response.Header.Get("Content-Type"), response.Header.Get("X-Content-Type-Options"); kind != "text/javascript; charset=utf-8" || sniff != "nosniff" {
			t.Errorf("GET %s: got Content-Type %q, X-Content-Type-Options %q", path, kind, sniff)
		}
		if !strings.Contains(body, "status.json") {
			t.Errorf("GET %s: got %q", path, body)
		}
	}
}

// assetPath returns where an asset is served, as a page names it.
func (h *harness) assetPath(t *testing.T, page, name string) string {
	t.Helper()
	_, body := h.get(t, page)
	for _, path := range assetPath.FindAllString(body, -1) {
		if strings.HasSuffix(path, "/"+name) {
			return path
		}
	}
	t.Fatalf("GET %s: got no asset %s", page, name)
	return ""
}
