package auth_test

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	"gatehouse/auth"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/fault"
)

func throttled(c *auth.Config) { c.Throttle = true }

// try signs in from an address, perhaps as a known device.
func (h *harness) try(ctx context.Context, email, password, address, device string) (*authv1.LoginResponse, error) {
	return h.sessions.Login(ctx, &authv1.LoginRequest{
		Email: email, Password: password, DeviceToken: device, Origin: &authv1.Origin{IpAddress: address},
	})
}

// passWaits moves every wait into the past, as time does.
func (h *harness) passWaits(t *testing.T) {
	t.Helper()
	h.exec(t, "UPDATE auth.throttles SET wait_until = least(wait_until, now()), update_time = update_time - interval '1 microsecond'")
}

func wantWait(t *testing.T, what string, err error, least, most time.Duration) {
	t.Helper()
	wait, ok := fault.RetryDelay(err)
	if connect.CodeOf(err) != connect.CodeResourceExhausted || fault.Reason(err) != "TOO_MANY_ATTEMPTS" || !ok || wait < least || wait > most {
		t.Errorf("%s: got %v (reason %q, retry after %v), want TOO_MANY_ATTEMPTS and a wait of %v to %v", what, err, fault.Reason(err), wait, least, most)
	}
}

// holdWaits makes waits that are not to end while the test looks at them longer.
func (h *harness) holdWaits(t *testing.T) {
	t.Helper()
	h.exec(t, "UPDATE auth.throttles SET wait_until = wait_until + interval '1 hour' WHERE wait_until > update_time")
}

func TestFiveFailuresAreFreeAndTheSixthWaits(t *testing.T) {
	t.Parallel()
	h := newHarness(t, throttled)
	h.signUp(t, "ada@example.com")
	for _, email := range []string{"ada@example.com", "nobody@example.com"} { // with an account or without
		for i := range 5 {
			_, err := h.try(t.Context(), email, "wrong password", "", "")
			if wantReason(t, err, connect.CodeUnauthenticated, "CREDENTIALS_INVALID"); t.Failed() {
				t.Fatalf("%s: failure %d", email, i+1)
			}
		}
		h.holdWaits(t)
		before := h.service.HashesForTest()
		_, err := h.try(t.Context(), email, password, "", "")
		wantWait(t, email+": the sixth", err, time.Millisecond, time.Hour+time.Second)
		if after := h.service.HashesForTest(); after != before {
			t.Errorf("%s: %d passwords were looked at while the wait lasts", email, after-before)
		}
	}
	if n := h.count(t, "SELECT sum(count) FROM auth.audit_events WHERE event = 'session.login' AND outcome = 'refused' AND reason = 'TOO_MANY_ATTEMPTS'"); n != 2 {
		t.Errorf("the audit holds %d refusals for TOO_MANY_ATTEMPTS, want 2", n)
	}
	if n := h.count(t, "SELECT sum(count) FROM auth.audit_events WHERE event = 'session.login' AND outcome = 'refused' AND reason = 'CREDENTIALS_INVALID'"); n != 10 {
		t.Errorf("the audit holds %d refusals for CREDENTIALS_INVALID, want 10", n)
	}
}

func TestWaitsDoubleUpToFifteenMinutes(t *testing.T) {
	t.Parallel()
	h := newHarness(t, throttled)
	h.signUp(t, "ada@example.com")
	for failures := 1; failures <= 20; failures++ {
		_, err := h.try(t.Context(), "ada@example.com", "wrong password", "", "")
		wantReason(t, err, connect.CodeUnauthenticated, "CREDENTIALS_INVALID")
		var wait float64
		if err := h.owner.QueryRow(t.Context(), "SELECT extract(epoch FROM wait_until - update_time) FROM auth.throttles").Scan(&wait); err != nil {
			t.Fatal(err)
		}
		want := 0.0
		if failures >= 5 {
			want = min(math.Pow(2, float64(failures-5)), 900)
		}
		if math.Abs(wait-want) > 0.01 {
			t.Errorf("after %d failures the wait is %.3f s, want %.0f s", failures, wait, want)
		}
		h.passWaits(t)
	}
	if _, err := h.try(t.Context(), "ada@example.com", password, "", ""); err != nil {
		t.Errorf("the right password, once the wait is over: %v", err)
	}
}

