package auth_test

import (
	"encoding/base64"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect/v2"

	"gatehouse/auth"
	authv1 "gatehouse/gen/auth/v1"
)

func (h *harness) refresh(t *testing.T, token, key string) (*authv1.Tokens, error) {
	t.Helper()
	response, err := h.sessions.Refresh(t.Context(), &authv1.RefreshRequest{RefreshToken: token, IdempotencyKey: key})
	return response.GetTokens(), err
}

func (h *harness) mustRefresh(t *testing.T, token, key string) *authv1.Tokens {
	t.Helper()
	tokens, err := h.refresh(t, token, key)
	if err != nil {
		t.Fatalf("Refresh: %v", err)
	}
	return tokens
}

// age makes the latest rotation of every session so much older.
func (h *harness) age(t *testing.T, interval string) {
	t.Helper()
	h.exec(t, "UPDATE auth.sessions SET rotate_time = rotate_time - $1::text::interval", interval)
}

func (h *harness) liveSessions(t *testing.T) int {
	t.Helper()
	return h.count(t, "SELECT count(*) FROM auth.sessions WHERE revoke_time IS NULL")
}

func TestRefreshRotatesTheToken(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	_, first := h.signUp(t, "ada@example.com")
	second := h.mustRefresh(t, first.GetRefreshToken(), "")
	third := h.mustRefresh(t, second.GetRefreshToken(), "")
	if first.GetRefreshToken() == second.GetRefreshToken() || second.GetRefreshToken() == third.GetRefreshToken() {
		t.Errorf("a refresh gave the same refresh token: %q, %q, %q", first, second, third)
	}
	if third.GetExpiresIn() != 300 || third.GetRefreshExpiresIn() < 30*24*3600-60 {
		t.Errorf("lifetimes are %d s and %d s, want 300 and about 30 days", third.GetExpiresIn(), third.GetRefreshExpiresIn())
	}
}

// Guarantee 1: parallel refreshes with the same token get the same successor.
func TestParallelRefreshesGiveOneGenerationAndOneSuccessor(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	_, tokens := h.signUp(t, "ada@example.com")
	const parallel = 100
	successors := make([]string, parallel)
	var wait sync.WaitGroup
	for i := range parallel {
		wait.Go(func() {
			next, err := h.refresh(t, tokens.GetRefreshToken(), "")
			if err != nil {
				t.Errorf("refresh %d: %v", i, err)
			}
			successors[i] = next.GetRefreshToken()
		})
	}
	wait.Wait()
	for i, successor := range successors {
		if successor != successors[0] {
			t.Errorf("refresh %d gave %q, and refresh 0 %q", i, successor, successors[0])
		}
	}
	if generation := h.count(t, "SELECT generation FROM auth.sessions"); generation != 2 {
		t.Errorf("generation is %d, want 2", generation)
	}
	h.mustRefresh(t, successors[0], "")
}

func TestARepeatedRefreshGetsTheSameToken(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, age, key, repeatKey string
	}{
		{"at once without a key", "0", "", ""},
		{"within ten seconds without a key", "9 seconds", "", ""},
		{"within ten seconds with another key", "9 seconds", "one", "two"},
		{"after ten seconds with the same key", "11 seconds", "one", "one"},
		{"within half an hour with the same key", "29 minutes", "one", "one"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			_, first := h.signUp(t, "ada@example.com")
			second := h.mustRefresh(t, first.GetRefreshToken(), test.key)
			h.age(t, test.age)
			again := h.mustRefresh(t, first.GetRefreshToken(), test.repeatKey)
			if again.GetRefreshToken() != second.GetRefreshToken() {
				t.Errorf("the repetition gave %q, the first try %q", again.GetRefreshToken(), second.GetRefreshToken())
			}
			if again.GetAccessToken() == second.GetAccessToken() {
				t.Error("the repetition gave the same access token")
			}
			h.mustRefresh(t, again.GetRefreshToken(), "")
		})
	}
}

