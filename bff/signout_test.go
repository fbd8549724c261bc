package bff

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/fault"
)

var errForeign = fault.New(connect.CodeUnauthenticated, "REFRESH_TOKEN_INVALID", "x")

// ending has auth end the sessions of the refresh tokens "ghr_good…" and of
// access tokens, and returns what it was asked to end.
func (h *harness) ending() func() []string {
	var mu sync.Mutex
	var ended []string
	answer(h.backend, authv1.SessionServiceLogoutProcedure, func(_ context.Context, req *authv1.LogoutRequest) (*authv1.LogoutResponse, error) {
		if !strings.HasPrefix(req.GetRefreshToken(), "ghr_good") {
			return nil, errForeign
		}
		mu.Lock()
		defer mu.Unlock()
		ended = append(ended, req.GetRefreshToken())
		return &authv1.LogoutResponse{}, nil
	})
	answer(h.backend, authv1.SessionServiceRevokeSessionProcedure, func(_ context.Context, req *authv1.RevokeSessionRequest) (*authv1.RevokeSessionResponse, error) {
		mu.Lock()
		defer mu.Unlock()
		ended = append(ended, req.GetAccountId()+" "+req.GetSessionId())
		return &authv1.RevokeSessionResponse{}, nil
	})
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return ended
	}
}

// wantCleared reports whether an answer takes both of a session's cookies away.
func wantCleared(t *testing.T, name string, response *http.Response) {
	t.Helper()
	set := cookiesOf(response.Header)
	for _, cookie := range []string{accessJar, refreshJar} {
		if got := set[cookie]; got == nil || got.MaxAge >= 0 || got.Value != "" {
			t.Errorf("%s: the cookie %s is set to %v, want it cleared", name, cookie, got)
		}
	}
}

// A page can't remove cookies that are HttpOnly: signing out has to, whatever
// they hold.
func TestSigningOutAlwaysClearsTheCookies(t *testing.T) {
	t.Parallel()
	mine := alice + " " + session
	for _, test := range []struct {
		name   string
		cookie func(h *harness) string
		ended  []string
	}{
		{"a good session", func(h *harness) string { return accessJar + "=" + h.token(alice) + "; " + refreshJar + "=ghr_good" }, []string{"ghr_good"}},
		{"the refresh cookie alone", func(*harness) string { return refreshJar + "=ghr_good" }, []string{"ghr_good"}},
		{"the access cookie alone", func(h *harness) string { return accessJar + "=" + h.token(alice) }, []string{mine}},
		{"a damaged refresh cookie", func(*harness) string { return refreshJar + "=ghr_damaged" }, nil},
		{"a damaged refresh cookie and a valid access cookie", func(h *harness) string { return refreshJar + "=ghr_damaged; " + accessJar + "=" + h.token(alice) }, []string{mine}},
		{"a foreign refresh cookie and a foreign access cookie", func(*harness) string { return refreshJar + "=ghr_x; " + accessJar + "=a.b.c" }, nil},
		{"an expired access cookie", func(h *harness) string { return accessJar + "=" + h.dated(-time.Hour) }, nil},
		{"a cookie that can't be read", func(*harness) string { return refreshJar + "=gh\"r\xff" }, nil},
		{"an empty cookie", func(*harness) string { return refreshJar + "=" }, nil},
		{"two refresh cookies, the good one last", func(*harness) string { return refreshJar + "=ghr_x; " + refreshJar + "=ghr_good2" }, []string{"ghr_good2"}},
		{"no cookie, in cookie mode", func(*harness) string { return "" }, nil},
	} {
		for _, path := range []string{bffv1.AuthServiceLogoutProcedure, "/api/v1/auth/logout"} {
			h := newHarness(t, options{served: true})
			ended := h.ending()
			headers := []string{"Sec-Fetch-Site", "same-origin", "X-Gatehouse-Session", "cookie"}
			if cookie := test.cookie(h); cookie != "" {
				headers = append(headers, "Cookie", cookie)
			}
			response, text := h.send(t, path, "{}", headers...)
			if response.StatusCode != http.StatusOK || !slices.Equal(ended(), test.ended) {
				t.Errorf("%s: %s: %d %s, ended %q; want 200 and %q", path, test.name, response.StatusCode, text, ended(), test.ended)
			}
			wantCleared(t, path+": "+test.name, response)
		}
	}
}

