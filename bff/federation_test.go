package bff

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"

	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/fault"
	"gatehouse/internal/flowtoken"
)

const (
	flowJar   = "__Host-gatehouse-flow"
	flowToken = "ghc_dGhlIHZpc2l0J3MgdG9rZW4"
)

// visit is a browser that has begun a visit to the provider "work"; it returns the
// harness, the cookie and what auth was asked.
func visit(t *testing.T) (*harness, *http.Cookie, chan *authv1.FederatedAnswer) {
	t.Helper()
	h := newHarness(t, options{})
	given := make(chan *authv1.FederatedAnswer, 1)
	answer(h.backend, authv1.FederationServiceBeginFederationProcedure, func(_ context.Context, req *authv1.BeginFederationRequest) (*authv1.BeginFederationResponse, error) {
		return &authv1.BeginFederationResponse{AuthorizationUrl: "https://work.example/authorize?client_id=x&state=" + flowtoken.State(flowToken) + "&to=" + url.QueryEscape(req.GetReturnTo()), FlowToken: flowToken}, nil
	})
	answer(h.backend, authv1.FederationServiceCompleteFederatedLoginProcedure, func(_ context.Context, req *authv1.CompleteFederatedLoginRequest) (*authv1.CompleteFederatedLoginResponse, error) {
		given <- req.GetAnswer()
		return &authv1.CompleteFederatedLoginResponse{Account: accountOf(alice), Tokens: someTokens(), ReturnTo: "/account"}, nil
	})
	response := h.step(t, http.MethodGet, "/auth/work/start?return_to=/account", "")
	if response.StatusCode != http.StatusSeeOther || !strings.HasPrefix(response.Header.Get("Location"), "https://work.example/authorize?") {
		t.Fatalf("start: %d to %s", response.StatusCode, response.Header.Get("Location"))
	}
	set := cookiesOf(response.Header)[flowJar]
	if set == nil || !set.HttpOnly || !set.Secure || set.SameSite != http.SameSiteLaxMode || set.Path != "/" || set.MaxAge != 600 {
		t.Fatalf("start sets the cookie %v, want one that is Lax, HttpOnly and Secure for 10 minutes", set)
	}
	return h, set, given
}

// step sends a request and follows no redirect.
func (h *harness) step(t *testing.T, method, path, form string, header ...string) *http.Response {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, h.url+path, strings.NewReader(form))
	if err != nil {
		t.Fatal(err)
	}
	if form != "" {
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i+1 < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	client := *h.http
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	return response
}

const completeBody = `{"provider":"work"}`

func TestABrowserSignsInWithAnotherProvider(t *testing.T) {
	t.Parallel()
	h, cookie, given := visit(t)
	response := h.step(t, http.MethodGet, "/auth/work/callback?code=the-code&state="+flowtoken.State(flowToken)+"&iss=https://work.example", "", "Cookie", flowJar+"="+cookie.Value)
	if response.StatusCode != http.StatusSeeOther || response.Header.Get("Location") != "/sign-in/return?provider=work" || response.Header.Get("Referrer-Policy") != "no-referrer" {
		t.Fatalf("callback: %d to %s", response.StatusCode, response.Header.Get("Location"))
	}
	stored := cookiesOf(response.Header)[flowJar]
	done, body := h.send(t, bffv1.AuthServiceCompleteFederatedLoginProcedure, completeBody, "Cookie", flowJar+"="+stored.Value, "X-Gatehouse-Session", "cookie", "Sec-Fetch-Site", "same-origin")
	if done.StatusCode != http.StatusOK || !strings.Contains(body, `"returnTo":"/account"`) || cookiesOf(done.Header)[accessJar] == nil {
		t.Fatalf("complete: %d %s", done.StatusCode, body)
	}
	if cleared := cookiesOf(done.Header)[flowJar]; cleared == nil || cleared.MaxAge >= 0 {
		t.Errorf("the flow cookie is not deleted: %v", cleared)
	}
	if got := <-given; got.GetCode() != "the-code" || got.GetFlowToken() != flowToken || got.GetIss() != "https://work.example" {
		t.Errorf("auth got %v, want the answer", got)
	}
}

// Login CSRF: a page makes a browser follow the callback of the attacker's visit.
func TestACallbackOfAnotherBrowserStoresNothing(t *testing.T) {
	t.Parallel()
	h, cookie, given := visit(t)
	state := flowtoken.State(flowToken)
	for name, test := range map[string]struct{ path, cookie string }{
		"no cookie":        {"/auth/work/callback?code=x&state=" + state, ""},
		"another state":    {"/auth/work/callback?code=x&state=" + flowtoken.State("ghc_other"), flowJar + "=" + cookie.Value},
		"no state":         {"/auth/work/callback?code=x", flowJar + "=" + cookie.Value},
		"another provider": {"/auth/other/callback?code=x&state=" + state, flowJar + "=" + cookie.Value},
		"a broken cookie":  {"/auth/work/callback?code=x&state=" + state, flowJar + "=e30"},
		"an empty token":   {"/auth/work/callback?code=x&state=" + flowtoken.State(""), flowJar + "=eyJwIjoid29yayIsInQiOiIifQ"},
	} {
		response := h.step(t, http.MethodGet, test.path, "", "Cookie", test.cookie)
		if to := response.Header.Get("Location"); !strings.HasPrefix(to, "/sign-in/return?error=CHALLENGE_INVALID") || cookiesOf(response.Header)[flowJar] != nil {
			t.Errorf("%s: led to %s with the cookies %v, want a refusal", name, to, response.Header["Set-Cookie"])
		}
	}
	// Without the answer of a callback, and from a page of another site, the cookie is not used.
	for name, header := range map[string][]string{
		"before the callback":    {"Cookie", flowJar + "=" + cookie.Value, "Sec-Fetch-Site", "same-origin"},
		"from a foreign page":    {"Cookie", flowJar + "=" + cookie.Value, "Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"},
		"beside a bearer header": {"Cookie", flowJar + "=" + cookie.Value, "Sec-Fetch-Site", "same-origin", "Authorization", "Bearer x"},
	} {
		response, body := h.send(t, bffv1.AuthServiceCompleteFederatedLoginProcedure, completeBody, header...)
		if response.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %d %s, want 400", name, response.StatusCode, body)
		}
	}
	if len(given) > 0 {
		t.Error("auth got an answer")
	}
}