func TestASuccessForgetsTheAccountsFailures(t *testing.T) {
	t.Parallel()
	h := newHarness(t, throttled)
	h.signUp(t, "ada@example.com")
	for round := range 3 {
		for range 4 {
			_, err := h.try(t.Context(), "ada@example.com", "wrong password", "", "")
			wantReason(t, err, connect.CodeUnauthenticated, "CREDENTIALS_INVALID")
		}
		if _, err := h.try(t.Context(), "ADA@example.com", password, "", ""); err != nil {
			t.Fatalf("round %d: the right password: %v", round, err)
		}
	}
	if n := h.count(t, "SELECT count(*) FROM auth.throttles"); n != 0 {
		t.Errorf("%d counts are left, want none", n)
	}
}

func TestFailuresAreForgottenAfterAQuietHour(t *testing.T) {
	t.Parallel()
	h := newHarness(t, throttled)
	for range 5 {
		_, _ = h.try(t.Context(), "ada@example.com", "wrong password", "", "")
	}
	h.exec(t, "UPDATE auth.throttles SET wait_until = now() - interval '61 minutes'")
	for range 4 {
		_, err := h.try(t.Context(), "ada@example.com", "wrong password", "", "")
		wantReason(t, err, connect.CodeUnauthenticated, "CREDENTIALS_INVALID")
	}
	if n := h.count(t, "SELECT failures FROM auth.throttles"); n != 4 {
		t.Errorf("%d failures are counted, want the 4 since", n)
	}
}

// Guessing one password for many accounts is slowed by the address; an account
// of the guesser's own is no way to clear it.
func TestAnAddressIsThrottledAcrossAccounts(t *testing.T) {
	t.Parallel()
	h := newHarness(t, throttled)
	h.signUp(t, "mallory@example.com")
	for i := range 4 {
		_, err := h.try(t.Context(), fmt.Sprintf("victim%d@example.com", i), "wrong password", "203.0.113.7", "")
		wantReason(t, err, connect.CodeUnauthenticated, "CREDENTIALS_INVALID")
		if _, err := h.try(t.Context(), "mallory@example.com", password, "203.0.113.7", ""); err != nil {
			t.Fatalf("the guesser's own sign-in: %v", err)
		}
	}
	_, err := h.try(t.Context(), "victim5@example.com", "wrong password", "203.0.113.7", "")
	wantReason(t, err, connect.CodeUnauthenticated, "CREDENTIALS_INVALID")
	h.holdWaits(t)
	_, err = h.try(t.Context(), "victim6@example.com", "wrong password", "203.0.113.7", "")
	wantWait(t, "the sixth from the address", err, time.Minute, 2*time.Hour)
	_, err = h.try(t.Context(), "mallory@example.com", password, "203.0.113.7", "")
	wantWait(t, "the right password from the address", err, time.Minute, 2*time.Hour)
	// Refused unlooked-at, nothing is counted for the account.
	_, err = h.try(t.Context(), "victim6@example.com", "wrong password", "203.0.113.8", "")
	wantReason(t, err, connect.CodeUnauthenticated, "CREDENTIALS_INVALID")
	if n := h.count(t, "SELECT count(*) FROM auth.throttles WHERE failures = 1 AND wait_until > update_time"); n != 0 {
		t.Errorf("%d single failures wait", n)
	}
}

func TestAnAddressThatSucceedsTakesBackOnlyItsOwnCount(t *testing.T) {
	t.Parallel()
	h := newHarness(t, throttled)
	h.signUp(t, "ada@example.com")
	for i := range 7 {
		_, err := h.try(t.Context(), fmt.Sprintf("victim%d@example.com", i), "wrong password", "203.0.113.7", "")
		wantReason(t, err, connect.CodeUnauthenticated, "CREDENTIALS_INVALID")
		h.passWaits(t)
	}
	for range 3 { // nor does a success make the next one wait
		if _, err := h.try(t.Context(), "ada@example.com", password, "203.0.113.7", ""); err != nil {
			t.Fatalf("the right password, once the wait is over: %v", err)
		}
	}
	if n := h.count(t, "SELECT max(failures) FROM auth.throttles"); n != 7 {
		t.Errorf("the address has %d failures, want the 7 that there were", n)
	}
}