// Only a live session that may go on is worth an error, and even then the
// browser is signed out.
func TestSigningOutReportsASessionThatCouldNotBeEnded(t *testing.T) {
	t.Parallel()
	for _, failure := range []error{fault.Unavailable(), fault.ErrInternal} {
		h := newHarness(t, options{})
		h.fail(authv1.SessionServiceLogoutProcedure, failure)
		h.fail(authv1.SessionServiceRevokeSessionProcedure, failure)
		for _, cookies := range [][]string{jar("", "ghr_good"), jar(h.token(alice), "ghr_good"), jar(h.token(alice), "")} {
			response, text := h.send(t, bffv1.AuthServiceLogoutProcedure, "{}", cookies...)
			name := fmt.Sprintf("%v with %.60q", failure, cookies)
			if response.StatusCode != http.StatusServiceUnavailable || !strings.Contains(text, "SESSION_NOT_ENDED") {
				t.Errorf("%s: %d %s, want 503 SESSION_NOT_ENDED", name, response.StatusCode, text)
			}
			wantCleared(t, name, response)
		}
		response, text := h.send(t, bffv1.AuthServiceLogoutProcedure, "{}", jar(h.dated(-time.Hour), "")...)
		if response.StatusCode != http.StatusOK {
			t.Errorf("%v with cookies of no session: %d %s, want 200", failure, response.StatusCode, text)
		}
	}
}

// A strange page signs nobody out, and a client without cookies gets none.
func TestSigningOutWithCookiesNeedsAListedOrigin(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	ended := h.ending()
	for _, headers := range [][]string{
		{"Cookie", refreshJar + "=ghr_good", "Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"},
		{"Cookie", refreshJar + "=gh\"r", "Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"},
		{"X-Gatehouse-Session", "cookie", "Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"},
	} {
		response, text := h.send(t, bffv1.AuthServiceLogoutProcedure, "{}", headers...)
		if response.StatusCode != http.StatusForbidden || len(response.Cookies()) > 0 || len(ended()) > 0 {
			t.Errorf("%q: %d %s with %v, ended %q; want 403 and nothing else", headers, response.StatusCode, text, response.Cookies(), ended())
		}
	}
	response, text := h.send(t, bffv1.AuthServiceLogoutProcedure, `{"refreshToken":"ghr_x"}`)
	if response.StatusCode != http.StatusUnauthorized || len(response.Cookies()) > 0 {
		t.Errorf("a bad refresh token in the message: %d %s with %v, want 401 and no cookie", response.StatusCode, text, response.Cookies())
	}
}

// What ends the caller's own session otherwise leaves no cookies of it either.
func TestEndingOnesOwnSessionClearsTheCookies(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	h.ending()
	answer(h.backend, authv1.SessionServiceRevokeSessionsProcedure, func(context.Context, *authv1.RevokeSessionsRequest) (*authv1.RevokeSessionsResponse, error) {
		return &authv1.RevokeSessionsResponse{Revoked: 1}, nil
	})
	other := "0198c0de-dddd-7000-8000-000000005e55"
	for _, test := range []struct {
		path, body string
		clears     bool
	}{
		{bffv1.AccountServiceRevokeAllSessionsProcedure, "{}", true},
		{bffv1.AccountServiceRevokeSessionProcedure, `{"sessionId":"` + session + `"}`, true},
		{bffv1.AccountServiceRevokeSessionProcedure, `{"sessionId":"` + other + `"}`, false},
		{bffv1.AccountServiceRevokeOtherSessionsProcedure, "{}", false},
	} {
		response, text := h.send(t, test.path, test.body, jar(h.token(alice), "ghr_good")...)
		switch {
		case response.StatusCode != http.StatusOK:
			t.Errorf("%s %s: %d %s", test.path, test.body, response.StatusCode, text)
		case test.clears:
			wantCleared(t, test.path, response)
		case len(response.Cookies()) > 0:
			t.Errorf("%s %s sets %v, want the cookies left alone", test.path, test.body, response.Cookies())
		}
	}
}

