package auth_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/golang-jwt/jwt/v5"

	"gatehouse/auth"
	"gatehouse/auth/keyring"
	"gatehouse/auth/secretkey"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/fault"
)

// kid returns the id of the key that signs for this copy now.
func (h *harness) kid(t *testing.T) string {
	t.Helper()
	kid, err := h.tryKid(t)
	if err != nil {
		t.Fatal(err)
	}
	return kid
}

// tryKid is kid, or the error of the sign-up that finds it out.
func (h *harness) tryKid(t *testing.T) (string, error) {
	t.Helper()
	response, err := h.accounts.CreateAccount(t.Context(), &authv1.CreateAccountRequest{
		AccountId: newID(t), Email: newID(t) + "@example.com", Password: password, SignIn: true,
		Profile: &authv1.ProfileSeed{FirstName: "Ada", LastName: "Lovelace"},
	})
	if err != nil {
		return "", err
	}
	return headerOf(t, response.GetTokens()).Header["kid"].(string), nil
}

func headerOf(t *testing.T, tokens *authv1.Tokens) *jwt.Token {
	t.Helper()
	token, _, err := jwt.NewParser().ParseUnverified(tokens.GetAccessToken(), jwt.MapClaims{})
	if err != nil {
		t.Fatalf("parse the access token: %v", err)
	}
	return token
}

// eventually tries until it works.
func eventually(t *testing.T, what string, try func() error) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		<-ticker.C
	}
}

