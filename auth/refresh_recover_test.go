package auth_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"connectrpc.com/connect/v2"
	"github.com/google/uuid"

	"gatehouse/auth"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/fault"
)

// save keeps the sessions' rows as they are, as a standby has them, or a backup.
func (h *harness) save(t *testing.T) {
	t.Helper()
	h.exec(t, "DROP TABLE IF EXISTS saved_sessions")
	h.exec(t, "CREATE TABLE saved_sessions AS SELECT * FROM auth.sessions")
}

// rollBack loses what was written to the sessions since the save, as a failover
// to that standby does, or a restore of that backup.
func (h *harness) rollBack(t *testing.T) {
	t.Helper()
	h.exec(t, `WITH gone AS (DELETE FROM auth.sessions) SELECT`)
	h.exec(t, "INSERT INTO auth.sessions SELECT * FROM saved_sessions")
}

func (h *harness) audited(t *testing.T, event, outcome string) int {
	t.Helper()
	return h.count(t, "SELECT count(*) FROM auth.audit_events WHERE event = $1 AND outcome = $2", event, outcome)
}

func (h *harness) session(t *testing.T) uuid.UUID {
	t.Helper()
	var id uuid.UUID
	if err := h.owner.QueryRow(t.Context(), "SELECT id FROM auth.sessions").Scan(&id); err != nil {
		t.Fatal(err)
	}
	return id
}

// Guarantee 1: a database that has lost its last seconds ends nobody's session.
func TestATokenNewerThanTheRowContinuesTheSession(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		lost int    // refreshes that the database has forgotten
		key  string // idempotency key of the client's refreshes
		age  string // of the recovery, when it is repeated
	}{
		{name: "one refresh was lost", lost: 1},
		{name: "a hundred were lost", lost: 100},
		{name: "the recovery is repeated at once without a key", lost: 3, age: "9 seconds"},
		{name: "the recovery is repeated later with its key", lost: 3, key: "one", age: "11 seconds"},
		{name: "one refresh was lost and its key is used again", lost: 1, key: "one", age: "29 minutes"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			_, tokens := h.signUp(t, "ada@example.com")
			tokens = h.mustRefresh(t, tokens.GetRefreshToken(), test.key)
			h.save(t)
			for range test.lost {
				tokens = h.mustRefresh(t, tokens.GetRefreshToken(), test.key)
			}
			h.rollBack(t)
			next := h.mustRefresh(t, tokens.GetRefreshToken(), test.key)
			if got, want := h.count(t, "SELECT generation FROM auth.sessions"), 2+test.lost+1; got != want {
				t.Errorf("the session is at generation %d, want the one after the token's, %d", got, want)
			}
			if n := h.audited(t, "session.refresh.recovered", "succeeded"); n != 1 {
				t.Errorf("the audit has %d recoveries, want 1", n)
			}
			if test.age != "" {
				h.age(t, test.age)
				if again := h.mustRefresh(t, tokens.GetRefreshToken(), test.key); again.GetRefreshToken() != next.GetRefreshToken() {
					t.Errorf("the repetition gave %q, the first try %q", again.GetRefreshToken(), next.GetRefreshToken())
				}
			}
			h.mustRefresh(t, next.GetRefreshToken(), test.key)
			_, err := h.refresh(t, tokens.GetRefreshToken(), test.key)
			wantReason(t, err, connect.CodeUnauthenticated, "REFRESH_TOKEN_REUSED")
		})
	}
}

// A refresh whose answer was lost with the failover is repeated with its key.
func TestARefreshThatWasLostIsRepeatedWithItsKey(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	_, first := h.signUp(t, "ada@example.com")
	h.save(t)
	second := h.mustRefresh(t, first.GetRefreshToken(), "one")
	third := h.mustRefresh(t, second.GetRefreshToken(), "two") // whose answer never arrives
	h.rollBack(t)
	again := h.mustRefresh(t, second.GetRefreshToken(), "two")
	if again.GetRefreshToken() != third.GetRefreshToken() {
		t.Errorf("the repetition gave %q, the lost answer was %q", again.GetRefreshToken(), third.GetRefreshToken())
	}
	h.mustRefresh(t, third.GetRefreshToken(), "three")
}

func TestARecoveredSessionHasNoRecentSignIn(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	account, tokens := h.signUp(t, "ada@example.com")
	h.save(t)
	tokens = h.mustRefresh(t, tokens.GetRefreshToken(), "")
	h.rollBack(t)
	h.mustRefresh(t, tokens.GetRefreshToken(), "")
	_, err := h.accounts.DeleteAccount(t.Context(), &authv1.DeleteAccountRequest{
		AccountId: account.GetId(), RequireRecentSignIn: true, Origin: &authv1.Origin{AccountId: account.GetId(), SessionId: h.session(t).String()},
	})
	wantReason(t, err, connect.CodeFailedPrecondition, "REAUTHENTICATION_REQUIRED")
}

