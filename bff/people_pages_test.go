package bff

import (
	"net/http"
	"regexp"
	"strings"
	"testing"

	"gatehouse/bff/pages"
)

// peoplePages are the pages for people, of each kind.
var peoplePages = []string{"/", "/sign-in", "/sign-in/factor", "/sign-up", "/recover", "/link/verify", "/link/reset", "/link/email", "/account", "/account/factors", "/console", "/console/users", "/error"}

func TestPagesForPeopleAreStrictAndOffline(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
	for _, path := range peoplePages {
		response, body := h.get(t, path)
		if response.StatusCode != http.StatusOK {
			t.Errorf("GET %s: got %d", path, response.StatusCode)
		}
		for name, want := range map[string]string{
			"Content-Security-Policy": policy, "Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer",
			"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin", "X-Content-Type-Options": "nosniff",
		} {
			if got := response.Header.Get(name); got != want {
				t.Errorf("GET %s: got %s %q, want %q", path, name, got, want)
			}
		}
		for _, tag := range regexp.MustCompile(`<(script|link)\b[^>]*(?:src|href)="([^"]*)"[^>]*>([^<]*)`).FindAllStringSubmatch(body, -1) {
			asset, _ := h.get(t, tag[2])
			if asset.StatusCode != http.StatusOK || asset.Header.Get("Cache-Control") != "public, max-age=31536000, immutable" || strings.TrimSpace(tag[3]) != "" {
				t.Errorf("GET %s: %s: got %d, Cache-Control %q", path, tag[0], asset.StatusCode, asset.Header.Get("Cache-Control"))
			}
		}
		for _, active := range []string{"javascript:", " style=", "<style", " onload=", " onclick="} {
			if strings.Contains(strings.ToLower(body), active) {
				t.Errorf("GET %s: got %s", path, active)
			}
		}
	}
}

func TestAnAddressWithoutAPageIsAPageForBrowsersAlone(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	for _, path := range []string{"/nothing", "/account/nothing", "/sign-in/"} {
		response, body := h.fetch(t, http.MethodGet, path, "", "Accept", "text/html,*/*;q=0.8")
		if response.StatusCode != http.StatusNotFound || !strings.Contains(body, "<!doctype html>") {
			t.Errorf("GET %s by a browser: got %d %.60q, want a page", path, response.StatusCode, body)
		}
		response, body = h.get(t, path)
		if response.StatusCode != http.StatusNotFound || !strings.Contains(body, "PATH_UNKNOWN") {
			t.Errorf("GET %s by a program: got %d %.60q, want PATH_UNKNOWN", path, response.StatusCode, body)
		}
	}
}

var localLink = regexp.MustCompile(`<a href="(/[^"]*)"`)

// A link leads to what is served, whether or not there are pages for people.
func TestLinksLeadToWhatIsServed(t *testing.T) {
	t.Parallel()
	for _, off := range []bool{false, true} {
		h := newHarness(t, options{pages: pages.Config{Off: off}})
		for _, path := range []string{"/developers", "/docs", "/redoc"} {
			_, body := h.get(t, path)
			links := localLink.FindAllStringSubmatch(body, -1)
			for _, link := range links {
				if response, _ := h.get(t, link[1]); response.StatusCode != http.StatusOK {
					t.Errorf("pages off is %t: %s links to %s, which is answered with %d", off, path, link[1], response.StatusCode)
				}
				if off && path == "/developers" && link[1] == "/" {
					t.Error("without pages, /developers links to the first of them, which leads back to it")
				}
			}
			if len(links) == 0 {
				t.Errorf("%s has no links", path)
			}
		}
		want := http.StatusFound
		if off {
			want = http.StatusNotFound
		}
		if response := h.step(t, http.MethodGet, "/.well-known/change-password", ""); response.StatusCode != want {
			t.Errorf("pages off is %t: change-password is answered with %d, want %d", off, response.StatusCode, want)
		}
		// After signing in by a mailed code, a page leads home.
		home := regexp.MustCompile(`home&#34;:&#34;([^&]*)&#34;`)
		_, body := h.get(t, "/link/sign-in")
		found := home.FindStringSubmatch(body)
		if found == nil {
			t.Fatalf("the page names no home: %s", body)
		}
		if response, _ := h.get(t, found[1]); response.StatusCode != http.StatusOK {
			t.Errorf("pages off is %t: home is %s, which is answered with %d", off, found[1], response.StatusCode)
		}
	}
}

// With the pages off, mailed links work, and there is no other page.
func TestPagesThatAreOffLeaveMailedLinks(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{pages: pages.Config{Off: true}})
	for _, path := range peoplePages {
		response, body := h.fetch(t, http.MethodGet, path, "", "Accept", "text/html")
		want := http.StatusNotFound
		if strings.HasPrefix(path, "/link/") || path == "/" { // the first page leads on to the developers'
			want = http.StatusOK
		}
		if response.StatusCode != want {
			t.Errorf("GET %s: got %d %.60q, want %d", path, response.StatusCode, body, want)
		}
	}
}
