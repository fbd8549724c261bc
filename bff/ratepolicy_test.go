package bff

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"

	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/fault"
)

// left is what an answer says of the caller's rate.
func left(header *connect.Header) string {
	return header.Get("RateLimit-Policy") + " " + header.Get("RateLimit")
}

func TestACallOverTheRateGetsRetryAfter(t *testing.T) {
	t.Parallel()
	for name, clientOptions := range map[string][]connecthttp.Option{
		"Connect JSON": {connecthttp.WithProtoJSON()}, "Connect proto": nil,
		"gRPC": {connecthttp.WithGRPC()}, "gRPC-Web": {connecthttp.WithGRPCWeb()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, options{served: true, limited: true, policy: "bff.v1.AuthService/Login rate=2/m burst=2"})
			answer(h.backend, authv1.SessionServiceLoginProcedure, func(context.Context, *authv1.LoginRequest) (*authv1.LoginResponse, error) {
				return &authv1.LoginResponse{Account: accountOf(alice), Tokens: someTokens()}, nil
			})
			client := bffv1.NewAuthServiceClient(h.client(clientOptions...))
			login := func() reply {
				_, got := ask(t, client.Login, &bffv1.LoginRequest{Email: "ada@example.com", Password: "a secret of hers"}, "")
				return got
			}
			for i, want := range []string{`"Login";q=2;w=60 "Login";r=1;t=30`, `"Login";q=2;w=60 "Login";r=0;t=60`} {
				got := login()
				wantNoError(t, "within the rate", got.err)
				if left(got.header) != want {
					t.Errorf("call %d says %s, want %s", i+1, left(got.header), want)
				}
			}
			before := h.called("")
			got := login()
			if connect.CodeOf(got.err) != connect.CodeResourceExhausted || fault.Reason(got.err) != "RATE_LIMITED" {
				t.Fatalf("beyond the rate: %v (%s), want RATE_LIMITED", got.err, fault.Reason(got.err))
			}
			if strings.HasPrefix(name, "Connect") && got.status != http.StatusTooManyRequests {
				t.Errorf("its status is %d, want 429", got.status)
			}
			if want := `"Login";q=2;w=60 "Login";r=0;t=30`; left(got.header) != want || got.header.Get("Retry-After") != "30" {
				t.Errorf("it says %s and Retry-After %s, want %s and 30", left(got.header), got.header.Get("Retry-After"), want)
			}
			if wait, ok := fault.RetryDelay(got.err); !ok || wait <= 25*time.Second || wait > 30*time.Second {
				t.Errorf("RetryInfo is %s, want just under 30 s", wait)
			}
			if h.called("") != before {
				t.Error("it reached a service")
			}
		})
	}
}

// Who is signed in is counted by who they are, wherever they call from; others
// by their address. Each method counts for itself.
func TestRatesAreCountedByPrincipalElseByAddress(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{limited: true, proxies: networks(t, "192.0.2.0/24"),
		policy: "bff.v1.AccountService/GetMe rate=1/h burst=1; bff.v1.AuthService/Refresh rate=1/h burst=1"})
	me := func(token, from string) error {
		_, got := h.getMe(t, token, "X-Forwarded-For", from)
		return got.err
	}
	refresh := func(from string) error {
		_, got := ask(t, h.auth.Refresh, &bffv1.RefreshRequest{RefreshToken: "ghr_x"}, "", "X-Forwarded-For", from)
		return got.err
	}
	for _, c := range []struct {
		what    string
		err     error
		limited bool
	}{
		{"Alice", me(h.token(alice), "203.0.113.1"), false},
		{"Alice again", me(h.token(alice), "203.0.113.1"), true},
		{"Alice with another token and address", me(h.signer.token(func(_, claims map[string]any) { claims["sub"], claims["jti"] = alice, "another" }), "203.0.113.2"), true},
		{"Bob from Alice's address", me(h.token(bob), "203.0.113.1"), false},
		{"another method", refresh("203.0.113.1"), false},
		{"the same address", refresh("203.0.113.1"), true},
		{"another address", refresh("203.0.113.2"), false},
		{"what a caller writes before the proxy", refresh("198.51.100.9, 203.0.113.1"), true},
		{"IPv6", refresh("2001:db8:1:2::1"), false},
		{"the same /64", refresh("2001:db8:1:2:ffff::1"), true},
		{"another /64", refresh("2001:db8:1:3::1"), false},
	} {
		if limited := fault.Reason(c.err) == "RATE_LIMITED"; limited != c.limited {
			t.Errorf("%s: got %v, want it refused: %v", c.what, c.err, c.limited)
		}
	}
}

// The gateway refuses a caller over the rate before it decodes the message, so that
// the refusal reveals nothing about the method's fields.
func TestTheRateIsCheckedBeforeTheMessageIsDecoded(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{limited: true, policy: "bff.v1.AuthService/Login rate=1/h burst=1"})
	if response, body := h.send(t, bffv1.AuthServiceLoginProcedure, `{"email":`); response.StatusCode != http.StatusBadRequest {
		t.Fatalf("a broken message: %d %s", response.StatusCode, body)
	}
	if response, body := h.send(t, bffv1.AuthServiceLoginProcedure, `{"email":`); response.StatusCode != http.StatusTooManyRequests || !strings.Contains(body, "RATE_LIMITED") {
		t.Errorf("a broken message beyond the rate: %d %s, want RATE_LIMITED", response.StatusCode, body)
	}
}