// Refresh rejects an authentic token whose generation cannot result from lost data, and
// does not end the session. Otherwise a caller who can make such tokens could end any
// session.
func TestANewerTokenThatNoLossExplainsIsOnlyRefused(t *testing.T) {
	t.Parallel()
	h := newHarness(t, func(c *auth.Config) { c.Secrets = [][]byte{secretTwo, secretOne} })
	_, tokens := h.signUp(t, "ada@example.com")
	id := h.session(t)
	for name, token := range map[string]string{
		"101 generations ahead":            auth.RefreshTokenForTest(secretTwo, id, 102),
		"the last generation":              auth.RefreshTokenForTest(secretTwo, id, 1<<31-1),
		"a negative generation":            auth.RefreshTokenForTest(secretTwo, id, -1),
		"made with an older key":           auth.RefreshTokenForTest(secretOne, id, 2),
		"made with a key that isn't ours":  auth.RefreshTokenForTest([]byte("a stranger's key, 32 bytes long.."), id, 2),
		"generation 0, which never exists": auth.RefreshTokenForTest(secretTwo, id, 0),
	} {
		_, err := h.refresh(t, token, "")
		if err == nil {
			t.Errorf("%s: it was accepted", name)
			continue
		}
		if fault.Reason(err) != "REFRESH_TOKEN_INVALID" {
			t.Errorf("%s: got %v, want REFRESH_TOKEN_INVALID", name, err)
		}
	}
	if h.liveSessions(t) != 1 {
		t.Error("a token that should only be rejected ended the session")
	}
	if n := h.audited(t, "session.refresh", "refused"); n != 3 {
		t.Errorf("the audit has %d refusals of authentic tokens, want 3", n)
	}
	h.mustRefresh(t, tokens.GetRefreshToken(), "")
}

func TestARecoveryTakesATokenOfANewerKey(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	_, tokens := h.signUp(t, "ada@example.com")
	h.save(t)
	changed := h.config
	changed.Secrets = [][]byte{secretTwo, secretOne}
	h.open(t, changed)
	tokens = h.mustRefresh(t, tokens.GetRefreshToken(), "")
	h.rollBack(t)
	h.mustRefresh(t, tokens.GetRefreshToken(), "")
}

func TestASessionThatEndedIsNotRecovered(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]string{
		"expired":          "UPDATE auth.sessions SET expire_time = now() - interval '1 second'",
		"revoked":          "UPDATE auth.sessions SET revoke_time = now(), revoke_reason = 'test'",
		"account disabled": "UPDATE auth.accounts SET status = 'disabled'",
		"never written":    "DELETE FROM auth.sessions",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			_, tokens := h.signUp(t, "ada@example.com")
			h.save(t)
			tokens = h.mustRefresh(t, tokens.GetRefreshToken(), "")
			h.rollBack(t)
			h.exec(t, end)
			_, err := h.refresh(t, tokens.GetRefreshToken(), "")
			wantReason(t, err, connect.CodeUnauthenticated, "SESSION_ENDED")
		})
	}
}

// Two holders of one session's tokens, over any order of refreshes and losses: the
// one who follows the rules is never signed out while alone, and a thief beside
// them is caught once both have used what they hold.
func TestRecoveriesInterleavedWithReuse(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	for seed := range 30 {
		random := rand.New(rand.NewPCG(20261128, uint64(seed)))
		_, tokens := h.signUp(t, fmt.Sprintf("person%d@example.com", seed))
		honest := tokens.GetRefreshToken()
		h.save(t)
		for range 1 + random.IntN(8) {
			switch random.IntN(4) {
			case 0:
				h.save(t)
			case 1:
				h.rollBack(t)
			default:
				honest = h.mustRefresh(t, honest, "").GetRefreshToken()
			}
		}
		stolen := honest
		caught := false
		for range 40 {
			if random.IntN(4) == 0 {
				h.rollBack(t)
			}
			if random.IntN(3) == 0 {
				h.save(t)
			}
			h.age(t, "11 seconds") // beyond the free repetition
			token := &honest
			if random.IntN(2) == 0 {
				token = &stolen
			}
			next, err := h.refreshAs(t.Context(), *token)
			if fault.Reason(err) == "REFRESH_TOKEN_REUSED" {
				caught = true
				break
			}
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			*token = next
		}
		if !caught {
			t.Errorf("seed %d: two parties used one session's tokens 40 times, and nobody was caught", seed)
		}
		h.exec(t, "DELETE FROM auth.sessions")
	}
}

func (h *harness) refreshAs(ctx context.Context, token string) (string, error) {
	response, err := h.sessions.Refresh(ctx, &authv1.RefreshRequest{RefreshToken: token})
	return response.GetTokens().GetRefreshToken(), err
}
