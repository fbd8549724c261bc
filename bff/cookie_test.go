package bff

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect/v2"

	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/fault"
)

const (
	loginBody  = `{"email":"ada@example.com","password":"a secret of hers"}`
	accessJar  = "__Host-gatehouse-access"
	refreshJar = "__Host-gatehouse-refresh"
	deviceJar  = "__Host-gatehouse-device"
)

// jar is a request's Cookie header.
func jar(access, refresh string) []string {
	var parts []string
	if access != "" {
		parts = append(parts, accessJar+"="+access)
	}
	if refresh != "" {
		parts = append(parts, refreshJar+"="+refresh)
	}
	return []string{"Cookie", strings.Join(parts, "; "), "Sec-Fetch-Site", "same-origin"}
}

// cookiesOf are the cookies that an answer sets, by name.
func cookiesOf(header http.Header) map[string]*http.Cookie {
	found := map[string]*http.Cookie{}
	for _, cookie := range (&http.Response{Header: header}).Cookies() {
		found[cookie.Name] = cookie
	}
	return found
}

// dated is an access token that expires then.
func (h *harness) dated(in time.Duration) string {
	return h.signer.token(func(_, claims map[string]any) { claims["exp"] = time.Now().Add(in).Unix() })
}

func TestTokensAreSentInCookiesOnly(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	answer(h.backend, authv1.SessionServiceLoginProcedure, func(context.Context, *authv1.LoginRequest) (*authv1.LoginResponse, error) {
		return &authv1.LoginResponse{Account: accountOf(alice), Tokens: someTokens(), DeviceToken: "device"}, nil
	})
	answer(h.backend, authv1.LinkServiceVerifyEmailProcedure, func(context.Context, *authv1.VerifyEmailRequest) (*authv1.VerifyEmailResponse, error) {
		return &authv1.VerifyEmailResponse{Account: accountOf(alice), Tokens: someTokens(), DeviceToken: "device"}, nil
	})
	for path, body := range map[string]string{
		bffv1.AuthServiceLoginProcedure:       loginBody,
		bffv1.AuthServiceRegisterProcedure:    loginBody,
		bffv1.AuthServiceVerifyEmailProcedure: `{"token":"ghl_x","password":"a secret of hers"}`,
		bffv1.AuthServiceRefreshProcedure:     `{"refreshToken":"ghr_x"}`,
	} {
		response, text := h.send(t, path, body, "X-Gatehouse-Session", "cookie", "Sec-Fetch-Site", "same-origin")
		if response.StatusCode != http.StatusOK {
			t.Fatalf("%s: %d %s", path, response.StatusCode, text)
		}
		for _, secret := range []string{`"access"`, `"refresh"`, `"device"`} {
			if strings.Contains(text, secret) {
				t.Errorf("%s: its answer holds %s: %s", path, secret, text)
			}
		}
		if !strings.Contains(text, `"expiresIn":300`) {
			t.Errorf("%s: its answer doesn't say when the session is to be refreshed: %s", path, text)
		}
		set := cookiesOf(response.Header)
		for name, want := range map[string]struct {
			value string
			age   int
		}{accessJar: {"access", 300}, refreshJar: {"refresh", 3600}} {
			got := set[name]
			if got == nil || got.Value != want.value || got.MaxAge != want.age || !got.HttpOnly || !got.Secure || got.Path != "/" || got.Domain != "" || got.SameSite != http.SameSiteStrictMode {
				t.Errorf("%s: cookie %s is %v, want %q for %d s, HttpOnly, Secure, SameSite=Strict, of this host alone", path, name, got, want.value, want.age)
			}
		}
	}
	response, text := h.send(t, bffv1.AuthServiceLoginProcedure, loginBody)
	if len(response.Cookies()) > 0 || !strings.Contains(text, `"access"`) {
		t.Errorf("a client that didn't ask for cookies got %v and %s", response.Cookies(), text)
	}
}

