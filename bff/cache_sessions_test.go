package bff

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/readposition"
)

// Guarantee 7: when a session was used is not announced, so that what is cached of it
// must expire by itself, within 10 s.
func TestCachedSessionsExpire(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, options{}).withCache()
		token := h.token(alice, "user")
		list := func() {
			_, over := ask(t, h.accounts.ListSessions, &bffv1.ListSessionsRequest{}, token)
			wantNoError(t, "ListSessions", over.err)
		}
		for what, call := range map[string]func(){"GetMe": func() { h.asksForMe(t, token) }, "ListSessions": list} {
			call()
			time.Sleep(4 * time.Second) // so that the part that another answer needed is older than the answer
			call()
			time.Sleep(maxSessionsTTL - 4*time.Second + time.Millisecond)
			before := h.called(authv1.SessionServiceListSessionsProcedure)
			call()
			if got := h.called(authv1.SessionServiceListSessionsProcedure) - before; got != 1 {
				t.Errorf("%s: after %s, the sessions were asked for %d times, want once", what, maxSessionsTTL, got)
			}
			time.Sleep(time.Minute)
		}
	})
}

func TestSessionsMayNotBeCachedForLonger(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	cached := h.gateway.answers()
	tagged := 0
	for _, plan := range h.gateway.rpc.Methods() {
		if plan.Cache == nil {
			continue
		}
		ofSessions := false
		for _, tag := range plan.Cache.Tags {
			ofSessions = ofSessions || tag.Kind() == sessionsKind
		}
		if !ofSessions {
			continue
		}
		tagged++
		longer, cache := *plan, *plan.Cache
		cache.TTL, longer.Cache = maxSessionsTTL, &cache
		if _, err := cached.interceptor(&longer); err != nil {
			t.Errorf("%s, cached for %s: %v", plan.Procedure, maxSessionsTTL, err)
		}
		cache.StaleIfError = time.Second
		if _, err := cached.interceptor(&longer); err == nil {
			t.Errorf("%s may be cached for %s", plan.Procedure, maxSessionsTTL+time.Second)
		}
	}
	if tagged != 3 {
		t.Errorf("%d methods cache sessions, want 3", tagged)
	}
}

// withStandby lets reads of auth go to a standby. It waits until nothing counts as written.
func (h *harness) withStandby() *harness {
	h.gateway.cache.positions.Reported(authName, "0/1", time.Now())
	time.Sleep(2 * time.Second)
	h.gateway.cache.positions.Reported(authName, "0/2", time.Now())
	return h
}

// The list of a caller's sessions has that of the call, even if a standby lacks it and the
// authentication was long before the session, as at a provider.
func TestTheSessionOfTheCallIsListedWhateverAStandbyHas(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		standby []*authv1.Session
		calls   int
	}{
		"a standby that is behind": {[]*authv1.Session{{Id: "0198c0de-cccc-7000-8000-000000000001"}}, 2},
		"a standby that has it":    {[]*authv1.Session{{Id: session}}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h := newHarness(t, options{}).withCache().withStandby()
				token := h.token(alice, "user")
				answer(h.backend, authv1.SessionServiceListSessionsProcedure, func(ctx context.Context, _ *authv1.ListSessionsRequest) (*authv1.ListSessionsResponse, error) {
					if readposition.Of(ctx) != "" {
						return &authv1.ListSessionsResponse{Sessions: test.standby}, nil
					}
					return &authv1.ListSessionsResponse{Sessions: []*authv1.Session{{Id: session}}}, nil
				})
				list, over := ask(t, h.accounts.ListSessions, &bffv1.ListSessionsRequest{}, token)
				wantNoError(t, "ListSessions", over.err)
				if got := list.GetSessions(); len(got) != 1 || !got[0].GetCurrent() {
					t.Errorf("ListSessions = %v, want the session of the call", got)
				}
				if got := h.called(authv1.SessionServiceListSessionsProcedure); got != test.calls {
					t.Errorf("auth was asked %d times, want %d", got, test.calls)
				}
				h.gateway.cache.InvalidateAll()
				me, over := h.getMe(t, token)
				wantNoError(t, "GetMe", over.err)
				if got := me.GetSessions(); len(got) != 1 || !got[0].GetCurrent() {
					t.Errorf("GetMe has the sessions %v, want that of the call", got)
				}
			})
		})
	}
}

// A gateway that has handed out tokens reads the account and its sessions from the primary
// until the feed has reported them.
func TestASignInIsAWriteOfTheGateway(t *testing.T) {
	t.Parallel()
	for name, signIn := range map[string]func(*testing.T, *harness) error{
		"Login": func(t *testing.T, h *harness) error {
			_, over := ask(t, h.auth.Login, &bffv1.LoginRequest{Email: "alice@example.com", Password: "x"}, "")
			return over.err
		},
		"CompleteLogin": func(t *testing.T, h *harness) error {
			answer(h.backend, authv1.SessionServiceCompleteLoginProcedure, func(context.Context, *authv1.CompleteLoginRequest) (*authv1.CompleteLoginResponse, error) {
				return &authv1.CompleteLoginResponse{Account: accountOf(alice), Tokens: someTokens()}, nil
			})
			_, over := ask(t, h.auth.CompleteLogin, &bffv1.CompleteLoginRequest{ChallengeToken: "ghc_x", Proof: &bffv1.CompleteLoginRequest_TotpCode{TotpCode: "492039"}}, "")
			return over.err
		},
		"VerifyEmail": func(t *testing.T, h *harness) error {
			answer(h.backend, authv1.LinkServiceVerifyEmailProcedure, func(context.Context, *authv1.VerifyEmailRequest) (*authv1.VerifyEmailResponse, error) {
				return &authv1.VerifyEmailResponse{Account: accountOf(alice), Tokens: someTokens()}, nil
			})
			_, over := ask(t, h.auth.VerifyEmail, &bffv1.VerifyEmailRequest{Token: "ghv_x", Password: "a long one, chosen"}, "")
			return over.err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h := newHarness(t, options{}).withCache().withStandby()
				wantNoError(t, name, signIn(t, h))
				position := ""
				answer(h.backend, authv1.AccountServiceGetAccountProcedure, func(ctx context.Context, req *authv1.GetAccountRequest) (*authv1.GetAccountResponse, error) {
					position += readposition.Of(ctx)
					return &authv1.GetAccountResponse{Account: accountOf(req.GetAccountId()), Security: &authv1.SecurityFacts{ActiveSessions: 1}}, nil
				})
				read := func() {
					_, over := h.getMe(t, h.token(alice, "user"))
					wantNoError(t, "GetMe", over.err)
				}
				if read(); position != "" {
					t.Errorf("after %s, a standby at %s may answer", name, position)
				}
				time.Sleep(2 * time.Second)
				h.gateway.cache.InvalidateAll()
				h.gateway.cache.positions.Reported(authName, "0/3", time.Now())
				if read(); position != "0/3" {
					t.Errorf("after the report, the position is %q, want 0/3", position)
				}
			})
		})
	}
}