// Whether there is an account, and what state it is in, changes nothing about
// how many hashes a wrong password costs, or how it is counted.
func TestAWrongPasswordCostsTheSameWhoeverItIsFor(t *testing.T) {
	t.Parallel()
	h := newHarness(t, throttled)
	for _, email := range []string{"active@example.com", "disabled@example.com", "invited@example.com"} {
		h.signUp(t, email)
	}
	h.exec(t, "UPDATE auth.accounts SET status = 'disabled' WHERE email LIKE 'disabled%'")
	h.exec(t, "UPDATE auth.accounts SET password_hash = '' WHERE email LIKE 'invited%'")
	for _, guess := range []string{"wrong password", "wrong passwo\ufb01rd"} { // the second differs in NFKC
		for _, email := range []string{"active@example.com", "disabled@example.com", "invited@example.com", "nobody@example.com"} {
			before := h.service.HashesForTest()
			_, err := h.try(t.Context(), email, guess, "", "")
			wantReason(t, err, connect.CodeUnauthenticated, "CREDENTIALS_INVALID")
			if hashes := h.service.HashesForTest() - before; hashes != 1 {
				t.Errorf("%s: %q cost %d hashes, want 1", email, guess, hashes)
			}
		}
	}
	if n := h.count(t, "SELECT count(*) FROM auth.throttles WHERE failures = 2"); n != 4 {
		t.Errorf("%d are counted with two failures, want all 4", n)
	}
}

func TestIPv6AddressesCountByTheir64(t *testing.T) {
	t.Parallel()
	h := newHarness(t, throttled)
	for i := range 5 {
		_, err := h.try(t.Context(), fmt.Sprintf("v%d@example.com", i), "wrong password", fmt.Sprintf("2001:db8:1:2:%d::%d", i, i+1), "")
		wantReason(t, err, connect.CodeUnauthenticated, "CREDENTIALS_INVALID")
	}
	h.holdWaits(t)
	_, err := h.try(t.Context(), "v6@example.com", "wrong password", "2001:db8:1:2:ffff::1", "")
	wantWait(t, "the same /64", err, time.Minute, 2*time.Hour)
	for _, other := range []string{"2001:db8:1:3::1", "203.0.113.7", ""} {
		_, err := h.try(t.Context(), "v7@example.com", "wrong password", other, "")
		wantReason(t, err, connect.CodeUnauthenticated, "CREDENTIALS_INVALID")
	}
}

func TestTwoCopiesShareTheirCounts(t *testing.T) {
	t.Parallel()
	h := newHarness(t, throttled)
	other := &harness{owner: h.owner}
	other.open(t, h.config)
	for i := range 5 {
		copy := h
		if i%2 == 1 {
			copy = other
		}
		_, err := copy.try(t.Context(), "ada@example.com", "wrong password", "", "")
		wantReason(t, err, connect.CodeUnauthenticated, "CREDENTIALS_INVALID")
	}
	h.holdWaits(t)
	for _, copy := range []*harness{h, other} {
		_, err := copy.try(t.Context(), "ada@example.com", "wrong password", "", "")
		wantWait(t, "a copy", err, time.Minute, 2*time.Hour)
	}
}

// However many come at once, and to whichever copy, no more are looked at than
// one after another would be.
func TestParallelGuessesAreNoMoreThanThoseInTurn(t *testing.T) {
	t.Parallel()
	h := newHarness(t, throttled)
	h.signUp(t, "ada@example.com")
	other := &harness{owner: h.owner}
	other.open(t, h.config)
	before := h.service.HashesForTest()
	start := time.Now()
	var group sync.WaitGroup
	for i := range 100 {
		copy := h
		if i%2 == 1 {
			copy = other
		}
		group.Go(func() {
			_, _ = copy.try(t.Context(), "ada@example.com", fmt.Sprint("guess number ", i), "203.0.113.7", "")
		})
	}
	group.Wait()
	hashes := h.service.HashesForTest() + other.service.HashesForTest() - before
	// After the fifth, the next wait ends after 1, 3, 7 … seconds.
	if most := 5 + int64(math.Log2(time.Since(start).Seconds()+1)); hashes > most || hashes == 0 {
		t.Errorf("%d of 100 guesses were looked at in %v, want at most %d", hashes, time.Since(start), most)
	}
	if n := h.count(t, "SELECT coalesce(sum(count), 0) FROM auth.audit_events WHERE reason = 'TOO_MANY_ATTEMPTS'"); n < 80 {
		t.Errorf("%d refusals were audited, want nearly all", n)
	}
}