func TestADeviceIsKnownByItsCookie(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	var shown string
	answer(h.backend, authv1.SessionServiceLoginProcedure, func(_ context.Context, req *authv1.LoginRequest) (*authv1.LoginResponse, error) {
		shown = req.GetDeviceToken()
		return &authv1.LoginResponse{Account: accountOf(alice), Tokens: someTokens(), DeviceToken: "device"}, nil
	})
	response, _ := h.send(t, bffv1.AuthServiceLoginProcedure, loginBody, "X-Gatehouse-Session", "cookie")
	device := cookiesOf(response.Header)[deviceJar]
	if device == nil || device.Value != "device" || device.MaxAge < 300*24*3600 {
		t.Fatalf("the device's cookie is %v, want one that stays", device)
	}
	h.send(t, bffv1.AuthServiceLoginProcedure, loginBody, "X-Gatehouse-Session", "cookie", "Cookie", deviceJar+"=device")
	if shown != "device" {
		t.Errorf("at the next sign-in auth was shown the device %q, want the cookie's", shown)
	}
}

func TestCookiesAreForPagesOfListedOriginsOnly(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{origins: []string{app}})
	json := []string{"Content-Type", "application/json"}
	for _, test := range []struct {
		name    string
		method  string
		headers []string
		admits  bool
	}{
		{"a read of our own page", http.MethodGet, []string{"Sec-Fetch-Site", "same-origin"}, true},
		{"a read that was typed in", http.MethodGet, []string{"Sec-Fetch-Site", "none"}, true},
		{"a read of a listed origin", http.MethodGet, []string{"Sec-Fetch-Site", "cross-site", "Origin", app}, true},
		{"a read of a listed origin in an old browser", http.MethodGet, []string{"Origin", app}, true},
		{"a read of a strange origin", http.MethodGet, []string{"Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"}, false},
		{"a read of a neighbour", http.MethodGet, []string{"Sec-Fetch-Site", "same-site", "Origin", "https://blog.gatehouse.example"}, false},
		{"a read by a strange page's image", http.MethodGet, []string{"Sec-Fetch-Site", "cross-site"}, false},
		{"a read that says nothing", http.MethodGet, nil, false},
		{"a read of no origin", http.MethodGet, []string{"Origin", "null"}, false},
		{"a write of our own page", http.MethodPost, append(json, "Sec-Fetch-Site", "same-origin"), true},
		{"a write of a listed origin", http.MethodPost, append(json, "Sec-Fetch-Site", "cross-site", "Origin", app), true},
		{"a write of a strange origin", http.MethodPost, append(json, "Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"), false},
		{"a write that says nothing", http.MethodPost, json, false},
	} {
		before := h.backend.called("")
		path, body := bffv1.AccountServiceGetMeProcedure, "{}"
		if test.method == http.MethodGet {
			path, body = path+"?connect=v1&encoding=json&message=%7B%7D", ""
		}
		response, text := h.fetch(t, test.method, path, body, append(test.headers, "Cookie", accessJar+"="+h.token(alice))...)
		switch {
		case test.admits && response.StatusCode != http.StatusOK:
			t.Errorf("%s: %d %s, want an answer", test.name, response.StatusCode, text)
		case !test.admits && (response.StatusCode != http.StatusForbidden || !strings.Contains(text, "CROSS_ORIGIN")):
			t.Errorf("%s: %d %s, want 403 CROSS_ORIGIN", test.name, response.StatusCode, text)
		case !test.admits && h.backend.called("") != before:
			t.Errorf("%s: it reached a backend", test.name)
		}
	}
	for _, line := range h.log.lines(t, "call") {
		if line["reason"] == "CROSS_ORIGIN" && (line["method"] != bffv1.AccountServiceGetMeProcedure || line["request_id"] == "") {
			t.Errorf("a refused call is logged as %v, want its method and id", line)
		}
	}
	response, text := h.send(t, bffv1.AuthServiceLoginProcedure, loginBody, "X-Gatehouse-Session", "cookie", "Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example")
	if response.StatusCode != http.StatusForbidden || len(response.Cookies()) > 0 {
		t.Errorf("a strange page signs its visitor in: %d %s, want 403 and no cookie", response.StatusCode, text)
	}
	response, text = h.send(t, bffv1.AccountServiceGetMeProcedure, "{}", "Authorization", "Bearer "+h.token(alice), "Cookie", accessJar+"=x", "Sec-Fetch-Site", "cross-site")
	if response.StatusCode != http.StatusOK {
		t.Errorf("an Authorization header and cookies: %d %s, want the cookies ignored", response.StatusCode, text)
	}
}

