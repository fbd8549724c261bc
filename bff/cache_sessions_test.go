package bff

import (
	"testing"
	"testing/synctest"
	"time"

	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
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