// Those who saw no wait when they began find one when their turn comes.
func TestAGuessThatWaitedForItsTurnFindsTheWait(t *testing.T) {
	t.Parallel()
	h := newHarness(t, throttled)
	h.signUp(t, "ada@example.com")
	_, err := h.try(t.Context(), "ada@example.com", "wrong password", "", "")
	wantReason(t, err, connect.CodeUnauthenticated, "CREDENTIALS_INVALID")
	h.exec(t, "UPDATE auth.throttles SET failures = 20") // the next wait is of 15 minutes
	lock, err := h.owner.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lock.Rollback(context.WithoutCancel(t.Context())) }()
	if _, err := lock.Exec(t.Context(), "SELECT FROM auth.throttles FOR UPDATE"); err != nil {
		t.Fatal(err)
	}
	before := h.service.HashesForTest()
	const guesses = 3
	var group sync.WaitGroup
	for range guesses {
		group.Go(func() { _, _ = h.try(t.Context(), "ada@example.com", "wrong password", "", "") })
	}
	waiting := func() int {
		return h.count(t, `SELECT count(DISTINCT pid) FROM pg_locks JOIN pg_stat_activity a USING (pid)
			WHERE NOT granted AND a.datname = current_database()`)
	}
	for deadline := time.Now().Add(30 * time.Second); waiting() < guesses; {
		if time.Now().After(deadline) {
			t.Fatalf("%d guesses wait for the row, want %d", waiting(), guesses)
		}
	}
	if err := lock.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	group.Wait()
	if hashes := h.service.HashesForTest() - before; hashes != 1 {
		t.Errorf("%d of %d guesses were looked at, want the first alone", hashes, guesses)
	}
}

func TestAThousandWrongPasswordsCostFewHashesAndAreAudited(t *testing.T) {
	t.Parallel()
	h := newHarness(t, throttled)
	h.signUp(t, "ada@example.com")
	before := h.service.HashesForTest()
	start := time.Now()
	for i := range 1000 {
		_, err := h.try(t.Context(), "ada@example.com", fmt.Sprint("guess number ", i), "203.0.113.7", "")
		if err == nil {
			t.Fatalf("guess %d was right", i)
		}
	}
	if hashes, most := h.service.HashesForTest()-before, 5+int64(math.Log2(time.Since(start).Seconds()+1)); hashes > most {
		t.Errorf("%d of 1000 guesses were looked at in %v, want at most %d", hashes, time.Since(start), most)
	}
	if n := h.count(t, "SELECT sum(count) FROM auth.audit_events WHERE event = 'session.login' AND outcome = 'refused' AND reason <> ''"); n != 1000 {
		t.Errorf("the audit counts %d refusals, want 1000", n)
	}
	// A row for each reason and minute, and one of the looked-at guesses' kind.
	if n, most := h.count(t, "SELECT count(*) FROM auth.audit_events WHERE event = 'session.login'"), 3*int(2+time.Since(start)/time.Minute); n > most {
		t.Errorf("the audit holds %d rows of 1000 refusals, want at most %d", n, most)
	}
}

// A try that nobody looked at, for others were first and its caller left, is no
// failure.
func TestATryThatWasNotLookedAtIsNotCounted(t *testing.T) {
	t.Parallel()
	h := newHarness(t, throttled)
	h.signUp(t, "ada@example.com")
	slots := int64(max(1, runtime.GOMAXPROCS(0)-1))
	// The slowest hashes that there may be keep the slots.
	for i := range 4 * slots {
		h.exec(t, "INSERT INTO auth.accounts (id, email, password_hash) VALUES (gen_random_uuid(), $1, 'pbkdf2_sha512$2000000$0123456789abcdef$' || $2)",
			fmt.Sprintf("slow%d@example.com", i), strings.Repeat("A", 86)+"==")
	}
	before := h.service.HashesForTest()
	var slow sync.WaitGroup
	for i := range 4 * slots {
		slow.Go(func() { _, _ = h.try(t.Context(), fmt.Sprintf("slow%d@example.com", i), "wrong password", "", "") })
	}
	defer slow.Wait()
	for deadline := time.Now().Add(10 * time.Second); h.service.HashesForTest() < before+slots; {
		if time.Now().After(deadline) {
			t.Fatal("the slots are not taken")
		}
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := h.try(ctx, "ada@example.com", password, "203.0.113.7", ""); err == nil {
		t.Fatal("the slots were free")
	}
	// The account's and the address's are taken back, those of the slow ones stay.
	counts := func() int { return h.count(t, "SELECT count(*) FROM auth.throttles WHERE failures + pending > 0") }
	for deadline := time.Now().Add(10 * time.Second); counts() > int(4*slots); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d counts are left, want only those of the %d slow ones", counts(), 4*slots)
		}
	}
}