func (h *harness) keys(t *testing.T) []keyring.Key {
	t.Helper()
	keys, err := h.service.SigningKeys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// untilKeys waits until so many keys are there, and returns them.
func (h *harness) untilKeys(t *testing.T, n int) (keys []keyring.Key) {
	t.Helper()
	eventually(t, fmt.Sprintf("wait for %d keys", n), func() error {
		if keys = h.keys(t); len(keys) != n {
			return fmt.Errorf("they are %v", keys)
		}
		return nil
	})
	return keys
}

// untilSigns waits until a copy signs with the key. A sign-up that began before an
// emergency gets no token after it.
func (h *harness) untilSigns(t *testing.T, kid string) {
	t.Helper()
	eventually(t, "wait until "+kid+" signs", func() error {
		got, err := h.tryKid(t)
		if err == nil && got != kid {
			err = fmt.Errorf("%s signs", got)
		}
		return err
	})
}

// A key's life is gone through by moving its rows, over two copies.
func TestTheScheduleTurnsKeysOver(t *testing.T) {
	t.Parallel()
	one := newHarness(t)
	one.run(t)
	two := &harness{owner: one.owner}
	two.open(t, one.config)
	two.run(t)
	first := one.kid(t)
	if got := two.kid(t); got != first {
		t.Fatalf("two copies sign with %s and %s", first, got)
	}

	// Sixteen minutes before its end there is no other yet; at fourteen there is.
	one.exec(t, "UPDATE auth.signing_keys SET sign_time = now() - interval '30 days' + interval '16 minutes'")
	one.pollTwice(t)
	if keys := one.keys(t); len(keys) != 1 {
		t.Errorf("sixteen minutes before the end there are %v", keys)
	}
	one.exec(t, "UPDATE auth.signing_keys SET sign_time = now() - interval '30 days' + interval '14 minutes'")
	keys := one.untilKeys(t, 2)
	next := keys[0].KID
	if next == first || keys[0].SignsIn < 14*time.Minute || keys[0].SignsIn > 15*time.Minute || !keys[1].Signing {
		t.Errorf("the next key is %v, want one that signs in 15 minutes", keys)
	}
	for name, copy := range map[string]*harness{"one": one, "two": two} {
		if got := copy.kid(t); got != first {
			t.Errorf("copy %s signs with %s before its turn", name, got)
		}
	}

	// Its turn comes, for both. The old one stays while its tokens live.
	one.exec(t, "UPDATE auth.signing_keys SET sign_time = now() WHERE kid = $1", next)
	one.untilSigns(t, next)
	two.untilSigns(t, next)
	one.exec(t, "UPDATE auth.signing_keys SET sign_time = sign_time - interval '5 minutes 30 seconds'")
	one.pollTwice(t)
	if keys := one.keys(t); len(keys) != 2 {
		t.Errorf("half a minute after the last token of the old key expired, the keys are %v", keys)
	}
	one.exec(t, "UPDATE auth.signing_keys SET sign_time = sign_time - interval '1 minute'")
	keys = one.untilKeys(t, 1)
	if keys[0].KID != next {
		t.Errorf("left is %v, want %s", keys, next)
	}
	if n := one.count(t, "SELECT count(*) FROM auth.signing_keys"); n != 1 {
		t.Errorf("two copies left %d keys", n)
	}
}

// pollTwice waits until this copy has read its database twice, and the schedule
// has looked.
func (h *harness) pollTwice(t *testing.T) {
	t.Helper()
	listener := h.listen(t)
	defer listener.cancel()
	began := time.Now()
	listener.until(t, "polls", func(*authv1.WatchRevocationsResponse) bool { return time.Since(began) > 1500*time.Millisecond })
}

func TestAnOverdueKeyIsFollowedByOneThatWasPublished(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	first := h.kid(t)
	h.exec(t, "UPDATE auth.signing_keys SET sign_time = now() - interval '90 days'")
	h.run(t) // after a long time without any copy
	keys := h.untilKeys(t, 2)
	if keys[0].SignsIn < 14*time.Minute || h.kid(t) != first {
		t.Errorf("the next of an overdue key is %v, want it published 15 minutes before it signs", keys)
	}
}

// A key that an older version wrote has no sign_time of its own.
func TestAKeyOfAnOlderVersionSigns(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.run(t)
	first := h.kid(t)
	other := newHarness(t) // whose key is sealed with the same secret
	var public, sealed []byte
	if err := other.owner.QueryRow(t.Context(), "SELECT public_key, sealed_private_key FROM auth.signing_keys").Scan(&public, &sealed); err != nil {
		t.Fatal(err)
	}
	kid := other.keys(t)[0].KID
	h.exec(t, "INSERT INTO auth.signing_keys (kid, public_key, sealed_private_key) VALUES ($1, $2, $3)", kid, public, sealed)
	h.untilSigns(t, kid)
	if keys := h.keys(t); len(keys) != 2 || keys[1].KID != first {
		t.Errorf("the keys are %v", keys)
	}
}

func TestARotationPublishesTheKeyTenSecondsBeforeItSigns(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.run(t)
	first := h.kid(t)
	listener := h.listen(t)
	message := listener.until(t, "the first message", func(*authv1.WatchRevocationsResponse) bool { return true })[0]
	if got := kidsOf(message); !slices.Equal(got, []string{first}) {
		t.Errorf("the first message has the keys %v, want %s", got, first)
	}
	next, err := h.service.RotateKeys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if next.SignsIn < 10*time.Second || next.SignsIn > 15*time.Second {
		t.Errorf("the next key signs in %s, want 10 s and little more", next.SignsIn)
	}
	messages := listener.until(t, "the next key", func(m *authv1.WatchRevocationsResponse) bool { return m.GetSigningKeys() != nil })
	if got := kidsOf(messages[len(messages)-1]); !slices.Equal(got, []string{next.KID, first}) {
		t.Errorf("the message has the keys %v, want the next and the first", got)
	}
	for _, message := range messages[:len(messages)-1] {
		if message.GetSigningKeys() != nil {
			t.Error("a message has signing keys that have not changed")
		}
	}
	if got := h.kid(t); got != first {
		t.Errorf("%s signs before its turn", got)
	}
	// Asked again, the same key is meant, and it doesn't wait longer.
	again, err := h.service.RotateKeys(t.Context())
	if err != nil || again.KID != next.KID || again.SignsIn > next.SignsIn {
		t.Errorf("asked again: %v, %v; want %s, no later", again, err, next.KID)
	}
	// One that was published for long signs at once.
	h.exec(t, "UPDATE auth.signing_keys SET create_time = now() - interval '1 minute', sign_time = now() + interval '10 minutes' WHERE kid = $1", next.KID)
	if now, err := h.service.RotateKeys(t.Context()); err != nil || now.KID != next.KID || now.SignsIn != 0 {
		t.Errorf("of a key published a minute ago: %v, %v; want it at once", now, err)
	}
	h.untilSigns(t, next.KID)
	if n := h.count(t, "SELECT count(*) FROM auth.audit_events WHERE event = 'key.rotate' AND outcome = 'succeeded'"); n != 3 {
		t.Errorf("%d rotations are audited, want 3", n)
	}
}

func kidsOf(message *authv1.WatchRevocationsResponse) []string {
	var kids []string
	for _, key := range message.GetSigningKeys().GetKeys() {
		kids = append(kids, key.GetKid())
	}
	return kids
}

func TestReplacingTheKeysEndsEverySession(t *testing.T) {
	t.Parallel()
	one := newHarness(t)
	one.run(t)
	two := &harness{owner: one.owner}
	two.open(t, one.config)
	two.run(t)
	ada, tokens := one.signUp(t, "ada@example.com")
	first := headerOf(t, tokens).Header["kid"].(string)
	session := headerOf(t, tokens).Claims.(jwt.MapClaims)["sid"].(string)
	if _, err := one.service.RotateKeys(t.Context()); err != nil { // the one that waits goes too
		t.Fatal(err)
	}
	listener := two.listen(t)
	kid, err := one.service.ReplaceKeys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	listener.until(t, "the new key alone", func(m *authv1.WatchRevocationsResponse) bool {
		return slices.Equal(kidsOf(m), []string{kid})
	})
	one.untilSigns(t, kid)
	two.untilSigns(t, kid)
	_, err = two.refresh(t, tokens.GetRefreshToken(), "")
	wantReason(t, err, connect.CodeUnauthenticated, "SESSION_ENDED")
	_, err = two.revocations.CheckAccess(t.Context(), &authv1.CheckAccessRequest{AccountId: ada.GetId(), SessionId: session, AuthzVersion: 1})
	wantReason(t, err, connect.CodeUnauthenticated, "SESSION_ENDED")
	if keys := one.keys(t); len(keys) != 1 || keys[0].KID == first {
		t.Errorf("left are %v", keys)
	}
	if n := one.count(t, "SELECT count(*) FROM auth.audit_events WHERE event = 'key.replace'"); n != 1 {
		t.Errorf("it is audited %d times, want once", n)
	}
}

// However many sessions there are, none of their rows is touched, and nobody who
// signs in or refreshes is waited for.
func TestReplacingTheKeysTouchesNoSession(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	ada, tokens := h.signUp(t, "ada@example.com")
	late, err := h.owner.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = late.Rollback(context.WithoutCancel(t.Context())) }()
	// A sign-in under way, which knows of no new epoch.
	_, err = late.Exec(t.Context(), `
		INSERT INTO auth.sessions (id, account_id, token_hash, token_key, epoch, expire_time, max_expire_time)
		VALUES (gen_random_uuid(), $1, sha256('x'), '', coalesce((SELECT session_epoch FROM auth.deployment), 0), now() + interval '1 day', now() + interval '1 day')`, ada.GetId())
	if err != nil {
		t.Fatal(err)
	}
	const rows = "SELECT count(*) FROM auth.sessions WHERE revoke_time IS NULL"
	before := h.count(t, rows)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := h.service.ReplaceKeys(ctx); err != nil {
		t.Fatalf("ReplaceKeys beside a sign-in: %v", err)
	}
	if err := late.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := h.count(t, rows); n != before+1 {
		t.Errorf("%d rows are as they were, want %d", n, before+1)
	}
	list, err := h.sessions.ListSessions(t.Context(), &authv1.ListSessionsRequest{AccountId: ada.GetId()})
	if err != nil || len(list.GetSessions()) != 0 {
		t.Errorf("alive are %v, %v; want none", list.GetSessions(), err)
	}
	h.run(t)
	_, err = h.refresh(t, tokens.GetRefreshToken(), "")
	wantReason(t, err, connect.CodeUnauthenticated, "SESSION_ENDED")
	eventually(t, "sign in again", func() error {
		_, err := h.login(t, "ada@example.com", password)
		return err
	})
	if list, err = h.sessions.ListSessions(t.Context(), &authv1.ListSessionsRequest{AccountId: ada.GetId()}); err != nil || len(list.GetSessions()) != 1 {
		t.Errorf("alive are %v, %v; want the new one", list.GetSessions(), err)
	}
}

