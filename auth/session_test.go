package auth_test

import (
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	"gatehouse/auth"
	authv1 "gatehouse/gen/auth/v1"
)

func TestASessionThatIsNotUsedEnds(t *testing.T) {
	t.Parallel()
	h := newHarness(t, func(c *auth.Config) { c.SessionIdle, c.SessionMax = time.Hour, 24*time.Hour })
	account, tokens := h.signUp(t, "ada@example.com")
	if got := tokens.GetRefreshExpiresIn(); got != 3600 {
		t.Errorf("the refresh token is said to be good for %d s, want 3600", got)
	}
	// Each use gives it another hour, and no more.
	for range 3 {
		h.exec(t, "UPDATE auth.sessions SET expire_time = now() + interval '1 minute', max_expire_time = max_expire_time - interval '59 minutes'")
		tokens = h.mustRefresh(t, tokens.GetRefreshToken(), "")
		n := h.count(t, "SELECT count(*) FROM auth.sessions WHERE expire_time BETWEEN now() + interval '58 minutes' AND now() + interval '60 minutes'")
		if n != 1 {
			t.Error("a use doesn't give the session its idle time again")
		}
	}
	h.exec(t, "UPDATE auth.sessions SET expire_time = now() - interval '1 second'")
	_, err := h.refresh(t, tokens.GetRefreshToken(), "")
	wantReason(t, err, connect.CodeUnauthenticated, "SESSION_ENDED")
	h.wantNoSession(t, account.GetId())
}

func TestASessionEndsHoweverMuchItIsUsed(t *testing.T) {
	t.Parallel()
	h := newHarness(t, func(c *auth.Config) { c.SessionIdle, c.SessionMax = time.Hour, 24*time.Hour })
	account, tokens := h.signUp(t, "ada@example.com")
	h.exec(t, "UPDATE auth.sessions SET max_expire_time = now() + interval '10 minutes'")
	tokens = h.mustRefresh(t, tokens.GetRefreshToken(), "")
	if got := tokens.GetRefreshExpiresIn(); got > 600 || got < 500 {
		t.Errorf("the refresh token is said to be good for %d s, want what is left of the 600", got)
	}
	if n := h.count(t, "SELECT count(*) FROM auth.sessions WHERE expire_time = max_expire_time"); n != 1 {
		t.Error("a use carried the session past its end")
	}
	h.exec(t, "UPDATE auth.sessions SET expire_time = now() - interval '1 second', max_expire_time = now() - interval '1 second'")
	_, err := h.refresh(t, tokens.GetRefreshToken(), "")
	wantReason(t, err, connect.CodeUnauthenticated, "SESSION_ENDED")
	h.wantNoSession(t, account.GetId())
}

// wantNoSession wants an account to have no session that anybody could see,
// revoke or use for what needs a recent sign-in.
func (h *harness) wantNoSession(t *testing.T, account string) {
	t.Helper()
	listed, err := h.sessions.ListSessions(t.Context(), &authv1.ListSessionsRequest{AccountId: account})
	if err != nil || len(listed.GetSessions()) != 0 {
		t.Errorf("ListSessions: %v, %v; want none", listed, err)
	}
	found, err := h.accounts.GetAccount(t.Context(), &authv1.GetAccountRequest{AccountId: account})
	if err != nil || found.GetSecurity().GetActiveSessions() != 0 {
		t.Errorf("GetAccount: %v, %v; want no active session", found, err)
	}
	revoked, err := h.sessions.RevokeSessions(t.Context(), &authv1.RevokeSessionsRequest{AccountId: account})
	if err != nil || revoked.GetRevoked() != 0 {
		t.Errorf("RevokeSessions: %v, %v; want none to revoke", revoked, err)
	}
}

func TestASessionIsListedWithItsLastUse(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	account, tokens := h.signUp(t, "ada@example.com")
	h.exec(t, "UPDATE auth.sessions SET last_used_time = now() - interval '1 day', create_time = now() - interval '2 days'")
	_, err := h.sessions.Refresh(t.Context(), &authv1.RefreshRequest{RefreshToken: tokens.GetRefreshToken(), Origin: adasOrigin})
	if err != nil {
		t.Fatal(err)
	}
	listed, err := h.sessions.ListSessions(t.Context(), &authv1.ListSessionsRequest{AccountId: account.GetId()})
	if err != nil || len(listed.GetSessions()) != 1 {
		t.Fatalf("ListSessions: %v, %v; want one", listed, err)
	}
	got := listed.GetSessions()[0]
	if got.GetIpAddress() != "192.0.2.33" || got.GetUserAgent() != "Analytical Engine/1" {
		t.Errorf("it was used from %s by %s, want where it was refreshed", got.GetIpAddress(), got.GetUserAgent())
	}
	if used := time.Since(got.GetLastUsedTime().AsTime()); used > time.Minute || time.Since(got.GetCreateTime().AsTime()) < 47*time.Hour {
		t.Errorf("it was used %s ago and made at %s", used, got.GetCreateTime().AsTime())
	}
}
