package auth_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect/v2"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"google.golang.org/protobuf/types/known/timestamppb"

	authv1 "gatehouse/gen/auth/v1"
)

func TestTheAuditOfAWebhookNamesIt(t *testing.T) {
	t.Parallel()
	h, _, made := newWebhookHarness(t, func(arrived, http.Header) int { return http.StatusGone },
		func(r *authv1.CreateWebhookRequest) { r.Types = []string{"user.created"} })
	id := made.GetWebhook().GetWebhookId()
	ctx, webhooks := t.Context(), h.webhooks()
	sent, err := webhooks.SendTest(ctx, &authv1.SendTestRequest{WebhookId: id})
	if err != nil {
		t.Fatal(err)
	}
	for name, call := range map[string]func() error{
		"update": func() error {
			_, err := webhooks.UpdateWebhook(ctx, &authv1.UpdateWebhookRequest{WebhookId: id, Description: new("CRM")})
			return err
		},
		"rotate": func() error {
			_, err := webhooks.RotateSecret(ctx, &authv1.RotateSecretRequest{WebhookId: id})
			return err
		},
		"replay": func() error {
			_, err := webhooks.ReplayEvents(ctx, &authv1.ReplayEventsRequest{WebhookId: id, StartTime: timestamppb.Now()})
			return err
		},
		"retry": func() error {
			_, err := webhooks.RetryDelivery(ctx, &authv1.RetryDeliveryRequest{WebhookId: id, DeliveryId: sent.GetDelivery().GetDeliveryId()})
			return err
		},
	} {
		if err := call(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	h.exec(t, `UPDATE auth.deliveries SET attempts = 9`) // the next attempt is the last
	h.run(t)
	h.until(t, 1, `SELECT count(*) FROM auth.webhooks WHERE disable_reason = 'gone'`)
	if _, err := webhooks.DeleteWebhook(ctx, &authv1.DeleteWebhookRequest{WebhookId: id}); err != nil {
		t.Fatal(err)
	}
	listener, _, stop := h.listenEvents(t, &authv1.ListenEventsRequest{})
	defer stop()
	listed, err := h.audit.ListAuditEvents(ctx, &authv1.ListAuditEventsRequest{Event: "webhook."})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, event := range listed.GetEvents() {
		want := id
		if event.GetEvent() == "webhook.listen" {
			want = listener
		}
		if event.GetTargetId() != want {
			t.Errorf("%s names %q, want %s", event.GetEvent(), event.GetTargetId(), want)
		}
		seen[event.GetEvent()] = true
	}
	for _, name := range auditEvents(t) {
		if strings.HasPrefix(name, "webhook.") && !seen[name] {
			t.Errorf("there is no %s among %v", name, seen)
		}
	}
}

// Parallel calls with one Idempotency-Key create one webhook, and have its secret.
func TestARepeatedCreationOfAWebhookHasTheSameAnswer(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	ada, grace := h.create(t, "ada@example.com", password).GetId(), h.create(t, "grace@example.com", password).GetId()
	call := func(account, key, request string) *authv1.CreateWebhookResponse {
		made, err := h.webhooks().CreateWebhook(t.Context(), &authv1.CreateWebhookRequest{
			Url: "https://example.com/hooks", Origin: &authv1.Origin{AccountId: account},
			IdempotencyKey: &authv1.IdempotencyKey{Key: key, Procedure: "/bff.v1.WebhookService/CreateWebhook", RequestHash: bytes.Repeat([]byte(request), 32)},
		})
		if err != nil {
			t.Errorf("CreateWebhook with the key %q: %v", key, err)
			return &authv1.CreateWebhookResponse{}
		}
		return made
	}
	answers := make([]*authv1.CreateWebhookResponse, 8)
	var calls sync.WaitGroup
	for n := range answers {
		calls.Go(func() { answers[n] = call(ada, "one", "1") })
	}
	calls.Wait()
	first := answers[0]
	for _, other := range answers[1:] {
		if other.GetWebhook().GetWebhookId() != first.GetWebhook().GetWebhookId() || other.GetSecret() != first.GetSecret() || first.GetSecret() == "" {
			t.Errorf("got %s with %q, want %s with %q", other.GetWebhook().GetWebhookId(), other.GetSecret(), first.GetWebhook().GetWebhookId(), first.GetSecret())
		}
	}
	if n := h.count(t, `SELECT count(*) FROM auth.audit_events WHERE event = 'webhook.create'`); n != 1 {
		t.Errorf("%d creations are audited, want 1", n)
	}
	differs := func(what string, made *authv1.CreateWebhookResponse) {
		t.Helper()
		if made.GetWebhook().GetWebhookId() == first.GetWebhook().GetWebhookId() || made.GetSecret() == first.GetSecret() {
			t.Errorf("%s has the first one's answer", what)
		}
	}
	differs("another key", call(ada, "two", "1"))
	differs("another request", call(ada, "one", "2"))
	differs("another administrator", call(grace, "one", "1"))
	if _, err := h.webhooks().RotateSecret(t.Context(), &authv1.RotateSecretRequest{WebhookId: first.GetWebhook().GetWebhookId()}); err != nil {
		t.Fatal(err)
	}
	again := call(ada, "one", "1")
	differs("a call after the secret was replaced", again)
	h.exec(t, `UPDATE auth.webhooks SET create_time = create_time - interval '2 minutes'`)
	h.exec(t, `UPDATE auth.webhook_secrets SET create_time = create_time - interval '2 minutes'`)
	if late := call(ada, "one", "1"); late.GetWebhook().GetWebhookId() == again.GetWebhook().GetWebhookId() {
		t.Error("a call after two minutes has the earlier one's answer")
	}
}

// While the secret keys are rotated, a copy may not have the one that sealed the secret.
func TestARepeatedCreationOfAWebhookWaitsForTheSecretKey(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	request := &authv1.CreateWebhookRequest{
		Url: "https://example.com/hooks", Origin: &authv1.Origin{AccountId: h.create(t, "ada@example.com", password).GetId()},
		IdempotencyKey: &authv1.IdempotencyKey{Key: "one", Procedure: "/bff.v1.WebhookService/CreateWebhook", RequestHash: make([]byte, 32)},
	}
	first, err := h.webhooks().CreateWebhook(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	config := h.config
	config.Secrets = [][]byte{secretTwo, secretOne}
	h.open(t, config)
	if again, err := h.webhooks().CreateWebhook(t.Context(), request); err != nil || again.GetSecret() != first.GetSecret() {
		t.Errorf("by another newest key: %v, %v, want the same secret", again.GetWebhook(), err)
	}
	h.exec(t, `UPDATE auth.webhook_secrets SET sealed_secret = set_byte(sealed_secret, 20, 255 - get_byte(sealed_secret, 20))`)
	_, err = h.webhooks().CreateWebhook(t.Context(), request)
	wantReason(t, err, connect.CodeUnavailable, "SERVICE_UNAVAILABLE")
}

// The key that sealed the secret of an endpoint is lost: nothing is sent unsigned, what has
// expired is pruned all the same, and a new secret repairs the endpoint.
func TestALostSecretKeyNeitherSendsUnsignedNorStopsPruning(t *testing.T) {
	t.Parallel()
	h, server, made := newWebhookHarness(t, nil, func(r *authv1.CreateWebhookRequest) { r.Types = []string{"user.created"} })
	h.create(t, "ada@example.com", password)
	h.create(t, "grace@example.com", password)
	h.exec(t, `UPDATE auth.events SET create_time = now() - interval '31 days' WHERE id = (SELECT id FROM auth.events LIMIT 1)`)
	h.exec(t, `UPDATE auth.webhook_secrets SET key_id = 'lost', sealed_secret = set_byte(sealed_secret, 20, 255 - get_byte(sealed_secret, 20))`)
	var log logged
	config := h.config
	config.Logger = slog.New(slog.NewTextHandler(&log, nil))
	h.open(t, config)
	h.run(t)
	h.until(t, 1, `SELECT count(*) FROM auth.events`)
	h.until(t, 1, `SELECT count(*) FROM auth.deliveries WHERE attempts = 1 AND lease_time IS NULL AND last_error LIKE 'The secret could not be opened.%'`)
	if calls := server.arrived(); len(calls) != 0 {
		t.Fatalf("the endpoint got a call with the signature %q", calls[0].Header.Get("Webhook-Signature"))
	}
	for _, message := range []string{"webhooks: secret not opened", "webhooks: resealing failed"} {
		eventually(t, "wait for the log", func() error {
			if !strings.Contains(log.String(), message) {
				return fmt.Errorf("%q is not in the log:\n%s", message, log.String())
			}
			return nil
		})
	}
	rotated, err := h.webhooks().RotateSecret(t.Context(), &authv1.RotateSecretRequest{WebhookId: made.GetWebhook().GetWebhookId()})
	if err != nil {
		t.Fatal(err)
	}
	h.dueAll(t)
	call := server.until(t, "the event, signed with the new secret", atLeast(1))[0]
	verifier, err := standardwebhooks.NewWebhook(rotated.GetSecret())
	if err != nil {
		t.Fatal(err)
	}
	if err := verifier.Verify(call.Body, call.Header); err != nil {
		t.Errorf("the new secret does not verify the call: %v", err)
	}
}