// Binaries without epochs read signing keys as before, and would go on with
// sessions that have ended.
func TestABinaryWithoutEpochsCannotUseTheKeysOfAnEmergency(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	opens := func() (old, ours bool) {
		t.Helper()
		var kid string
		var sealed []byte
		if err := h.owner.QueryRow(t.Context(), "SELECT kid, sealed_private_key FROM auth.signing_keys").Scan(&kid, &sealed); err != nil {
			t.Fatal(err)
		}
		_, err := secretkey.Open([][]byte{secretOne}, "signing key v1", kid, sealed)
		conn, failure := h.config.DB.Acquire(t.Context())
		if failure != nil {
			t.Fatal(failure)
		}
		defer conn.Release()
		return err == nil, auth.CheckSecrets(t.Context(), conn.Conn(), [][]byte{secretOne}) == nil
	}
	if old, ours := opens(); !old || !ours {
		t.Errorf("before an emergency the older binary opens the key: %t, this one: %t; want both", old, ours)
	}
	if _, err := h.service.ReplaceKeys(t.Context()); err != nil {
		t.Fatal(err)
	}
	if old, ours := opens(); old || !ours {
		t.Errorf("after an emergency the older binary opens the key: %t, this one: %t; want this one alone", old, ours)
	}
	h.config.Secrets = [][]byte{secretTwo, secretOne}
	h.open(t, h.config) // which seals it by the newer secret key
	h.config.Secrets = [][]byte{secretTwo}
	h.open(t, h.config)
}

