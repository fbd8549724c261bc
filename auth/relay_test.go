package auth_test

import (
	"context"
	"testing"
	"time"

	"gatehouse/auth"
	authv1 "gatehouse/gen/auth/v1"
	usersv1 "gatehouse/gen/users/v1"
)

// run lets the service relay for the rest of the test.
func (h *harness) run(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); h.service.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
}

// untilTold waits until users has been told so often.
func (r *receiver) untilTold(t *testing.T, calls int) []*usersv1.ApplyAccountRequest {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		if told := r.told(); len(told) >= calls {
			return told
		}
		select {
		case <-r.heard:
		case <-deadline:
			t.Fatalf("users was told %d times, want %d", len(r.told()), calls)
		}
	}
}

// untilEmpty waits until the outbox is.
func (h *harness) untilEmpty(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for h.outbox(t) > 0 {
		if time.Now().After(deadline) {
			t.Fatalf("the outbox still has %d rows", h.outbox(t))
		}
	}
}

func (h *harness) outbox(t *testing.T) int {
	t.Helper()
	return h.count(t, "SELECT count(*) FROM auth.account_outbox")
}

func TestUsersIsToldWithinTheCallThatChangesAnAccount(t *testing.T) {
	t.Parallel()
	far := newReceiver()
	h := newHarness(t, func(c *auth.Config) { c.Users = far.client(t) })
	account, _ := h.signUp(t, "ada@example.com")
	_, err := h.accounts.ChangeAccountEmail(t.Context(), &authv1.ChangeAccountEmailRequest{AccountId: account.GetId(), Email: "countess@example.com"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = h.accounts.DeleteAccount(t.Context(), &authv1.DeleteAccountRequest{AccountId: account.GetId()})
	if err != nil {
		t.Fatal(err)
	}
	told := far.told()
	if len(told) != 3 {
		t.Fatalf("users was told %d times, want 3: %v", len(told), told)
	}
	for i, call := range told {
		if call.GetVersion() != int64(i+1) || call.GetAccountId() != account.GetId() {
			t.Errorf("call %d: version %d of %s, want %d of %s", i, call.GetVersion(), call.GetAccountId(), i+1, account.GetId())
		}
	}
	if told[0].GetPresent().GetFirstName() != "Ada" || told[1].GetPresent().GetEmail() != "countess@example.com" || told[2].GetDeleted() == nil {
		t.Errorf("users was told %v", told)
	}
	if n := h.outbox(t); n != 0 {
		t.Errorf("the outbox has %d rows, want none", n)
	}
}

func TestTheRelayTellsTheLatestStateOnceUsersIsBack(t *testing.T) {
	t.Parallel()
	far := newReceiver()
	far.setAway(true)
	h := newHarness(t, func(c *auth.Config) { c.Users = far.client(t) })
	h.run(t)
	account, _ := h.signUp(t, "ada@example.com")
	for _, email := range []string{"two@example.com", "three@example.com"} {
		_, err := h.accounts.ChangeAccountEmail(t.Context(), &authv1.ChangeAccountEmailRequest{AccountId: account.GetId(), Email: email})
		if err != nil {
			t.Fatalf("a change while users is away: %v", err)
		}
	}
	far.setAway(false)
	told := far.untilTold(t, 1)
	present := told[len(told)-1].GetPresent()
	if told[len(told)-1].GetVersion() != 3 || present.GetEmail() != "three@example.com" || present.GetFirstName() != "Ada" {
		t.Errorf("users was told %v, want version 3 with the latest email and the first name", told)
	}
	h.untilEmpty(t)
}

func TestAnAccountDeletedBeforeUsersHeardOfItIsToldAsDeleted(t *testing.T) {
	t.Parallel()
	far := newReceiver()
	far.setAway(true)
	h := newHarness(t, func(c *auth.Config) { c.Users = far.client(t) })
	h.run(t)
	account, _ := h.signUp(t, "ada@example.com")
	if _, err := h.accounts.DeleteAccount(t.Context(), &authv1.DeleteAccountRequest{AccountId: account.GetId()}); err != nil {
		t.Fatal(err)
	}
	if n := h.count(t, "SELECT count(*) FROM auth.account_outbox WHERE profile IS NOT NULL"); n != 0 {
		t.Error("the outbox keeps the names of a deleted account")
	}
	far.setAway(false)
	told := far.untilTold(t, 1)
	if got := told[0]; got.GetDeleted() == nil || got.GetVersion() != 2 {
		t.Errorf("users was told %v, want the deletion with version 2", got)
	}
	h.untilEmpty(t)
}

// What another copy took and never told, because it died, is told again.
func TestTheRelayTellsWhatADeadCopyTook(t *testing.T) {
	t.Parallel()
	far := newReceiver()
	h := newHarness(t) // tells nobody
	h.signUp(t, "ada@example.com")
	h.exec(t, "UPDATE auth.account_outbox SET attempts = 1, next_attempt_time = now() + interval '2 seconds'")
	config := h.config
	config.Users = far.client(t)
	h.open(t, config)
	h.run(t)
	far.untilTold(t, 1)
	h.untilEmpty(t)
}

// Two copies share the work, and users goes away in the middle of it.
func TestTheRelayTellsOfManyAccountsOnceEach(t *testing.T) {
	t.Parallel()
	const accounts, deletions = 10_000, 1_000
	far := newReceiver()
	h := newHarness(t)
	h.exec(t, `
		WITH made AS (
			INSERT INTO auth.accounts (id, email, password_hash, status, version)
			SELECT gen_random_uuid(), 'user' || n || '@example.com', '', CASE WHEN n % 5 = 0 THEN 'disabled' ELSE 'active' END, 1 + n % 7
			FROM generate_series(1, $1) n RETURNING id, version)
		INSERT INTO auth.account_outbox (account_id, version, next_attempt_time) SELECT id, version, now() FROM made`, accounts-deletions)
	h.exec(t, `
		INSERT INTO auth.account_outbox (account_id, version, deleted, next_attempt_time)
		SELECT gen_random_uuid(), 9, true, now() FROM generate_series(1, $1)`, deletions)
	config := h.config
	config.Users = far.client(t)
	h.open(t, config)
	h.run(t)
	h.open(t, config)
	h.run(t)
	far.untilTold(t, accounts/3)
	far.setAway(true)
	deadline := time.Now().Add(20 * time.Second)
	for far.turnedAway() < 10 {
		if time.Now().After(deadline) {
			t.Fatal("nobody asks whether users is back")
		}
	}
	far.setAway(false)
	start := time.Now()
	for deadline := start.Add(time.Minute); h.outbox(t) > 0; {
		if time.Now().After(deadline) {
			t.Fatalf("a minute after users is back, the outbox still has %d rows", h.outbox(t))
		}
	}
	t.Logf("the rest was told in %s", time.Since(start))
	// A copy that takes longer than a row is left to it has it told again.
	if n := len(far.told()); n > accounts+accounts/100 {
		t.Errorf("users was told %d times of %d accounts", n, accounts)
	}
	told := map[string]*usersv1.ApplyAccountRequest{}
	gone, disabled := 0, 0
	for _, call := range far.told() {
		if told[call.GetAccountId()] != nil {
			continue
		}
		told[call.GetAccountId()] = call
		switch {
		case call.GetDeleted() != nil:
			gone++
		case call.GetPresent().GetStatus() == usersv1.ProfileStatus_PROFILE_STATUS_DISABLED:
			disabled++
		}
	}
	if len(told) != accounts || gone != deletions || disabled != (accounts-deletions)/5 {
		t.Errorf("users was told of %d accounts, %d of them deleted and %d disabled; want %d, %d, %d",
			len(told), gone, disabled, accounts, deletions, (accounts-deletions)/5)
	}
}