// What a form can send is no call, whatever page it stands on.
func TestAFormCannotUseCookies(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{origins: []string{app}})
	for _, kind := range []string{"application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain", "Text/Plain;application/json", ""} {
		for _, page := range [][]string{{"Sec-Fetch-Site", "same-origin"}, {"Sec-Fetch-Site", "cross-site", "Origin", app}} {
			response, text := h.fetch(t, http.MethodPost, bffv1.AccountServiceGetMeProcedure, "{}", append(page, "Content-Type", kind, "Cookie", accessJar+"="+h.token(alice))...)
			if response.StatusCode != http.StatusUnsupportedMediaType || h.backend.called("") > 0 {
				t.Errorf("a write of type %q of a page %v: %d %s, and a backend was asked %d times; want 415 and none", kind, page, response.StatusCode, text, h.backend.called(""))
			}
		}
	}
}

// A method that doesn't ask who is calling costs no refresh.
func TestASessionIsRefreshedOnlyForMethodsThatNeedIt(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{limited: true})
	answer(h.backend, authv1.SessionServiceRefreshProcedure, func(context.Context, *authv1.RefreshRequest) (*authv1.RefreshResponse, error) {
		return &authv1.RefreshResponse{Tokens: &authv1.Tokens{AccessToken: h.token(alice), RefreshToken: "ghr_next", ExpiresIn: 300, RefreshExpiresIn: 3600}}, nil
	})
	refreshes := func() int { return h.backend.called(authv1.SessionServiceRefreshProcedure) }
	response, text := h.send(t, bffv1.AuthServiceLoginProcedure, loginBody, append(jar(h.dated(-time.Minute), "ghr_old"), "X-Gatehouse-Session", "cookie")...)
	if response.StatusCode != http.StatusOK || refreshes() > 0 {
		t.Errorf("Login with an old session's cookies: %d %s after %d refreshes, want an answer and none", response.StatusCode, text, refreshes())
	}
	if tokens := len(response.Header.Values("Set-Cookie")); tokens != 2 {
		t.Errorf("Login sets %d cookies, want the two of the new session: %v", tokens, response.Header.Values("Set-Cookie"))
	}
	h.fill(t, getMe)
	response, text = h.send(t, bffv1.AccountServiceGetMeProcedure, "{}", jar(h.dated(-time.Minute), "ghr_old")...)
	// Who calls is known before the call is queued: what a refresh made goes back with
	// the refusal.
	if !strings.Contains(text, fault.ReasonOverloaded) || refreshes() != 1 || len(response.Header.Values("Set-Cookie")) != 2 {
		t.Errorf("a call that the queue refuses: %d %s after %d refreshes with the cookies %v, want it refused with those of the one refresh",
			response.StatusCode, text, refreshes(), response.Header.Values("Set-Cookie"))
	}
}

