package returnto

import (
	"slices"
	"strings"
	"testing"
)

var origins = []string{"https://app.example.com", "http://localhost:5173", "https://[2001:db8::1]"}

func allowed(origin string) bool { return slices.Contains(origins, origin) }

func TestCheckAllowsPathsAndListedOrigins(t *testing.T) {
	t.Parallel()
	for target, want := range map[string]string{
		"/":                                   "/",
		"/account":                            "/account",
		"/account/":                           "/account/",
		"/account?tab=sessions#recent":        "/account?tab=sessions#recent",
		"/search?q=a%20b&next=//evil.example": "/search?q=a%20b&next=//evil.example",
		"/caf%C3%A9":                          "/caf%C3%A9",
		"/a%2Fb":                              "/a%2Fb",
		"/?next=https://evil.example":         "/?next=https://evil.example",
		"https://app.example.com":             "https://app.example.com",
		"https://app.example.com/done?x=1":    "https://app.example.com/done?x=1",
		"https://APP.example.com/done":        "https://APP.example.com/done",
		"https://app.example.com:443/done":    "https://app.example.com:443/done",
		"http://localhost:5173/":              "http://localhost:5173/",
		"https://[2001:db8::1]/x":             "https://[2001:db8::1]/x",
	} {
		if got, ok := Check(target, allowed); !ok || got != want {
			t.Errorf("Check(%q) = %q, %t, want %q, true", target, got, ok, want)
		}
	}
}

// hostile are targets that a browser would follow to another site, or that two readers
// could understand differently.
var hostile = []string{
	"", " ", "account", "?x", "#x", ".", "..",
	"//evil.example", "///evil.example", "////evil.example", "//evil.example/%2f..", "//app.example.com",
	`/\evil.example`, `\/evil.example`, `\\evil.example`, `/\/evil.example`, `/account\..\evil`,
	"/\tevil.example", "/\t/evil.example", "\t//evil.example", "/\n/evil.example", "/\r\nLocation: https://evil.example", " //evil.example", "/\x00", "/\x7f",
	"/.//evil.example", "/..//evil.example", "/a/..//evil.example", "/%2e%2e//evil.example", "/a/../b", "/./a",
	"/%2Fevil.example", "/%5Cevil.example", "/%09/evil.example", "/%0d%0aLocation:%20x", "/%00", "/%zz",
	"https:evil.example", "https:/evil.example", "https:///evil.example", "http:evil.example", "https:app.example.com", "https:/app.example.com",
	"https://evil.example", "http://app.example.com", "https://app.example.com:8443", "https://app.example.com.evil.example", "https://evil.example/app.example.com",
	"https://app.example.com@evil.example", "https://user@app.example.com", "https://user:password@app.example.com", "https://app.example.com%40evil.example", "https://app.example.com%2eevil.example",
	`https://app.example.com\@evil.example`, `https://evil.example\.app.example.com`, "https://app.example.com\t.evil.example", "https://app。example.com", "https://аpp.example.com", "https://app.example.com/\u2028",
	"https://app.example.com/../x", "https://app.example.com//evil.example",
	"HTTPS://app.example.com", "ftp://app.example.com", "ws://app.example.com", "javascript:alert(1)", "JavaScript:alert(1)", "java\tscript:alert(1)", "data:text/html,x", "vbscript:x", "blob:https://app.example.com/x", "about:blank", "file:///etc/passwd",
	"http://localhost:5173.evil.example", "http://localhost:51730", "http://localhost", "http://[::1]", "https://2001:db8::1/",
	"null", "undefined", "/" + strings.Repeat("a", maxLength),
}

func TestCheckRefusesHostileTargets(t *testing.T) {
	t.Parallel()
	if len(hostile) < 40 {
		t.Fatalf("%d hostile targets, want at least 40", len(hostile))
	}
	for _, target := range hostile {
		if got, ok := Check(target, allowed); ok {
			t.Errorf("Check(%q) = %q, true, want a refusal", target, got)
		}
	}
}

func TestCheckWithoutAnAllowListAllowsOnlyPaths(t *testing.T) {
	t.Parallel()
	if _, ok := Check("https://app.example.com", nil); ok {
		t.Error("a URL was allowed without an allow-list")
	}
	if got, ok := Check("/account", nil); !ok || got != "/account" {
		t.Errorf("got %q, %t, want /account, true", got, ok)
	}
}

func FuzzCheck(f *testing.F) {
	for _, target := range hostile {
		f.Add(target)
	}
	f.Fuzz(func(t *testing.T, target string) {
		got, ok := Check(target, allowed)
		if !ok {
			return
		}
		if strings.HasPrefix(got, "/") && (len(got) > 1 && (got[1] == '/' || got[1] == '\\')) {
			t.Errorf("Check(%q) = %q leads to another site", target, got)
		}
		if again, ok := Check(got, allowed); !ok || again != got {
			t.Errorf("Check(%q) = %q, which is not its own result: %q, %t", target, got, again, ok)
		}
	})
}