// A token isn't signed by the new key for who asked before the sessions ended.
func TestACallFromBeforeAnEmergencyGetsNoTokenAfterIt(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.signUp(t, "ada@example.com")
	at := time.Now()
	if err := h.service.TokenAsOfForTest(at); err != nil {
		t.Fatalf("before: %v", err)
	}
	kid, err := h.service.ReplaceKeys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	h.run(t)
	h.untilSigns(t, kid)
	wantReason(t, h.service.TokenAsOfForTest(at), connect.CodeUnavailable, fault.ReasonUnavailable)
	if err := h.service.TokenAsOfForTest(time.Now()); err != nil {
		t.Errorf("after: %v", err)
	}
}

// readKeys reads the signing keys as if at another time.
func (h *harness) readKeys(t *testing.T, at time.Time) {
	t.Helper()
	if err := h.service.ReadKeysForTest(t.Context(), at); err != nil {
		t.Fatal(err)
	}
}

// A copy whose reading fails for a minute could sign with a key that is gone.
func TestACopyThatReadsNoKeysSignsNoMore(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	_, tokens := h.signUp(t, "ada@example.com")
	h.readKeys(t, time.Now().Add(-50*time.Second))
	tokens = h.mustRefresh(t, tokens.GetRefreshToken(), "")
	h.readKeys(t, time.Now().Add(-61*time.Second))
	_, err := h.refresh(t, tokens.GetRefreshToken(), "")
	wantReason(t, err, connect.CodeUnavailable, fault.ReasonUnavailable)
	before := h.count(t, "SELECT count(*) FROM auth.sessions")
	_, err = h.login(t, "ada@example.com", password)
	wantReason(t, err, connect.CodeUnavailable, fault.ReasonUnavailable)
	if n := h.count(t, "SELECT count(*) FROM auth.sessions"); n != before {
		t.Errorf("a sign-in without tokens left %d sessions, want %d", n, before)
	}
	h.run(t)
	eventually(t, "sign again once it reads", func() error {
		_, err := h.refresh(t, tokens.GetRefreshToken(), "")
		return err
	})
}

// A copy that lacks the others' secret key publishes what it can't sign with.
func TestAKeyOfAnotherSecretIsPublishedAndDoesNotSign(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.run(t)
	first := h.kid(t)
	stranger := newHarness(t, func(c *auth.Config) { c.Secrets = [][]byte{secretTwo} })
	var public, sealed []byte
	if err := stranger.owner.QueryRow(t.Context(), "SELECT public_key, sealed_private_key FROM auth.signing_keys").Scan(&public, &sealed); err != nil {
		t.Fatal(err)
	}
	kid := stranger.keys(t)[0].KID
	h.exec(t, "INSERT INTO auth.signing_keys (kid, public_key, sealed_private_key, sign_time) VALUES ($1, $2, $3, now() + interval '1 hour')", kid, public, sealed)
	listener := h.listen(t)
	listener.until(t, "the stranger's key", func(m *authv1.WatchRevocationsResponse) bool { return slices.Contains(kidsOf(m), kid) })
	if got := h.kid(t); got != first {
		t.Errorf("%s signs", got)
	}
	h.exec(t, "UPDATE auth.signing_keys SET sign_time = now() WHERE kid = $1", kid)
	eventually(t, "sign no more with a key whose turn is over", func() error {
		_, err := h.sessions.Login(t.Context(), &authv1.LoginRequest{Email: "nobody@example.com", Password: password})
		if connect.CodeOf(err) != connect.CodeUnauthenticated {
			t.Fatalf("Login: %v", err)
		}
		_, err = h.accounts.CreateAccount(t.Context(), &authv1.CreateAccountRequest{
			AccountId: newID(t), Email: newID(t) + "@example.com", Password: password, SignIn: true,
		})
		if connect.CodeOf(err) != connect.CodeUnavailable {
			return fmt.Errorf("got %v, want unavailable", err)
		}
		return nil
	})
}