func TestAnOldTokenEndsTheSession(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, age, key, reuseKey string
		presented                bool // whether the successor was presented before
	}{
		{name: "after ten seconds without a key", age: "11 seconds"},
		{name: "after ten seconds without the first try's key", age: "11 seconds", key: "one"},
		{name: "after ten seconds with another key", age: "11 seconds", key: "one", reuseKey: "two"},
		{name: "after ten seconds with a key where there was none", age: "11 seconds", reuseKey: "one"},
		{name: "after half an hour with the same key", age: "31 minutes", key: "one", reuseKey: "one"},
		{name: "once the successor was presented, within ten seconds", presented: true},
		{name: "once the successor was presented, with the same key", key: "one", reuseKey: "one", presented: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			account, first := h.signUp(t, "ada@example.com")
			current := h.mustRefresh(t, first.GetRefreshToken(), test.key)
			if test.presented {
				current = h.mustRefresh(t, current.GetRefreshToken(), test.key)
			}
			if test.age != "" {
				h.age(t, test.age)
			}
			_, err := h.refresh(t, first.GetRefreshToken(), test.reuseKey)
			wantReason(t, err, connect.CodeUnauthenticated, "REFRESH_TOKEN_REUSED")
			_, err = h.refresh(t, current.GetRefreshToken(), "")
			wantReason(t, err, connect.CodeUnauthenticated, "SESSION_ENDED")
			if n := h.count(t, "SELECT count(*) FROM auth.audit_events WHERE event = 'session.refresh.reuse' AND account_id = $1", account.GetId()); n != 1 {
				t.Errorf("the audit has %d rows about the reuse, want 1", n)
			}
		})
	}
}

func TestAForgedRefreshTokenIsOnlyRefused(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	_, tokens := h.signUp(t, "ada@example.com")
	token := tokens.GetRefreshToken()
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(token, "ghr_"))
	if err != nil {
		t.Fatal(err)
	}
	flip := func(at int) string {
		forged := append([]byte(nil), raw...)
		forged[at] ^= 1
		return "ghr_" + base64.RawURLEncoding.EncodeToString(forged)
	}
	for name, forged := range map[string]string{
		"another session":       flip(0),
		"an earlier generation": flip(19),
		"another MAC":           flip(len(raw) - 1),
		"no prefix":             strings.TrimPrefix(token, "ghr_"),
		"another prefix":        "ghx_" + strings.TrimPrefix(token, "ghr_"),
		"cut short":             token[:len(token)-4],
		"longer":                token + "AAAA",
		"padded":                token + "=",
		"another spelling":      token[:len(token)-1] + string(token[len(token)-1]+1),
		"nothing":               "ghr_",
		"words":                 "let me in",
	} {
		_, err := h.refresh(t, forged, "")
		if err == nil {
			t.Errorf("%s: %q was accepted", name, forged)
			continue
		}
		wantReason(t, err, connect.CodeUnauthenticated, "REFRESH_TOKEN_INVALID")
	}
	if h.liveSessions(t) != 1 {
		t.Error("a forged token ended the session")
	}
	h.mustRefresh(t, token, "")
}

func TestRefreshTokensSurviveAChangeOfTheSecretKey(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	_, first := h.signUp(t, "ada@example.com")
	second := h.mustRefresh(t, first.GetRefreshToken(), "key")

	changed := h.config
	changed.Secrets = [][]byte{secretTwo, secretOne}
	h.open(t, changed)
	again := h.mustRefresh(t, first.GetRefreshToken(), "key")
	if again.GetRefreshToken() != second.GetRefreshToken() {
		t.Errorf("the repetition after the change gave %q, want %q", again.GetRefreshToken(), second.GetRefreshToken())
	}
	third := h.mustRefresh(t, second.GetRefreshToken(), "")

	// The service encrypted the signing key with the new secret, so the old secret can
	// be removed. Refresh tokens that were made with it become invalid.
	changed.Secrets = [][]byte{secretTwo}
	h.open(t, changed)
	fourth := h.mustRefresh(t, third.GetRefreshToken(), "")
	_, err := h.refresh(t, first.GetRefreshToken(), "")
	wantReason(t, err, connect.CodeUnauthenticated, "REFRESH_TOKEN_INVALID")

	changed.Secrets = [][]byte{secretOne}
	if _, err := auth.New(t.Context(), changed); err == nil || !strings.Contains(err.Error(), "GATEHOUSE_SECRET_KEY") {
		t.Errorf("auth.New without the key that sealed the signing key: %v, want an error that names GATEHOUSE_SECRET_KEY", err)
	}
	h.mustRefresh(t, fourth.GetRefreshToken(), "")
}