func TestAFormOfAProviderIsLedToTheCallback(t *testing.T) {
	t.Parallel()
	h, _, _ := visit(t)
	form := url.Values{"code": {"x y"}, "state": {"s"}, "user": {`{"name":{"firstName":"Ada"},"email":"ada@example.com"}`}, "extra": {"no"}}
	response := h.step(t, http.MethodPost, "/auth/work/callback", form.Encode(), "Origin", "https://appleid.apple.com", "Sec-Fetch-Site", "cross-site")
	to, err := url.Parse(response.Header.Get("Location"))
	if err != nil || response.StatusCode != http.StatusSeeOther || to.Path != "/auth/work/callback" || to.Host != "" {
		t.Fatalf("%d to %v, want a 303 to the callback", response.StatusCode, to)
	}
	if q := to.Query(); q.Get("code") != "x y" || q.Get("state") != "s" || !strings.Contains(q.Get("user"), "Ada") || strings.Contains(q.Get("user"), "example.com") || q.Has("extra") {
		t.Errorf("the callback gets %v, want code, state and the name", q)
	}
}

func TestASignInLeadsToNoForeignPage(t *testing.T) {
	t.Parallel()
	h, _, _ := visit(t)
	for _, target := range []string{"//evil.example", `/\evil.example`, "https:evil.example", "https://evil.example", "javascript:alert(1)"} {
		response := h.step(t, http.MethodGet, "/auth/work/start?return_to="+url.QueryEscape(target), "")
		if to := response.Header.Get("Location"); to != "/sign-in/return?error=RETURN_TO_INVALID&provider=work" || cookiesOf(response.Header)[flowJar] != nil {
			t.Errorf("%s: led to %s, want a refusal", target, to)
		}
	}
}

// A provider that tells no email: the answer stays in the cookie until the person has
// said theirs.
func TestABrowserKeepsTheAnswerUntilItSaysAnEmail(t *testing.T) {
	t.Parallel()
	h, cookie, _ := visit(t)
	emails := make(chan string, 2)
	answer(h.backend, authv1.FederationServiceCompleteFederatedLoginProcedure, func(_ context.Context, req *authv1.CompleteFederatedLoginRequest) (*authv1.CompleteFederatedLoginResponse, error) {
		emails <- req.GetEmail()
		if req.GetEmail() == "" {
			return nil, fault.New(connect.CodeFailedPrecondition, "PROVIDER_EMAIL_MISSING", "Repeat the call with your email.")
		}
		return &authv1.CompleteFederatedLoginResponse{Challenge: &authv1.Challenge{Token: flowToken, Methods: []string{"link", "email_code"}, ExpiresIn: 600}, ReturnTo: "/account"}, nil
	})
	back := h.step(t, http.MethodGet, "/auth/work/callback?code=the-code&state="+flowtoken.State(flowToken), "", "Cookie", flowJar+"="+cookie.Value)
	stored := []string{"Cookie", flowJar + "=" + cookiesOf(back.Header)[flowJar].Value, "X-Gatehouse-Session", "cookie", "Sec-Fetch-Site", "same-origin"}
	first, body := h.send(t, bffv1.AuthServiceCompleteFederatedLoginProcedure, completeBody, stored...)
	if first.StatusCode != http.StatusBadRequest || !strings.Contains(body, "PROVIDER_EMAIL_MISSING") || cookiesOf(first.Header)[flowJar] != nil {
		t.Fatalf("without an email: %d %s with the cookies %v, want a refusal that leaves the cookie", first.StatusCode, body, first.Header["Set-Cookie"])
	}
	second, body := h.send(t, bffv1.AuthServiceCompleteFederatedLoginProcedure, `{"provider":"work","email":" Grace@Example.org"}`, stored...)
	if second.StatusCode != http.StatusOK || !strings.Contains(body, `"email_code"`) || !strings.Contains(body, `"returnTo":"/account"`) {
		t.Fatalf("with an email: %d %s, want the challenge", second.StatusCode, body)
	}
	if cleared := cookiesOf(second.Header)[flowJar]; cleared == nil || cleared.MaxAge >= 0 {
		t.Errorf("the flow cookie is not deleted: %v", cleared)
	}
	if a, b := <-emails, <-emails; a != "" || !strings.EqualFold(b, "grace@example.org") {
		t.Errorf("auth got the emails %q and %q", a, b)
	}
	if refused, body := h.send(t, bffv1.AuthServiceCompleteFederatedLoginProcedure, `{"provider":"work","email":"no email"}`, stored...); refused.StatusCode != http.StatusBadRequest || !strings.Contains(body, "INVALID_ARGUMENT") {
		t.Errorf("what is no email: %d %s", refused.StatusCode, body)
	}
}
