package auth_test

import (
	"net/http"
	"sync"
	"testing"

	authv1 "gatehouse/gen/auth/v1"
)

// The endpoint takes long for the first of 20,000 events of an account. Each of the others is
// written about once meanwhile, and then they arrive one after the other, in their order.
func TestABacklogBehindASlowEventIsSeldomWritten(t *testing.T) {
	t.Parallel()
	const events, sent = 20_000, 200
	held := make(chan struct{})
	release := sync.OnceFunc(func() { close(held) })
	h, server, made := newWebhookHarness(t, func(arrived, http.Header) int {
		<-held
		return http.StatusOK
	}, func(r *authv1.CreateWebhookRequest) { r.Types = []string{"user.created"} })
	t.Cleanup(release) // before the endpoint closes
	account := h.create(t, "ada@example.com", password).GetId()
	h.exec(t, `
		WITH written AS (
			INSERT INTO auth.events (type, account_id, version, data, create_time)
			SELECT 'user.created', $1::uuid, n, jsonb_build_object('userId', $1::uuid), now() + interval '1 millisecond' * n FROM generate_series(2, $3::integer) n RETURNING id, create_time)
		INSERT INTO auth.deliveries (event_id, webhook_id, account_id, event_time)
		SELECT id, $2::uuid, $1::uuid, create_time FROM written`, account, made.GetWebhook().GetWebhookId(), events)
	h.exec(t, `CREATE TABLE written (rows bigint)`)
	h.exec(t, `CREATE FUNCTION note_written() RETURNS trigger SECURITY DEFINER LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.written SELECT count(*) FROM rows; RETURN NULL; END $$`)
	h.exec(t, `CREATE TRIGGER note AFTER UPDATE ON auth.deliveries REFERENCING NEW TABLE AS rows FOR EACH STATEMENT EXECUTE FUNCTION note_written()`)
	h.run(t)
	server.until(t, "the first event", atLeast(1))
	h.open(t, h.config)
	h.run(t) // another copy, which does not know that the endpoint is slow
	h.until(t, 1, `SELECT count(*) FROM auth.deliveries WHERE next_attempt_time < now() + interval '5 minutes' AND lease_time IS NULL`)
	// A row may be looked at twice, and the second one often.
	if n := h.count(t, `SELECT sum(rows) FROM written`); n > events+1000 {
		t.Errorf("%d rows were written while %d wait", n, events)
	}
	h.exec(t, `
		UPDATE auth.deliveries SET fail_time = now()
		WHERE id IN (SELECT id FROM auth.deliveries ORDER BY event_time, id OFFSET $1)`, sent)
	release()
	h.until(t, sent, `SELECT count(*) FROM auth.deliveries WHERE sent_time IS NOT NULL`)
	if n := h.count(t, `
		SELECT count(*) FROM auth.deliveries a JOIN auth.deliveries b USING (webhook_id, account_id)
		WHERE a.sent_time IS NOT NULL AND b.sent_time IS NOT NULL AND a.event_time < b.event_time AND a.sent_time > b.sent_time`); n != 0 {
		t.Errorf("%d pairs of events were sent in another order than theirs", n)
	}
}

// Enabling an endpoint writes the first event of each account and what was attempted before,
// and not the events that wait for those. All arrive, in the order of their account.
func TestEnablingAnEndpointSeldomWritesWhatWaits(t *testing.T) {
	t.Parallel()
	const events, accounts = 200, 3
	h, _, made := newWebhookHarness(t, nil, func(r *authv1.CreateWebhookRequest) { r.Types = []string{"user.created"} })
	id := made.GetWebhook().GetWebhookId()
	if _, err := h.webhooks().UpdateWebhook(t.Context(), &authv1.UpdateWebhookRequest{WebhookId: id, Enabled: new(false)}); err != nil {
		t.Fatal(err)
	}
	// Neither the first event of an account nor those behind it are due for an hour.
	h.exec(t, `
		WITH owners AS (SELECT n, gen_random_uuid() AS id FROM generate_series(1, $2::integer) n), written AS (
			INSERT INTO auth.events (type, account_id, version, data, create_time)
			SELECT 'user.created', o.id, e, jsonb_build_object('userId', o.id), now() + interval '1 millisecond' * e FROM owners o, generate_series(1, $3::integer) e
			RETURNING id, account_id, create_time)
		INSERT INTO auth.deliveries (event_id, webhook_id, account_id, event_time, next_attempt_time)
		SELECT id, $1::uuid, account_id, create_time, now() + interval '1 hour' FROM written`, id, accounts, events)
	h.exec(t, `
		UPDATE auth.deliveries SET attempts = 1
		WHERE id = (SELECT id FROM auth.deliveries ORDER BY event_time DESC LIMIT 1)`)
	if _, err := h.webhooks().UpdateWebhook(t.Context(), &authv1.UpdateWebhookRequest{WebhookId: id, Enabled: new(true)}); err != nil {
		t.Fatal(err)
	}
	if n := h.count(t, `SELECT count(*) FROM auth.deliveries WHERE next_attempt_time <= now()`); n != accounts+1 {
		t.Errorf("%d deliveries are due, want the first of each of %d accounts and the one that was attempted", n, accounts)
	}
	h.exec(t, `UPDATE auth.deliveries SET attempts = 0`) // it would wait for half a minute
	h.run(t)
	h.until(t, accounts*events, `SELECT count(*) FROM auth.deliveries WHERE sent_time IS NOT NULL`)
	if n := h.count(t, `
		SELECT count(*) FROM auth.deliveries a JOIN auth.deliveries b USING (webhook_id, account_id)
		WHERE a.event_time < b.event_time AND a.sent_time > b.sent_time`); n != 0 {
		t.Errorf("%d pairs of events were sent in another order than theirs", n)
	}
}