func TestOnlyAHashOfTheRefreshTokenIsStored(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	_, tokens := h.signUp(t, "ada@example.com")
	secret := strings.TrimPrefix(tokens.GetRefreshToken(), "ghr_")
	if n := h.count(t, "SELECT count(*) FROM auth.sessions s WHERE s::text LIKE '%' || $1 || '%'", secret); n != 0 {
		t.Error("the refresh token stands in its session's row")
	}
}

func TestRefreshIsRefusedOnceTheSessionIsOver(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]string{
		"idle for too long":  "UPDATE auth.sessions SET expire_time = now() - interval '1 second'",
		"revoked":            "UPDATE auth.sessions SET revoke_time = now(), revoke_reason = 'test'",
		"account disabled":   "UPDATE auth.accounts SET status = 'disabled'",
		"account is no more": "DELETE FROM auth.accounts",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			_, tokens := h.signUp(t, "ada@example.com")
			h.exec(t, end)
			_, err := h.refresh(t, tokens.GetRefreshToken(), "")
			wantReason(t, err, connect.CodeUnauthenticated, "SESSION_ENDED")
		})
	}
}

func TestASessionEndsAtItsLatestWhateverItsUse(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	_, tokens := h.signUp(t, "ada@example.com")
	h.exec(t, "UPDATE auth.sessions SET max_expire_time = now() + interval '1 hour'")
	next := h.mustRefresh(t, tokens.GetRefreshToken(), "")
	if got := next.GetRefreshExpiresIn(); got > 3600 || got < 3500 {
		t.Errorf("the refresh token expires in %d s, want the hour that is left of the session", got)
	}
}

func TestLogoutTakesAnOldTokenAndRepeats(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	_, first := h.signUp(t, "ada@example.com")
	second := h.mustRefresh(t, first.GetRefreshToken(), "")
	for range 2 {
		if _, err := h.sessions.Logout(t.Context(), &authv1.LogoutRequest{RefreshToken: first.GetRefreshToken()}); err != nil {
			t.Fatalf("Logout: %v", err)
		}
	}
	_, err := h.refresh(t, second.GetRefreshToken(), "")
	wantReason(t, err, connect.CodeUnauthenticated, "SESSION_ENDED")
	_, err = h.sessions.Logout(t.Context(), &authv1.LogoutRequest{RefreshToken: "ghr_nonsense"})
	wantReason(t, err, connect.CodeUnauthenticated, "REFRESH_TOKEN_INVALID")
}

// A refresh that waits for another's lock must see what that one did: else it
// would bring an earlier generation back.
func TestARefreshSeesWhatItWaitedFor(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	_, first := h.signUp(t, "ada@example.com")
	other, err := h.owner.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Rollback(t.Context())
	if _, err := other.Exec(t.Context(), "UPDATE auth.sessions SET generation = 3, token_hash = sha256('another')"); err != nil {
		t.Fatal(err)
	}
	outcome := make(chan error)
	go func() {
		_, err := h.sessions.Refresh(t.Context(), &authv1.RefreshRequest{RefreshToken: first.GetRefreshToken()})
		outcome <- err
	}()
	for h.count(t, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'") == 0 {
		select {
		case err := <-outcome:
			t.Fatalf("the refresh didn't wait: %v", err)
		default:
		}
	}
	if err := other.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantReason(t, <-outcome, connect.CodeUnauthenticated, "REFRESH_TOKEN_REUSED")
	if generation := h.count(t, "SELECT generation FROM auth.sessions"); generation != 3 {
		t.Errorf("the generation went back to %d", generation)
	}
}