// A cached response is sent with the new cookies of its caller.
func TestACachedAnswerHasTheCallersOwnCookies(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{}).withCache()
	fresh := h.token(alice)
	answer(h.backend, authv1.SessionServiceRefreshProcedure, func(_ context.Context, req *authv1.RefreshRequest) (*authv1.RefreshResponse, error) {
		return &authv1.RefreshResponse{Tokens: &authv1.Tokens{AccessToken: fresh, RefreshToken: "next of " + req.GetRefreshToken(), ExpiresIn: 300, RefreshExpiresIn: 3600}}, nil
	})
	var tag string
	for i, held := range []string{"ghr_0", "ghr_1", "", "ghr_3"} {
		access := h.dated(-time.Minute)
		if held == "" {
			access = fresh
		}
		before := h.backend.called(authv1.AccountServiceGetAccountProcedure)
		response, text := h.get(t, meByGet, append(jar(access, held), "If-None-Match", tag)...)
		want := http.StatusOK
		if tag != "" {
			want = http.StatusNotModified
		}
		set, next := cookiesOf(response.Header), ""
		if set[refreshJar] != nil {
			next = set[refreshJar].Value
		}
		if response.StatusCode != want || (held == "") != (next == "") || held != "" && next != "next of "+held || len(set) > 2 {
			t.Errorf("call %d with the cookie %q: got %d %s and the cookies %v, want %d and what follows the own", i, held, response.StatusCode, text, set, want)
		}
		if asked := h.backend.called(authv1.AccountServiceGetAccountProcedure) - before; asked != 0 && i > 0 {
			t.Errorf("call %d: auth was asked %d times for what is kept", i, asked)
		}
		if control := response.Header.Get("Cache-Control"); control != "private, no-cache" {
			t.Errorf("call %d: Cache-Control is %q, want %q", i, control, "private, no-cache")
		}
		tag = response.Header.Get("Etag")
	}
}

func TestTheGatewayRefreshesASessionInCookies(t *testing.T) {
	t.Parallel()
	for name, access := range map[string]func(h *harness) string{
		"that has expired":        func(h *harness) string { return h.dated(-time.Minute) },
		"that is about to":        func(h *harness) string { return h.dated(20 * time.Second) },
		"whose cookie is gone":    func(*harness) string { return "" },
		"of a key that is gone":   func(*harness) string { return newSigner(9).token(func(_, _ map[string]any) {}) },
		"of roles since changed":  func(h *harness) string { return h.dated(4 * time.Minute) },
		"that is no token at all": func(*harness) string { return "x" },
	} {
		h := newHarness(t, options{})
		if name == "of roles since changed" {
			h.gateway.revoked.Take(&authv1.WatchRevocationsResponse{Revocations: []*authv1.Revocation{{
				Of: &authv1.Revocation_LeastVersion{LeastVersion: &authv1.LeastVersion{AccountId: alice, Version: 2}}, ExpiresIn: 60,
			}}})
			h.receiveRevocations(time.Now().Add(time.Hour))
		}
		fresh := h.signer.token(func(_, claims map[string]any) { claims["ver"] = 2 })
		var seen []*authv1.RefreshRequest
		var mu sync.Mutex
		answer(h.backend, authv1.SessionServiceRefreshProcedure, func(_ context.Context, req *authv1.RefreshRequest) (*authv1.RefreshResponse, error) {
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, req)
			return &authv1.RefreshResponse{Tokens: &authv1.Tokens{AccessToken: fresh, RefreshToken: "ghr_next", ExpiresIn: 300, RefreshExpiresIn: 3600}}, nil
		})
		response, text := h.send(t, bffv1.AccountServiceGetMeProcedure, "{}", jar(access(h), "ghr_old")...)
		set := cookiesOf(response.Header)
		if response.StatusCode != http.StatusOK || set[accessJar] == nil || set[accessJar].Value != fresh || set[refreshJar].Value != "ghr_next" {
			t.Errorf("a token %s: %d %s with %v, want an answer and fresh cookies", name, response.StatusCode, text, set)
		}
		if len(seen) != 1 || seen[0].GetRefreshToken() != "ghr_old" || seen[0].GetIdempotencyKey() == "" {
			t.Errorf("a token %s: auth was asked %v, want once, with a key that a repetition has too", name, seen)
		}
	}
}

func TestAValidSessionInCookiesIsNotRefreshed(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	response, text := h.send(t, bffv1.AccountServiceGetMeProcedure, "{}", jar(h.token(alice), "ghr_old")...)
	if response.StatusCode != http.StatusOK || len(response.Cookies()) > 0 || h.backend.called(authv1.SessionServiceRefreshProcedure) > 0 {
		t.Errorf("%d %s with cookies %v after %d refreshes, want an answer and nothing else",
			response.StatusCode, text, response.Cookies(), h.backend.called(authv1.SessionServiceRefreshProcedure))
	}
}

func TestManyCallsOfOneBrowserRefreshOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, options{})
		fresh, proceed := h.token(alice), make(chan struct{})
		answer(h.backend, authv1.SessionServiceRefreshProcedure, func(ctx context.Context, _ *authv1.RefreshRequest) (*authv1.RefreshResponse, error) {
			select {
			case <-proceed:
				return &authv1.RefreshResponse{Tokens: &authv1.Tokens{AccessToken: fresh, RefreshToken: "ghr_next", ExpiresIn: 300, RefreshExpiresIn: 3600}}, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		})
		first, leave := context.WithCancel(t.Context())
		statuses := make([]int, 20)
		var calls sync.WaitGroup
		ask := func(i int, ctx context.Context) {
			request, _ := http.NewRequestWithContext(ctx, http.MethodPost, h.url+bffv1.AccountServiceGetMeProcedure, strings.NewReader("{}"))
			request.Header.Set("Content-Type", "application/json")
			headers := jar("", "ghr_old")
			for j := 0; j < len(headers); j += 2 {
				request.Header.Set(headers[j], headers[j+1])
			}
			if response, err := h.http.Do(request); err == nil {
				statuses[i] = response.StatusCode
				_ = response.Body.Close()
			}
		}
		calls.Go(func() { ask(0, first) })
		synctest.Wait() // it asks for all
		for i := range len(statuses) - 1 {
			calls.Go(func() { ask(i+1, t.Context()) })
		}
		synctest.Wait()
		leave()
		synctest.Wait()
		close(proceed)
		calls.Wait()
		if got := h.backend.called(authv1.SessionServiceRefreshProcedure); got != 1 {
			t.Errorf("20 calls at once refreshed %d times, want once", got)
		}
		if slices.ContainsFunc(statuses[1:], func(status int) bool { return status != http.StatusOK }) {
			t.Errorf("got %v, want 200 for all but the first, which left", statuses)
		}
	})
}

func TestAFailedRefreshKeepsTheCookies(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	for failure, want := range map[error]struct {
		status int
		reason string
	}{
		fault.New(connect.CodeUnauthenticated, "SESSION_ENDED", "x"): {http.StatusUnauthorized, "SESSION_ENDED"},
		fault.Unavailable(): {http.StatusServiceUnavailable, "SERVICE_UNAVAILABLE"},
	} {
		h.fail(authv1.SessionServiceRefreshProcedure, failure)
		response, text := h.send(t, bffv1.AccountServiceGetMeProcedure, "{}", jar(h.dated(-time.Minute), "ghr_old")...)
		if response.StatusCode != want.status || !strings.Contains(text, want.reason) || len(response.Cookies()) > 0 {
			t.Errorf("%v: %d %s with cookies %v, want %d %s and none", failure, response.StatusCode, text, response.Cookies(), want.status, want.reason)
		}
		response, text = h.send(t, bffv1.AuthServiceLoginProcedure, loginBody, append(jar(h.dated(-time.Minute), "ghr_old"), "X-Gatehouse-Session", "cookie")...)
		if response.StatusCode != http.StatusOK || cookiesOf(response.Header)[accessJar] == nil {
			t.Errorf("%v: signing in again: %d %s, want new cookies", failure, response.StatusCode, text)
		}
	}
}

func TestLogoutClearsTheCookies(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	var ended string
	answer(h.backend, authv1.SessionServiceLogoutProcedure, func(_ context.Context, req *authv1.LogoutRequest) (*authv1.LogoutResponse, error) {
		ended = req.GetRefreshToken()
		return &authv1.LogoutResponse{}, nil
	})
	response, text := h.send(t, bffv1.AuthServiceLogoutProcedure, "{}", jar(h.token(alice), "ghr_old")...)
	set := cookiesOf(response.Header)
	if response.StatusCode != http.StatusOK || ended != "ghr_old" || set[accessJar] == nil || set[accessJar].MaxAge >= 0 || set[refreshJar].MaxAge >= 0 {
		t.Errorf("Logout: %d %s with %v, of the session of %q; want both cookies gone", response.StatusCode, text, set, ended)
	}
	response, text = h.send(t, bffv1.AuthServiceLogoutProcedure, "{}")
	if response.StatusCode != http.StatusBadRequest || !strings.Contains(text, "refresh_token") {
		t.Errorf("Logout without any token: %d %s, want 400 about refresh_token", response.StatusCode, text)
	}
}