// Without the "__Host-" prefix anybody on this machine may have set a cookie of
// the same name.
func TestEveryCookieOfTheSameNameIsTried(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{publicURL: "http://localhost:8001", served: true})
	fresh := h.signer.token(func(_, claims map[string]any) { claims["iss"] = "http://localhost:8001" })
	answer(h.backend, authv1.SessionServiceRefreshProcedure, func(_ context.Context, req *authv1.RefreshRequest) (*authv1.RefreshResponse, error) {
		if req.GetRefreshToken() != "ghr_good" {
			return nil, errForeign
		}
		return &authv1.RefreshResponse{Tokens: &authv1.Tokens{AccessToken: fresh, RefreshToken: "ghr_next", ExpiresIn: 300, RefreshExpiresIn: 3600}}, nil
	})
	for name, test := range map[string]struct {
		path, cookie string
		status       int
		refreshed    bool
	}{
		"the access token of the second":                 {bffv1.AccountServiceGetMeProcedure, "gatehouse-access=x; gatehouse-access=" + fresh, 200, false},
		"the access token of the first":                  {bffv1.AccountServiceGetMeProcedure, "gatehouse-access=" + fresh + "; gatehouse-access=x", 200, false},
		"the refresh token of the second":                {bffv1.AccountServiceGetMeProcedure, "gatehouse-refresh=x; gatehouse-refresh=ghr_good", 200, true},
		"the refresh token of the third":                 {bffv1.AccountServiceGetMeProcedure, "gatehouse-refresh=x; gatehouse-refresh=y; gatehouse-refresh=ghr_good", 200, true},
		"an empty one before":                            {bffv1.AccountServiceGetMeProcedure, "gatehouse-refresh=; gatehouse-refresh=ghr_good", 200, true},
		"none of them":                                   {bffv1.AccountServiceGetMeProcedure, "gatehouse-refresh=x; gatehouse-refresh=y; gatehouse-access=z", 401, false},
		"no more than four":                              {bffv1.AccountServiceGetMeProcedure, "gatehouse-refresh=a; gatehouse-refresh=b; gatehouse-refresh=c; gatehouse-refresh=d; gatehouse-refresh=ghr_good", 401, false},
		"Refresh by the second":                          {bffv1.AuthServiceRefreshProcedure, "gatehouse-refresh=x; gatehouse-refresh=ghr_good", 200, true},
		"a new session's cookies after an old session's": {bffv1.AccountServiceGetMeProcedure, "gatehouse-access=x; gatehouse-refresh=x; gatehouse-access=y; gatehouse-refresh=ghr_good", 200, true},
	} {
		response, text := h.send(t, test.path, "{}", "Cookie", test.cookie, "Sec-Fetch-Site", "same-origin")
		next := cookiesOf(response.Header)["gatehouse-refresh"]
		if response.StatusCode != test.status || (next != nil && next.Value == "ghr_next") != test.refreshed {
			t.Errorf("%s: %d %s with %v, want %d, refreshed: %v", name, response.StatusCode, text, next, test.status, test.refreshed)
		}
	}
	h.fail(authv1.SessionServiceRefreshProcedure, fault.Unavailable())
	before := h.backend.called(authv1.SessionServiceRefreshProcedure)
	response, _ := h.send(t, bffv1.AccountServiceGetMeProcedure, "{}", "Cookie", "gatehouse-refresh=x; gatehouse-refresh=ghr_good", "Sec-Fetch-Site", "same-origin")
	if asked := h.backend.called(authv1.SessionServiceRefreshProcedure) - before; response.StatusCode != http.StatusServiceUnavailable || asked != 1 {
		t.Errorf("without auth: %d after %d tries, want 503 after one", response.StatusCode, asked)
	}
}

// A browser drops a SameSite=Strict cookie of another site without a word.
func TestCrossSiteCookiesAreRefusedWithAReason(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{origins: []string{app, "http://localhost:*"}, served: true})
	for _, test := range []struct {
		name    string
		headers []string
		reason  string
	}{
		{"a listed page of another site", []string{"X-Gatehouse-Session", "cookie", "Sec-Fetch-Site", "cross-site", "Origin", app}, "COOKIES_CROSS_SITE"},
		{"localhost and 127.0.0.1", []string{"X-Gatehouse-Session", "Cookie", "Sec-Fetch-Site", "cross-site", "Origin", "http://localhost:5173"}, "COOKIES_CROSS_SITE"},
		{"a listed page of the same site", []string{"X-Gatehouse-Session", "cookie", "Sec-Fetch-Site", "same-site", "Origin", app}, ""},
		{"an own page", []string{"X-Gatehouse-Session", "cookie", "Sec-Fetch-Site", "same-origin"}, ""},
		{"no browser", []string{"X-Gatehouse-Session", "cookie"}, ""},
		{"a listed page that keeps the tokens itself", []string{"Sec-Fetch-Site", "cross-site", "Origin", app}, ""},
		{"a strange page", []string{"X-Gatehouse-Session", "cookie", "Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"}, "CROSS_ORIGIN"},
	} {
		for _, path := range []string{bffv1.AuthServiceLoginProcedure, "/api/v1/auth/login"} {
			before := h.backend.called("")
			response, text := h.send(t, path, loginBody, test.headers...)
			switch {
			case test.reason == "" && response.StatusCode != http.StatusOK:
				t.Errorf("%s: %s: %d %s, want an answer", path, test.name, response.StatusCode, text)
			case test.reason != "" && (response.StatusCode < 400 || !strings.Contains(text, test.reason) || len(response.Cookies()) > 0 || h.backend.called("") != before):
				t.Errorf("%s: %s: %d %s with %v, want %s and no call", path, test.name, response.StatusCode, text, response.Cookies(), test.reason)
			}
			if test.reason == "COOKIES_CROSS_SITE" && response.Header.Get("Access-Control-Allow-Origin") == "" {
				t.Errorf("%s: %s: the page can't read the refusal", path, test.name)
			}
		}
	}
}
