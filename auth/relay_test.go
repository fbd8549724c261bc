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

// untilDelivered waits until users has confirmed every change.
func (h *harness) untilDelivered(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for h.undelivered(t) > 0 {
		if time.Now().After(deadline) {
			t.Fatalf("users has not confirmed %d changes", h.undelivered(t))
		}
	}
}

func (h *harness) undelivered(t *testing.T) int {
	t.Helper()
	return h.count(t, `
		SELECT count(*) FROM auth.account_log
		WHERE NOT pg_visible_in_snapshot(xid, coalesce((SELECT seen FROM auth.account_readers WHERE service = 'users'), '1:1:')::pg_snapshot)`)
}

func TestUsersReceivesANewAccountWithinTheSameCall(t *testing.T) {
	t.Parallel()
	far := newReceiver()
	h := newHarness(t, func(c *auth.Config) { c.Users = far.client(t) })
	account, _ := h.signUp(t, "ada@example.com")
	received := far.received()
	if len(received) != 1 || received[0].GetAccountId() != account.GetId() || received[0].GetVersion() != 1 || received[0].GetPresent().GetFirstName() != "Ada" {
		t.Errorf("users received %v, want version 1 of the account with its first name", received)
	}
}

// A users service that is older does not read the account log.
func TestAnOlderUsersReceivesEveryChange(t *testing.T) {
	t.Parallel()
	far := newReceiver()
	h := newHarness(t, func(c *auth.Config) { c.Users = far.client(t) })
	h.run(t)
	account, _ := h.signUp(t, "ada@example.com")
	h.untilDelivered(t)
	_, err := h.accounts.ChangeAccountEmail(t.Context(), &authv1.ChangeAccountEmailRequest{AccountId: account.GetId(), Email: "countess@example.com"})
	if err != nil {
		t.Fatal(err)
	}
	h.untilDelivered(t)
	received := far.received()
	if last := received[len(received)-1]; last.GetVersion() != 2 || last.GetPresent().GetEmail() != "countess@example.com" {
		t.Errorf("users received %v, want version 2 with the new email", received)
	}
	_, err = h.accounts.DeleteAccount(t.Context(), &authv1.DeleteAccountRequest{AccountId: account.GetId()})
	if err != nil {
		t.Fatal(err)
	}
	h.untilDelivered(t)
	received = far.received()
	if last := received[len(received)-1]; last.GetVersion() != 3 || last.GetDeleted() == nil {
		t.Errorf("users received %v, want the deletion with version 3", received)
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
	h.untilDelivered(t)
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
	if n := h.count(t, "SELECT count(*) FROM auth.account_log WHERE profile IS NOT NULL"); n != 0 {
		t.Error("the account log keeps the names of a deleted account")
	}
	far.setUnavailable(false)
	received := far.untilReceived(t, 1)
	if got := received[0]; got.GetDeleted() == nil || got.GetVersion() != 2 {
		t.Errorf("users received %v, want the deletion with version 2", got)
	}
	h.untilDelivered(t)
}

// When a replica leases the delivery and crashes, another replica delivers after the
// lease expires.
func TestTheRelayDeliversWhatACrashedReplicaLeased(t *testing.T) {
	t.Parallel()
	far := newReceiver()
	h := newHarness(t) // has no client of users, so it delivers nothing
	h.signUp(t, "ada@example.com")
	h.exec(t, "INSERT INTO auth.account_readers (service, report_time, lease_time) VALUES ('users', '-infinity', now() + interval '2 seconds')")
	config := h.config
	config.Users = far.client(t)
	h.open(t, config)
	h.run(t)
	far.untilReceived(t, 1)
	h.untilDelivered(t)
}

// Two replicas share the delivery, and users becomes unreachable halfway.
func TestTheRelayDeliversEachOfManyAccountsOnce(t *testing.T) {
	t.Parallel()
	const accounts, deletions = 10_000, 1_000
	far := newReceiver()
	h := newHarness(t)
	h.exec(t, `
		INSERT INTO auth.accounts (id, email, password_hash, status, version)
		SELECT gen_random_uuid(), 'user' || n || '@example.com', '', CASE WHEN n % 5 = 0 THEN 'disabled' ELSE 'active' END, 1 + n % 7
		FROM generate_series(1, $1) n`, accounts)
	h.exec(t, `DELETE FROM auth.accounts WHERE id IN (SELECT id FROM auth.accounts WHERE status = 'active' LIMIT $1)`, deletions)
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
	for deadline := start.Add(time.Minute); h.undelivered(t) > 0; {
		if time.Now().After(deadline) {
			t.Fatalf("a minute after users became reachable, users has not confirmed %d changes", h.undelivered(t))
		}
	}
	t.Logf("the rest was delivered in %s", time.Since(start))
	// A batch that was interrupted is delivered again.
	if n := len(far.received()); n > accounts+accounts/20 {
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
	if len(received) != accounts || gone != deletions || disabled != accounts/5 {
		t.Errorf("users received calls for %d accounts, %d of them deleted and %d disabled; want %d, %d, %d",
			len(received), gone, disabled, accounts, deletions, accounts/5)
	}
}