func TestReauthenticateAndChangePasswordAreThrottled(t *testing.T) {
	t.Parallel()
	h := newHarness(t, throttled)
	account, _ := h.signUp(t, "ada@example.com")
	sessions, err := h.sessions.ListSessions(t.Context(), &authv1.ListSessionsRequest{AccountId: account.GetId()})
	if err != nil {
		t.Fatal(err)
	}
	origin := &authv1.Origin{AccountId: account.GetId(), SessionId: sessions.GetSessions()[0].GetId(), IpAddress: "203.0.113.7"}
	reauthenticate := func(password string) error {
		_, err := h.sessions.Reauthenticate(t.Context(), &authv1.ReauthenticateRequest{Password: password, Origin: origin})
		return err
	}
	change := func(password string) error {
		_, err := h.accounts.ChangePassword(t.Context(), &authv1.ChangePasswordRequest{CurrentPassword: password, NewPassword: "another horse battery", Origin: origin})
		return err
	}
	// Strangers who guess at the account are none of this device's business.
	for range 5 {
		_, _ = h.try(t.Context(), "ada@example.com", "wrong password", "203.0.113.7", "")
	}
	h.holdWaits(t)
	if err := reauthenticate(password); err != nil {
		t.Fatalf("Reauthenticate while strangers wait: %v", err)
	}
	for _, guess := range []func(string) error{reauthenticate, change, reauthenticate, change, reauthenticate} {
		wantReason(t, guess("wrong password"), connect.CodeInvalidArgument, "PASSWORD_WRONG")
	}
	h.holdWaits(t)
	wantWait(t, "Reauthenticate", reauthenticate(password), time.Minute, 3*time.Hour)
	wantWait(t, "ChangePassword", change(password), time.Minute, 3*time.Hour)
	for event, reason := range map[string]string{
		"session.reauthenticate": "PASSWORD_WRONG", "account.password.change": "PASSWORD_WRONG",
		"Session.reauthenticate": "TOO_MANY_ATTEMPTS", "Account.password.change": "TOO_MANY_ATTEMPTS",
	} {
		if n := h.count(t, "SELECT count(*) FROM auth.audit_events WHERE event = $1 AND outcome = 'refused' AND reason = $2", strings.ToLower(event), reason); n == 0 {
			t.Errorf("the audit holds no %s refused for %s", strings.ToLower(event), reason)
		}
	}
}

func TestThrottlesHoldNoEmailOrAddress(t *testing.T) {
	t.Parallel()
	h := newHarness(t, throttled)
	_, _ = h.try(t.Context(), "ada@example.com", "wrong password", "203.0.113.7", "")
	if n := h.count(t, `SELECT count(*) FROM auth.throttles t WHERE encode(key, 'escape') ~ 'ada|example|203\.0'`); n != 0 {
		t.Errorf("%d rows tell whom they are about", n)
	}
	if n := h.count(t, "SELECT count(*) FROM auth.throttles"); n != 2 {
		t.Errorf("%d rows, want the account's and the address's", n)
	}
}

func TestOldFailuresArePruned(t *testing.T) {
	t.Parallel()
	h := newHarness(t, throttled)
	for _, email := range []string{"ada@example.com", "bob@example.com"} {
		_, _ = h.try(t.Context(), email, "wrong password", "", "")
	}
	h.exec(t, "UPDATE auth.throttles SET update_time = now() - interval '2 hours' WHERE key = (SELECT key FROM auth.throttles LIMIT 1)")
	h.run(t)
	for deadline := time.Now().Add(10 * time.Second); h.count(t, "SELECT count(*) FROM auth.throttles") != 1; {
		if time.Now().After(deadline) {
			t.Fatal("the old failure is still there, or the new one is gone")
		}
	}
}

func TestWithoutThrottlingNothingWaits(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	for range 7 {
		_, err := h.try(t.Context(), "ada@example.com", "wrong password", "203.0.113.7", "")
		wantReason(t, err, connect.CodeUnauthenticated, "CREDENTIALS_INVALID")
	}
	if n := h.count(t, "SELECT count(*) FROM auth.throttles"); n != 0 {
		t.Errorf("%d counts, want none", n)
	}
}
