package pages

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// open requests the first page, as a person at an address does.
func open(t *testing.T, handler http.Handler, host, remote string, header ...string) string {
	t.Helper()
	request := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+host+"/", http.NoBody)
	request.RemoteAddr = remote
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, request)
	return recorder.Body.String()
}

func TestFactsOfTheFirstRunStayOnThisMachine(t *testing.T) {
	t.Parallel()
	handler := NewHandler(Config{FirstRun: &FirstRun{URL: "http://localhost:8001", Administrator: "admin@localhost"}})
	for _, here := range [][2]string{{"localhost:8001", "127.0.0.1:5000"}, {"127.0.0.1:8001", "127.0.0.1:5000"}, {"[::1]:8001", "[::1]:5000"}, {"localhost", "127.0.0.1:5000"}} {
		if body := open(t, handler, here[0], here[1]); !strings.Contains(body, "admin@localhost") {
			t.Errorf("%v: got no facts of the first run", here)
		}
	}
	for _, other := range [][]string{
		{"localhost:8001", "203.0.113.7:5000"},
		{"evil.example:8001", "127.0.0.1:5000"},
		{"localhost.evil.example:8001", "127.0.0.1:5000"},
		{"localhost:8001", "127.0.0.1:5000", "X-Forwarded-For", "203.0.113.7"},
		{"localhost:8001", "127.0.0.1:5000", "Forwarded", "for=203.0.113.7"},
		{"localhost:8001", "127.0.0.1:5000", "Via", "1.1 proxy"},
		{"localhost:8001", "[::1]:5000", "X-Real-Ip", "203.0.113.7"},
	} {
		if body := open(t, handler, other[0], other[1], other[2:]...); strings.Contains(body, "admin@localhost") || strings.Contains(body, "firstRun") {
			t.Errorf("%v: got the facts of the first run", other)
		}
	}
}

// The name of a product is text, wherever it stands.
func TestTheNameOfAProductIsText(t *testing.T) {
	t.Parallel()
	body := open(t, NewHandler(Config{AppName: `"><script>alert(1)</script>`}), "localhost", "127.0.0.1:1")
	if strings.Contains(body, "<script>alert") || !strings.Contains(body, "&lt;script&gt;alert(1)") {
		t.Errorf("got %s", body)
	}
}

// Each path of the pages has a document of a bundle that exists, with its script.
func TestEveryPageHasABundle(t *testing.T) {
	t.Parallel()
	b := embedded()
	for _, name := range []string{"sign-in", "account", "console"} {
		files := b.pages[name]
		for _, file := range append([]string{files.Script, files.Style, b.icon}, files.Imports...) {
			if len(b.files[file]) == 0 {
				t.Errorf("%s: the bundle has no file %q", name, file)
			}
		}
	}
	if len(b.keys) < 200 {
		t.Errorf("got %d texts", len(b.keys))
	}
}

// A page of the version before this one gets this version's script, but no part of it: a
// part shares state with the page that loads it.
func TestAPartIsOfThePageThatLoadsIt(t *testing.T) {
	t.Parallel()
	handler := NewHandler(Config{AcceptsGzip: func([]string) bool { return true }})
	status := func(name string) int {
		request := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://localhost"+assetsRoot+name, http.NoBody)
		recorder := httptest.NewRecorder()
		handler.ServeHTTP(recorder, request)
		return recorder.Code
	}
	current := ""
	for name := range embedded().files {
		if stem(name) == "factors.js" {
			current = name
		}
	}
	for name, want := range map[string]int{current: http.StatusOK, "factors-0LDH4SH0.js": http.StatusNotFound, "account-0LDH4SH0.js": http.StatusOK} {
		if got := status(name); got != want {
			t.Errorf("%s: got %d, want %d", name, got, want)
		}
	}
}

func TestMailedCodesAreOfferedWhereTheyAreOn(t *testing.T) {
	t.Parallel()
	for _, on := range []bool{false, true} {
		body := open(t, NewHandler(Config{EmailSignIn: on}), "localhost", "127.0.0.1:1")
		if got := strings.Contains(body, "emailSignIn"); got != on {
			t.Errorf("EmailSignIn %t: the page has emailSignIn: %t", on, got)
		}
	}
}
