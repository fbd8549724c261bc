package auth_test

import (
	"net/http"
	"testing"

	"connectrpc.com/connect/v2"

	authv1 "gatehouse/gen/auth/v1"
)

// The endpoint fails, others wait longer, and the circuit breaker is open for an hour.
func TestARetryIsTheNextAttempt(t *testing.T) {
	t.Parallel()
	h, server, made := newWebhookHarness(t, func(arrived, http.Header) int { return http.StatusBadGateway }, onlyCreated)
	h.exec(t, `INSERT INTO auth.accounts (id, email, password_hash) SELECT gen_random_uuid(), 'user' || n || '@example.com', 'x' FROM generate_series(1, 20) n`)
	h.run(t)
	h.until(t, 1, `SELECT count(*) FROM auth.webhooks WHERE resume_time > now() AND failures >= 5`)
	h.exec(t, `UPDATE auth.webhooks SET resume_time = now() + interval '1 hour'`)
	h.until(t, 0, `SELECT count(*) FROM auth.deliveries WHERE lease_time IS NOT NULL`)
	h.exec(t, `UPDATE auth.deliveries SET next_attempt_time = now() - interval '1 minute'`)
	id := made.GetWebhook().GetWebhookId()
	listed, err := h.webhooks().ListDeliveries(t.Context(), &authv1.ListDeliveriesRequest{WebhookId: id})
	if err != nil || len(listed.GetDeliveries()) != 20 {
		t.Fatalf("ListDeliveries: %d, %v", len(listed.GetDeliveries()), err)
	}
	for _, n := range []int{7, 13} {
		before := len(server.arrived())
		chosen := listed.GetDeliveries()[n]
		if _, err := h.webhooks().RetryDelivery(t.Context(), &authv1.RetryDeliveryRequest{WebhookId: id, DeliveryId: chosen.GetDeliveryId()}); err != nil {
			t.Fatal(err)
		}
		if got := server.until(t, "the retry", atLeast(before+1))[before]; got.ID != chosen.GetEventId() {
			t.Errorf("the next attempt is that of the event %s, want %s", got.ID, chosen.GetEventId())
		}
		h.until(t, 1, `SELECT count(*) FROM auth.webhooks WHERE resume_time > now()`) // it has failed again
		h.exec(t, `UPDATE auth.webhooks SET resume_time = now() + interval '1 hour'`)
		h.until(t, 0, `SELECT count(*) FROM auth.deliveries WHERE lease_time IS NOT NULL`)
	}
	before := len(server.arrived())
	if _, err := h.webhooks().SendTest(t.Context(), &authv1.SendTestRequest{WebhookId: id}); err != nil {
		t.Fatal(err)
	}
	server.until(t, "the attempt after SendTest", atLeast(before+1))
}

func TestNoDeliveryOfADisabledWebhookIsRetried(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	id := h.createWebhook(t, "https://example.com/hooks", onlyCreated).GetWebhook().GetWebhookId()
	h.create(t, "ada@example.com", password)
	h.exec(t, `UPDATE auth.deliveries SET attempts = 10, fail_time = now()`)
	if _, err := h.webhooks().UpdateWebhook(t.Context(), &authv1.UpdateWebhookRequest{WebhookId: id, Enabled: new(false)}); err != nil {
		t.Fatal(err)
	}
	listed, err := h.webhooks().ListDeliveries(t.Context(), &authv1.ListDeliveriesRequest{WebhookId: id})
	if err != nil || len(listed.GetDeliveries()) != 1 {
		t.Fatalf("ListDeliveries: %v, %v", listed, err)
	}
	_, err = h.webhooks().RetryDelivery(t.Context(), &authv1.RetryDeliveryRequest{WebhookId: id, DeliveryId: listed.GetDeliveries()[0].GetDeliveryId()})
	wantReason(t, err, connect.CodeFailedPrecondition, "WEBHOOK_DISABLED")
	if n := h.count(t, `SELECT count(*) FROM auth.deliveries WHERE attempts = 10 AND fail_time IS NOT NULL`); n != 1 {
		t.Error("the refused retry has changed the delivery")
	}
}