func TestCookiesNeedHTTPSOrLocalhost(t *testing.T) {
	t.Parallel()
	for url, works := range map[string]bool{
		"http://localhost:8001": true, "http://127.0.0.1:8001": true, "http://[::1]:8001": true, "http://app.localhost": true,
		"http://gatehouse.example": false, "http://10.0.0.1": false, "http://localhost.evil.example": false,
	} {
		h := newHarness(t, options{publicURL: url})
		response, text := h.send(t, bffv1.AuthServiceLoginProcedure, loginBody, "X-Gatehouse-Session", "cookie")
		plain := cookiesOf(response.Header)["gatehouse-access"]
		if works && (plain == nil || plain.Secure || !plain.HttpOnly) {
			t.Errorf("%s: %d %s with %v, want a cookie that plain http may carry", url, response.StatusCode, text, response.Cookies())
		}
		if !works && (response.StatusCode != http.StatusBadRequest || !strings.Contains(text, "COOKIES_NEED_HTTPS") || len(response.Cookies()) > 0) {
			t.Errorf("%s: %d %s with %v, want COOKIES_NEED_HTTPS", url, response.StatusCode, text, response.Cookies())
		}
	}
}

func TestCookiesAreNotForwardedToServices(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{apart: true})
	var seen []string
	h.backend.onRequest = func(header *connect.Header) {
		for name, values := range header.All() {
			seen = append(seen, name+": "+strings.Join(values, ","))
		}
	}
	token := h.token(alice)
	response, text := h.send(t, bffv1.AccountServiceListSessionsProcedure, "{}", append(jar(token, "ghr_secret"), "X-User-Id", bob, "X-Forwarded-User", bob)...)
	if response.StatusCode != http.StatusOK {
		t.Fatalf("%d %s", response.StatusCode, text)
	}
	all := strings.Join(seen, "\n")
	if len(seen) == 0 || strings.Contains(all, token) || strings.Contains(all, "ghr_secret") || strings.Contains(all, bob) || strings.Contains(strings.ToLower(all), "cookie") {
		t.Errorf("the backend saw\n%s\nwant the gateway's own headers only", all)
	}
	if log := h.log.String(); strings.Contains(log, token) || strings.Contains(log, "ghr_secret") {
		t.Errorf("a cookie is in the log: %s", log)
	}
}

func TestARefusedOriginIsLoggedOnce(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{origins: []string{app}})
	for range 5 {
		h.getMe(t, "", "Origin", "https://evil.example")
		h.getMe(t, "", "Origin", app)
		h.getMe(t, "", "Origin", publicURL, "Sec-Fetch-Site", "same-origin")
	}
	log := h.log.String()
	if strings.Count(log, "web origins: call refused") != 1 || !strings.Contains(log, "https://evil.example") || !strings.Contains(log, "GATEHOUSE_ORIGINS") {
		t.Errorf("the log says %s, want the strange origin once, with the setting", log)
	}
}

// A script cannot delete HttpOnly cookies, and the account of these cookies is deleted.
func TestDeletingOnesOwnAccountClearsTheCookies(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	answer(h.backend, authv1.AccountServiceDeleteAccountProcedure, func(context.Context, *authv1.DeleteAccountRequest) (*authv1.DeleteAccountResponse, error) {
		return &authv1.DeleteAccountResponse{}, nil
	})
	response, text := h.send(t, bffv1.AccountServiceDeleteMeProcedure, "{}", jar(h.dated(time.Minute), "ghr_x")...)
	if response.StatusCode != http.StatusOK {
		t.Fatalf("DeleteMe: %d %s", response.StatusCode, text)
	}
	set := cookiesOf(response.Header)
	for _, name := range []string{accessJar, refreshJar} {
		if got := set[name]; got == nil || got.Value != "" || got.MaxAge >= 0 {
			t.Errorf("DeleteMe: cookie %s is %v, want it deleted", name, got)
		}
	}
}