func TestTheRateIsRestoredAsTheHeaderSays(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{limited: true, policy: "bff.v1.AccountService/UpdateMe rate=2/m burst=2"})
	synctest.Test(t, func(t *testing.T) {
		held, err := newRates("", h.gateway.proxies, discard)
		wantNoError(t, "newRates", err)
		*h.gateway.rates = *held
		token := h.signer.token(func(_, claims map[string]any) {
			claims["iat"], claims["exp"] = time.Now().Unix(), time.Now().Add(5*time.Minute).Unix()
		})
		h.gateway.verifier.Now = time.Now
		for i := range 3 {
			_, got := ask(t, h.accounts.UpdateMe, &bffv1.UpdateMeRequest{User: &bffv1.User{FirstName: "Ada"}}, token)
			if limited := fault.Reason(got.err) == "RATE_LIMITED"; limited != (i == 2) {
				t.Fatalf("call %d: %v", i+1, got.err)
			}
		}
		time.Sleep(30 * time.Second)
		for i := range 2 {
			_, got := ask(t, h.accounts.UpdateMe, &bffv1.UpdateMeRequest{User: &bffv1.User{FirstName: "Ada"}}, token)
			if limited := fault.Reason(got.err) == "RATE_LIMITED"; limited != (i == 1) {
				t.Errorf("call %d after the wait: %v", i+1, got.err)
			}
		}
	})
}

// No answer of Redis is ever a caller's error.
func TestAnUnreachableRedisIsNotTheCallersError(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{limited: true, redis: "redis://127.0.0.1:1", policy: "bff.v1.AccountService/GetMe rate=3/h burst=3"})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); h.gateway.rates.callers.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	for i := range 6 {
		_, got := h.getMe(t, h.token(alice))
		if i < 3 {
			wantNoError(t, "within the rate", got.err)
			continue
		}
		wantError(t, "beyond it", got, http.StatusTooManyRequests, connect.CodeResourceExhausted, "RATE_LIMITED")
	}
}

// A flood of made-up cookies is refused before signatures are checked and before
// auth is asked.
func TestAFloodOfCookiesNeverReachesAuth(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{limited: true})
	refreshes := 0
	answer(h.backend, authv1.SessionServiceRefreshProcedure, func(context.Context, *authv1.RefreshRequest) (*authv1.RefreshResponse, error) {
		refreshes++
		return nil, fault.New(connect.CodeUnauthenticated, "REFRESH_TOKEN_INVALID", "Sign in again.")
	})
	for range addressRate.Burst {
		wantNoError(t, "the burst", h.gateway.rates.takeAddress(addressOfDirect.String()))
	}
	for name, access := range map[string]func(int) string{
		"made-up tokens": func(i int) string {
			return h.signer.token(func(_, claims map[string]any) { claims["aud"] = fmt.Sprint(i) })
		},
		"no access token": func(int) string { return "" },
	} {
		refused, before := 0, refreshes
		for i := range 10 {
			response, body := h.send(t, bffv1.AccountServiceGetMeProcedure, `{}`, jar(access(i), fmt.Sprint("ghr_", i))...)
			if response.StatusCode == http.StatusTooManyRequests && strings.Contains(body, "TOO_MANY_REQUESTS") {
				refused++
			}
		}
		if asked := refreshes - before; refused < 5 || asked > 5 { // 50 a second go through
			t.Errorf("%s: %d of 10 were refused and auth was asked %d times, want most of them refused", name, refused, asked)
		}
	}
}

// What the schema says must do for everyday's crowds: an office or a school
// behind one address, a person with many tabs, an administrator's script.
func TestRatesAllowReasonableUse(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{limited: true})
	least := map[string]struct{ atOnce, anHour int }{
		"Login": {50, 3600}, "Register": {40, 1200}, "Refresh": {200, 36000}, "Logout": {200, 36000},
		"RequestPasswordReset": {30, 1200}, "VerifyEmail": {40, 1800}, "ResetPassword": {40, 1800}, "ConfirmEmailChange": {40, 1800},
		"GetMe": {100, 36000}, "ListSessions": {100, 36000}, "UpdateMe": {20, 1200}, "ChangePassword": {5, 100}, "Reauthenticate": {5, 100},
		"CreateUser": {100, 36000}, "GetUser": {100, 36000}, "UpdateUser": {50, 3600}, "ListUsers": {50, 36000}, "DisableUser": {50, 3600},
		"ExportMe": {2, 5}, "SendVerificationEmail": {3, 5},
	}
	seen := 0
	for _, plan := range h.gateway.rpc.Methods() {
		want, ok := least[string(plan.Descriptor.Name())]
		if !ok {
			continue
		}
		seen++
		anHour := float64(plan.Rate.Count) * float64(time.Hour) / float64(plan.Rate.Period)
		if plan.Rate.Burst < want.atOnce || anHour < float64(want.anHour) {
			t.Errorf("%s has a rate of %s, want at least %d at once and %d an hour", plan.Procedure, plan.Rate, want.atOnce, want.anHour)
		}
	}
	if seen != len(least) {
		t.Errorf("%d of the %d methods are there", seen, len(least))
	}
}