// Between the reading of the account and the making of its token, roles may
// change. The token must have expired before the word of the change is forgotten.
func TestATokenExpiresNoLaterThanWhenItsAccountWasReadAllows(t *testing.T) {
	t.Parallel()
	start := time.Now().Truncate(time.Second)
	var ahead atomic.Int64
	h := newHarness(t, func(c *auth.Config) { c.Now = func() time.Time { return start.Add(time.Duration(ahead.Load())) } })
	account, tokens := h.signUp(t, "ada@example.com")
	held, err := h.owner.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer held.Rollback(t.Context())
	if _, err := held.Exec(t.Context(), "SELECT FROM auth.sessions WHERE account_id = $1 FOR UPDATE", account.GetId()); err != nil {
		t.Fatal(err)
	}
	type answer struct {
		tokens *authv1.Tokens
		err    error
	}
	refreshed := make(chan answer, 1)
	go func() {
		tokens, err := h.refresh(t, tokens.GetRefreshToken(), "")
		refreshed <- answer{tokens, err}
	}()
	eventually(t, "wait for the row", func() error {
		if h.count(t, "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()") == 0 {
			return errors.New("nobody waits")
		}
		return nil
	})
	ahead.Store(int64(2 * time.Minute)) // a process may stand still for so long
	if err := held.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := <-refreshed
	if got.err != nil {
		t.Fatal(got.err)
	}
	expires, err := headerOf(t, got.tokens).Claims.GetExpirationTime()
	if err != nil || expires.After(start.Add(keyring.AccessTokenLife)) {
		t.Errorf("the token expires %v (%v) after the refresh began, want at most %s", expires.Sub(start), err, keyring.AccessTokenLife)
	}
}

func TestAStreamGoesOnFromACursor(t *testing.T) {
	t.Parallel()
	one := newHarness(t)
	one.run(t)
	two := &harness{owner: one.owner}
	two.open(t, one.config)
	two.run(t)
	revoke := func() string {
		session := newID(t)
		one.exec(t, "INSERT INTO auth.revocations (session_id, expire_time) VALUES ($1, now() + interval '5 minutes')", session)
		return session
	}
	early := revoke()
	first := one.listen(t)
	cursor := first.until(t, "what is live", endsSession(early))[0].GetCursor()
	// Reused numbers are reckoned with, up to a thousand.
	one.exec(t, "DO $$ BEGIN FOR i IN 1..1100 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$")
	late := revoke()
	messages := first.until(t, "a live one", endsSession(late))
	newest := messages[len(messages)-1].GetCursor()
	begin := func(h *harness, cursor string) *authv1.WatchRevocationsResponse {
		t.Helper()
		l := h.listenFrom(t, cursor)
		defer l.cancel()
		return l.until(t, "the first message", func(*authv1.WatchRevocationsResponse) bool { return true })[0]
	}
	for name, h := range map[string]*harness{"the same copy": one, "another copy": two} {
		if got := begin(h, cursor); got.GetComplete() || !endsSession(late)(got) || got.GetSigningKeys() == nil {
			t.Errorf("%s, from the first cursor: %v; want what came since, and the keys", name, got)
		}
		if got := begin(h, newest); got.GetComplete() || endsSession(early)(got) {
			t.Errorf("%s, from the newest cursor: %v; want only what came since", name, got)
		}
		database, number, _ := strings.Cut(newest, ".")
		for what, odd := range map[string]string{
			"none": "", "garbage": "garbage", "no number": database + ".", "not a number": database + ".x", "a negative one": database + ".-1",
			"one ahead of us": database + ".9" + number + "00", "another database's": "1" + newest, "a longer one": newest + ".1",
		} {
			if got := begin(h, odd); !got.GetComplete() || !endsSession(early)(got) || !endsSession(late)(got) {
				t.Errorf("%s, with the cursor %s: %v; want the whole", name, what, got)
			}
		}
	}
}
