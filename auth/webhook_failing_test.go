package auth_test

import (
	"net/http"
	"testing"

	authv1 "gatehouse/gen/auth/v1"
)

func onlyCreated(r *authv1.CreateWebhookRequest) { r.Types = []string{"user.created"} }

// Its event became a dead letter after three days, and nothing was to be sent for three more.
func TestAQuietEndpointIsNotDisabledByItsNextFailure(t *testing.T) {
	t.Parallel()
	h, server, _ := newWebhookHarness(t, func(arrived, http.Header) int { return http.StatusServiceUnavailable }, onlyCreated)
	h.create(t, "ada@example.com", password)
	h.exec(t, `UPDATE auth.deliveries SET attempts = 9`)
	h.exec(t, `UPDATE auth.webhooks SET fail_since_time = now() - interval '3 days'`)
	h.run(t)
	h.until(t, 1, `SELECT count(*) FROM auth.deliveries WHERE fail_time IS NOT NULL`)
	h.exec(t, `UPDATE auth.webhooks SET fail_since_time = fail_since_time - interval '3 days'`)
	h.create(t, "grace@example.com", password)
	server.until(t, "the next event", atLeast(2))
	h.until(t, 1, `SELECT count(*) FROM auth.deliveries WHERE attempts = 1 AND last_status = 503 AND lease_time IS NULL`)
	if n := h.count(t, `SELECT count(*) FROM auth.webhooks WHERE enabled AND fail_since_time > now() - interval '1 hour'`); n != 1 {
		t.Error("the endpoint is disabled, or counts as failing since before the pause")
	}
}

// While others wait, a dead letter does not end the time of failing.
func TestABusyEndpointIsDisabledAfterDaysInSpiteOfADeadLetter(t *testing.T) {
	t.Parallel()
	h, _, _ := newWebhookHarness(t, func(arrived, http.Header) int { return http.StatusServiceUnavailable }, onlyCreated)
	h.create(t, "ada@example.com", password)
	h.exec(t, `UPDATE auth.deliveries SET attempts = 9`)
	h.create(t, "grace@example.com", password)
	h.exec(t, `UPDATE auth.deliveries SET next_attempt_time = now() + interval '1 hour' WHERE attempts = 0`)
	h.exec(t, `UPDATE auth.webhooks SET fail_since_time = now() - interval '3 days'`)
	h.run(t)
	h.until(t, 1, `SELECT count(*) FROM auth.deliveries WHERE fail_time IS NOT NULL`)
	h.exec(t, `UPDATE auth.webhooks SET fail_since_time = fail_since_time - interval '3 days'`)
	h.dueAll(t)
	h.until(t, 1, `SELECT count(*) FROM auth.webhooks WHERE NOT enabled AND disable_reason = 'failing'`)
}

// The failures of another URL say nothing about this one.
func TestAnEndpointWithAnotherURLHasNotFailedYet(t *testing.T) {
	t.Parallel()
	h, server, made := newWebhookHarness(t, func(arrived, http.Header) int { return http.StatusServiceUnavailable }, onlyCreated)
	h.exec(t, `UPDATE auth.webhooks SET fail_since_time = now() - interval '6 days', failures = 9`)
	if _, err := h.webhooks().UpdateWebhook(t.Context(), &authv1.UpdateWebhookRequest{WebhookId: made.GetWebhook().GetWebhookId(), Url: new(server.url() + "/v2")}); err != nil {
		t.Fatal(err)
	}
	h.run(t)
	h.create(t, "ada@example.com", password)
	h.until(t, 1, `SELECT count(*) FROM auth.deliveries WHERE attempts = 1 AND last_status = 503 AND lease_time IS NULL`)
	if n := h.count(t, `SELECT count(*) FROM auth.webhooks WHERE enabled AND failures = 1`); n != 1 {
		t.Error("the endpoint is disabled, or counts the failures of its earlier URL")
	}
}
