package auth_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"gatehouse/auth"
	authv1 "gatehouse/gen/auth/v1"
)

// refuseOne returns an answer of an endpoint that refuses the events of one account.
func refuseOne() (refused *atomic.Value, answer func(arrived, http.Header) int) {
	refused = &atomic.Value{}
	return refused, func(call arrived, _ http.Header) int {
		if id, _ := refused.Load().(string); call.User == id {
			return http.StatusInternalServerError
		}
		return http.StatusOK
	}
}

// changeRoles makes events of an account.
func (h *harness) changeRoles(t *testing.T, account string, changes int) {
	t.Helper()
	for n := range changes {
		_, err := h.accounts.SetAccountRoles(t.Context(), &authv1.SetAccountRolesRequest{AccountId: account, Roles: []string{fmt.Sprintf("role%d", n)}})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// One account has 200 events and the endpoint refuses its first, again and again. The events
// of other accounts arrive meanwhile, and the circuit breaker stays closed.
func TestAnAccountWhoseEventsAreRefusedDelaysNoOther(t *testing.T) {
	t.Parallel()
	refused, answer := refuseOne()
	h, server, _ := newWebhookHarness(t, answer, func(r *authv1.CreateWebhookRequest) { r.Types = []string{"user.created", "user.roles_changed"} })
	account := h.create(t, "ada@example.com", password).GetId()
	refused.Store(account)
	h.changeRoles(t, account, 199)
	h.run(t)
	h.open(t, h.config)
	h.run(t) // another copy
	for attempt := 1; attempt <= 8; attempt++ {
		h.until(t, 1, `SELECT count(*) FROM auth.deliveries WHERE account_id = $1 AND attempts = $2 AND lease_time IS NULL`, account, attempt)
		if n := h.count(t, `SELECT count(*) FROM auth.webhooks WHERE resume_time IS NOT NULL`); n != 0 {
			t.Fatalf("after %d refusals of one account, nothing is sent to the endpoint for a while", attempt)
		}
		h.exec(t, `UPDATE auth.deliveries SET next_attempt_time = now() WHERE sent_time IS NULL AND fail_time IS NULL AND lease_time IS NULL`)
	}
	other := h.create(t, "grace@example.com", password).GetId()
	h.changeRoles(t, other, 20)
	h.until(t, 21, `SELECT count(*) FROM auth.deliveries WHERE account_id = $1 AND sent_time IS NOT NULL AND attempts = 1`, other)
	if n := h.count(t, `SELECT count(*) FROM auth.deliveries WHERE account_id = $1 AND attempts > 0`, account); n != 1 {
		t.Errorf("%d events of the account whose first is refused were attempted, want that one", n)
	}
	refused.Store("")
	h.dueAll(t)
	h.until(t, 0, `SELECT count(*) FROM auth.deliveries WHERE sent_time IS NULL`)
	var versions []string
	for _, call := range server.arrived() {
		if call.User == account {
			versions = append(versions, call.ID)
		}
	}
	if ids := slices.Compact(versions); len(ids) != 200 {
		t.Errorf("%d events of the account arrived, one after the other, want 200", len(ids))
	}
	if n := h.count(t, `
		SELECT count(*) FROM auth.deliveries a JOIN auth.deliveries b USING (webhook_id, account_id)
		WHERE a.event_time < b.event_time AND a.sent_time > b.sent_time`); n != 0 {
		t.Errorf("%d pairs of events were sent in another order than theirs", n)
	}
}

// What waits for a refused event is put off in one statement: looking at 50 of it at a time
// would take minutes.
func TestALargeBacklogOfOneAccountIsPassedOver(t *testing.T) {
	t.Parallel()
	refused, answer := refuseOne()
	h, server, made := newWebhookHarness(t, answer, func(r *authv1.CreateWebhookRequest) { r.Types = []string{"user.created"} })
	account := h.create(t, "ada@example.com", password).GetId()
	refused.Store(account)
	h.exec(t, `
		WITH written AS (
			INSERT INTO auth.events (type, account_id, version, data)
			SELECT 'user.created', $1::uuid, n, jsonb_build_object('userId', $1::uuid) FROM generate_series(2, 20000) n RETURNING id, create_time)
		INSERT INTO auth.deliveries (event_id, webhook_id, account_id, event_time)
		SELECT id, $2::uuid, $1::uuid, create_time FROM written`, account, made.GetWebhook().GetWebhookId())
	other := h.create(t, "grace@example.com", password).GetId()
	h.run(t)
	server.until(t, "the other account's event", func(calls []arrived) bool {
		return slices.ContainsFunc(calls, func(call arrived) bool { return call.User == other })
	})
}

// A worker that has lost its lease records no failure over the attempt of another one, even
// if both are the first of their count.
func TestAFailureAfterALostLeaseIsNotRecorded(t *testing.T) {
	t.Parallel()
	var calls atomic.Int32
	first, second := make(chan int, 1), make(chan int, 1)
	var log logged
	h := newHarness(t, locally, func(c *auth.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	server := newHooks(t, func(arrived, http.Header) int {
		if calls.Add(1) == 1 {
			return <-first
		}
		return <-second
	})
	t.Cleanup(func() { close(first); close(second) })
	made := h.createWebhook(t, server.url(), func(r *authv1.CreateWebhookRequest) { r.Types = []string{"user.created"} })
	h.run(t)
	h.create(t, "ada@example.com", password)
	server.until(t, "the first attempt", atLeast(1))
	h.exec(t, `UPDATE auth.deliveries SET lease_time = now() - interval '1 second'`) // the first worker was suspended
	listed, err := h.webhooks().ListDeliveries(t.Context(), &authv1.ListDeliveriesRequest{WebhookId: made.GetWebhook().GetWebhookId()})
	if err != nil || len(listed.GetDeliveries()) != 1 {
		t.Fatalf("ListDeliveries: %v, %v", listed, err)
	}
	retry := &authv1.RetryDeliveryRequest{WebhookId: made.GetWebhook().GetWebhookId(), DeliveryId: listed.GetDeliveries()[0].GetDeliveryId()}
	if _, err := h.webhooks().RetryDelivery(t.Context(), retry); err != nil {
		t.Fatal(err)
	}
	server.until(t, "the attempt of the next holder", atLeast(2))
	first <- http.StatusInternalServerError
	eventually(t, "wait until the first worker is done", func() error {
		if n := h.count(t, `SELECT count(*) FROM auth.deliveries WHERE id = $1 AND lease_time > now() AND attempts = 1 AND last_status = 0`, retry.GetDeliveryId()); n != 1 {
			t.Fatal("the first worker has ended the lease of the next holder")
		}
		if !strings.Contains(log.String(), "webhooks: lease lost before the result") {
			return fmt.Errorf("the log is %s", log.String())
		}
		return nil
	})
	second <- http.StatusOK
	h.until(t, 1, `SELECT count(*) FROM auth.deliveries WHERE id = $1 AND sent_time IS NOT NULL AND attempts = 1`, retry.GetDeliveryId())
	if n := h.count(t, `SELECT count(*) FROM auth.webhooks WHERE failures > 0`); n != 0 {
		t.Error("the failure of the first worker counts")
	}
}

// The attempt of that lease may still be about to record its result.
func TestARetryEndsALeaseThatIsOver(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	made := h.createWebhook(t, "https://example.com/hooks", func(r *authv1.CreateWebhookRequest) { r.Types = []string{"user.created"} })
	h.create(t, "ada@example.com", password)
	h.exec(t, `UPDATE auth.deliveries SET attempts = 10, lease_time = now() - interval '1 second'`)
	listed, err := h.webhooks().ListDeliveries(t.Context(), &authv1.ListDeliveriesRequest{WebhookId: made.GetWebhook().GetWebhookId()})
	if err != nil || len(listed.GetDeliveries()) != 1 {
		t.Fatalf("ListDeliveries: %v, %v", listed, err)
	}
	if _, err := h.webhooks().RetryDelivery(t.Context(), &authv1.RetryDeliveryRequest{WebhookId: made.GetWebhook().GetWebhookId(), DeliveryId: listed.GetDeliveries()[0].GetDeliveryId()}); err != nil {
		t.Fatal(err)
	}
	if n := h.count(t, `SELECT count(*) FROM auth.deliveries WHERE lease_time IS NULL AND attempts = 0`); n != 1 {
		t.Error("the delivery keeps the lease of an earlier attempt")
	}
}

// A transaction that ends a session waits for one that changes the account, although they
// lock no common row: its event is later, and has the version that the other one made.
func TestEventsOfOneAccountAreWrittenInTheOrderOfTheCommits(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.createWebhook(t, "https://example.com/hooks", func(r *authv1.CreateWebhookRequest) { r.Types = []string{"user.roles_changed", "session.ended"} })
	account, _ := h.signUp(t, "ada@example.com")
	first, err := h.owner.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = first.Rollback(t.Context()) }()
	for _, statement := range []string{`UPDATE auth.accounts SET roles = '{editor}', version = version + 1`, `SET CONSTRAINTS ALL IMMEDIATE`} {
		if _, err := first.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	ended := make(chan error, 1)
	go func() {
		_, err := h.owner.Exec(t.Context(), `UPDATE auth.sessions SET revoke_time = now(), revoke_reason = 'revoked' WHERE account_id = $1`, account.GetId())
		ended <- err
	}()
	eventually(t, "wait until the second transaction waits", func() error {
		select {
		case err := <-ended:
			t.Fatalf("the second transaction has committed before the first: %v", err)
		default:
		}
		if n := h.count(t, `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`); n != 1 {
			return fmt.Errorf("%d wait", n)
		}
		return nil
	})
	if err := first.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if n := h.count(t, `
		SELECT count(*) FROM auth.events changed JOIN auth.events ended USING (account_id, version)
		WHERE changed.type = 'user.roles_changed' AND ended.type = 'session.ended' AND changed.version = 2 AND changed.create_time < ended.create_time`); n != 1 {
		t.Error("the event of the second transaction is not after that of the first, with its version")
	}
	// Postgres' clock steps back.
	h.exec(t, `UPDATE auth.deliveries SET event_time = event_time + interval '1 hour'`)
	h.exec(t, `UPDATE auth.accounts SET roles = '{author}', version = version + 1`)
	if n := h.count(t, `SELECT count(*) FROM auth.deliveries d JOIN auth.events e ON e.id = d.event_id
		WHERE e.version = 3 AND d.event_time > ALL (SELECT event_time FROM auth.deliveries x WHERE x.id <> d.id)`); n != 1 {
		t.Error("an event that is written after a step of the clock is before the others")
	}
}
