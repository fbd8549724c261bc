package auth_test

import (
	"context"
	"testing"
	"time"

	"gatehouse/auth"
	authv1 "gatehouse/gen/auth/v1"
	usersv1 "gatehouse/gen/users/v1"
)

// run runs the relay of the service until the test ends.
func (h *harness) run(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); h.service.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
}

// untilReceived waits until users has received at least the given number of calls.
func (r *receiver) untilReceived(t *testing.T, calls int) []*usersv1.ApplyAccountRequest {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		if received := r.received(); len(received) >= calls {
			return received
		}
		select {
		case <-r.arrived:
		case <-deadline:
			t.Fatalf("users received %d calls, want %d", len(r.received()), calls)
		}
	}
}

// untilEmpty waits until the outbox is empty.
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

func TestUsersReceivesAnAccountChangeWithinTheSameCall(t *testing.T) {
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
	received := far.received()
	if len(received) != 3 {
		t.Fatalf("users received %d calls, want 3: %v", len(received), received)
	}
	for i, call := range received {
		if call.GetVersion() != int64(i+1) || call.GetAccountId() != account.GetId() {
			t.Errorf("call %d: version %d of %s, want %d of %s", i, call.GetVersion(), call.GetAccountId(), i+1, account.GetId())
		}
	}
	if received[0].GetPresent().GetFirstName() != "Ada" || received[1].GetPresent().GetEmail() != "countess@example.com" || received[2].GetDeleted() == nil {
		t.Errorf("users received %v", received)
	}
	if n := h.outbox(t); n != 0 {
		t.Errorf("the outbox has %d rows, want none", n)
	}
}

func TestTheRelayDeliversTheLatestStateOnceUsersIsReachable(t *testing.T) {
	t.Parallel()
	far := newReceiver()
	far.setUnavailable(true)
	h := newHarness(t, func(c *auth.Config) { c.Users = far.client(t) })
	h.run(t)
	account, _ := h.signUp(t, "ada@example.com")
	for _, email := range []string{"two@example.com", "three@example.com"} {
		_, err := h.accounts.ChangeAccountEmail(t.Context(), &authv1.ChangeAccountEmailRequest{AccountId: account.GetId(), Email: email})
		if err != nil {
			t.Fatalf("a change while users is unreachable: %v", err)
		}
	}
	far.setUnavailable(false)
	received := far.untilReceived(t, 1)
	present := received[len(received)-1].GetPresent()
	if received[len(received)-1].GetVersion() != 3 || present.GetEmail() != "three@example.com" || present.GetFirstName() != "Ada" {
		t.Errorf("users received %v, want version 3 with the latest email and the first name", received)
	}
	h.untilEmpty(t)
}

func TestAnAccountDeletedBeforeItsDeliveryIsDeliveredAsDeleted(t *testing.T) {
	t.Parallel()
	far := newReceiver()
	far.setUnavailable(true)
	h := newHarness(t, func(c *auth.Config) { c.Users = far.client(t) })
	h.run(t)
	account, _ := h.signUp(t, "ada@example.com")
	if _, err := h.accounts.DeleteAccount(t.Context(), &authv1.DeleteAccountRequest{AccountId: account.GetId()}); err != nil {
		t.Fatal(err)
	}
	if n := h.count(t, "SELECT count(*) FROM auth.account_outbox WHERE profile IS NOT NULL"); n != 0 {
		t.Error("the outbox keeps the names of a deleted account")
	}
	far.setUnavailable(false)
	received := far.untilReceived(t, 1)
	if got := received[0]; got.GetDeleted() == nil || got.GetVersion() != 2 {
		t.Errorf("users received %v, want the deletion with version 2", got)
	}
	h.untilEmpty(t)
}

// When a replica leases an outbox row and crashes before the delivery, another replica
// delivers the row after the lease expires.
func TestTheRelayDeliversWhatACrashedReplicaLeased(t *testing.T) {
	t.Parallel()
	far := newReceiver()
	h := newHarness(t) // has no client of users, so it delivers nothing
	h.signUp(t, "ada@example.com")
	h.exec(t, "UPDATE auth.account_outbox SET attempts = 1, next_attempt_time = now() + interval '2 seconds'")
	config := h.config
	config.Users = far.client(t)
	h.open(t, config)
	h.run(t)
	far.untilReceived(t, 1)
	h.untilEmpty(t)
}

// Two replicas share the outbox, and users becomes unreachable halfway.
func TestTheRelayDeliversEachOfManyAccountsOnce(t *testing.T) {
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
	far.untilReceived(t, accounts/3)
	far.setUnavailable(true)
	deadline := time.Now().Add(20 * time.Second)
	for far.rejected() < 10 {
		if time.Now().After(deadline) {
			t.Fatal("no replica retries while users is unreachable")
		}
	}
	far.setUnavailable(false)
	start := time.Now()
	for deadline := start.Add(time.Minute); h.outbox(t) > 0; {
		if time.Now().After(deadline) {
			t.Fatalf("a minute after users became reachable, the outbox still has %d rows", h.outbox(t))
		}
	}
	t.Logf("the rest was delivered in %s", time.Since(start))
	// Another replica delivers a row again when a delivery outlasts its lease.
	if n := len(far.received()); n > accounts+accounts/100 {
		t.Errorf("users received %d calls for %d accounts", n, accounts)
	}
	received := map[string]*usersv1.ApplyAccountRequest{}
	gone, disabled := 0, 0
	for _, call := range far.received() {
		if received[call.GetAccountId()] != nil {
			continue
		}
		received[call.GetAccountId()] = call
		switch {
		case call.GetDeleted() != nil:
			gone++
		case call.GetPresent().GetStatus() == usersv1.ProfileStatus_PROFILE_STATUS_DISABLED:
			disabled++
		}
	}
	if len(received) != accounts || gone != deletions || disabled != (accounts-deletions)/5 {
		t.Errorf("users received calls for %d accounts, %d of them deleted and %d disabled; want %d, %d, %d",
			len(received), gone, disabled, accounts, deletions, (accounts-deletions)/5)
	}
}
