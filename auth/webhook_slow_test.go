package auth_test

import (
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	authv1 "gatehouse/gen/auth/v1"
)

// Endpoints that accept a connection and don't answer delay no other one. It runs with 1,000
// of them where GATEHOUSE_TEST_ROUNDS says so. There are more of them than attempts that may
// be under way before any is known as slow.
func TestSlowEndpointsDoNotDelayAQuickOne(t *testing.T) {
	t.Parallel()
	slow := 300
	if n, err := strconv.Atoi(os.Getenv("GATEHOUSE_TEST_ROUNDS")); err == nil {
		slow = n
	}
	h := newHarness(t, locally)
	release := make(chan struct{})
	var reached atomic.Int32
	hanging := newHooks(t, func(arrived, http.Header) int {
		reached.Add(1)
		<-release
		return http.StatusOK
	})
	t.Cleanup(func() { close(release) })
	quick := newHooks(t, nil)
	types := func(r *authv1.CreateWebhookRequest) { r.Types = []string{"user.created"} }
	for n := range slow {
		h.createWebhook(t, hanging.url()+fmt.Sprint(n), types)
	}
	h.createWebhook(t, quick.url(), types)
	h.run(t)
	// An attempt at a slow endpoint ends after 15 seconds, with an error. None may have ended
	// when the quick endpoint has its event.
	const ended = `SELECT count(*) FROM auth.deliveries WHERE last_error <> ''`
	for n := range 3 {
		before, endedBefore := len(quick.arrived()), h.count(t, ended)
		began := time.Now()
		h.create(t, fmt.Sprintf("user%d@example.com", n), password)
		quick.until(t, "the quick endpoint", atLeast(before+1))
		t.Logf("%d slow endpoints: the quick one had event %d after %s, with %d calls under way", slow, n, time.Since(began), reached.Load())
		if n := h.count(t, ended) - endedBefore; n > 0 {
			t.Errorf("%d attempts at slow endpoints had ended before: the quick one waited for them", n)
		}
	}
	// Later, with all of them known as slow.
	hanging.until(t, "the slow endpoints are called", atLeast(slow))
	before := len(quick.arrived())
	began := time.Now()
	h.create(t, "late@example.com", password)
	quick.until(t, "the quick endpoint", atLeast(before+1))
	t.Logf("%d slow endpoints: the quick one had the last event after %s", slow, time.Since(began))
}

// listenEvents opens a stream, and returns its messages.
func (h *harness) listenEvents(t *testing.T, req *authv1.ListenEventsRequest) (id string, events <-chan *authv1.ListenEventsResponse, stop func()) {
	t.Helper()
	stream, err := h.webhooks().ListenEvents(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	first, err := stream.Receive()
	if err != nil {
		t.Fatal(err)
	}
	found, done := make(chan *authv1.ListenEventsResponse, 100), make(chan struct{})
	go func() {
		defer close(done)
		for {
			message, err := stream.Receive()
			if err != nil {
				return
			}
			found <- message
		}
	}()
	return first.GetListenerId(), found, func() { _ = stream.Close(); <-done }
}

func TestAListenerMissesNothingBetweenTwoStreams(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	types := []string{"user.created"}
	// An event that was sent just before the end of a stream may come again.
	want := func(events <-chan *authv1.ListenEventsResponse, accounts ...*authv1.Account) {
		t.Helper()
		for last := accounts[len(accounts)-1].GetId(); ; {
			select {
			case message := <-events:
				if strings.Contains(message.GetBody(), `"userId":"`+last+`"`) {
					return
				}
				if len(accounts) == 1 || !strings.Contains(message.GetBody(), accounts[0].GetId()) {
					t.Errorf("got %s, want the event of %s", message.GetBody(), last)
				}
			case <-time.After(30 * time.Second):
				t.Fatal("no event after 30 s")
			}
		}
	}
	id, events, stop := h.listenEvents(t, &authv1.ListenEventsRequest{Types: types})
	ada := h.create(t, "ada@example.com", password)
	want(events, ada)
	stop()
	grace := h.create(t, "grace@example.com", password)
	again, events, stop := h.listenEvents(t, &authv1.ListenEventsRequest{Types: types, ListenerId: id})
	if again != id {
		t.Errorf("the second stream has the listener %s, want %s", again, id)
	}
	want(events, ada, grace)
	stop()
	h.exec(t, `UPDATE auth.webhooks SET expire_time = now()`)
	if other, _, stop := h.listenEvents(t, &authv1.ListenEventsRequest{Types: types, ListenerId: id}); other == id {
		t.Error("an expired listener continues")
	} else {
		stop()
	}
	listed, err := h.webhooks().ListWebhooks(t.Context(), &authv1.ListWebhooksRequest{})
	if err != nil || len(listed.GetWebhooks()) != 0 {
		t.Errorf("ListWebhooks: %v, %v, want no listener", listed, err)
	}
}

func TestWebhooksAreListedInPages(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	var want []string
	for n := range 5 {
		want = append(want, h.createWebhook(t, fmt.Sprintf("https://example.com/%d", n)).GetWebhook().GetUrl())
	}
	slices.Reverse(want)
	var got []string
	for token := ""; ; {
		page, err := h.webhooks().ListWebhooks(t.Context(), &authv1.ListWebhooksRequest{PageSize: 2, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, one := range page.GetWebhooks() {
			got = append(got, one.GetUrl())
		}
		if token = page.GetNextPageToken(); token == "" {
			break
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	_, err := h.webhooks().ListWebhooks(t.Context(), &authv1.ListWebhooksRequest{PageToken: "x"})
	wantReason(t, err, connect.CodeInvalidArgument, "PAGE_TOKEN_INVALID")
}

func TestAWebhookIsChangedAndDeleted(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	id := h.createWebhook(t, "https://example.com/hooks").GetWebhook().GetWebhookId()
	changed, err := h.webhooks().UpdateWebhook(t.Context(), &authv1.UpdateWebhookRequest{
		WebhookId: id, Url: new("https://example.org/"), Description: new("CRM"), Types: []string{"user.deleted"}, SignatureVersions: []string{"v1a"}, Enabled: new(false),
	})
	if err != nil {
		t.Fatal(err)
	}
	w := changed.GetWebhook()
	if w.GetUrl() != "https://example.org/" || w.GetDescription() != "CRM" || !slices.Equal(w.GetTypes(), []string{"user.deleted"}) || w.GetEnabled() ||
		w.GetDisableReason() != "administrator" || len(w.GetPublicKeys()) != 1 {
		t.Errorf("got %v", w)
	}
	same, err := h.webhooks().UpdateWebhook(t.Context(), &authv1.UpdateWebhookRequest{WebhookId: id, Enabled: new(true)})
	if err != nil || same.GetWebhook().GetUrl() != "https://example.org/" || !same.GetWebhook().GetEnabled() || same.GetWebhook().GetDisableReason() != "" {
		t.Errorf("enabled again: %v, %v", same, err)
	}
	for name, request := range map[string]*authv1.UpdateWebhookRequest{
		"WEBHOOK_URL_INVALID": {WebhookId: id, Url: new("http://example.com")},
		"EVENT_TYPE_UNKNOWN":  {WebhookId: id, Types: []string{"user.*"}},
	} {
		_, err := h.webhooks().UpdateWebhook(t.Context(), request)
		wantReason(t, err, connect.CodeInvalidArgument, name)
	}
	if _, err := h.webhooks().SendTest(t.Context(), &authv1.SendTestRequest{WebhookId: id}); err != nil {
		t.Fatal(err)
	}
	h.exec(t, "UPDATE auth.deliveries SET next_attempt_time = now() + interval '10 hours'")
	if _, err := h.webhooks().UpdateWebhook(t.Context(), &authv1.UpdateWebhookRequest{WebhookId: id, Enabled: new(true), Types: []string{"user.created"}}); err != nil {
		t.Fatal(err)
	}
	if n := h.count(t, "SELECT count(*) FROM auth.deliveries WHERE next_attempt_time <= now()"); n != 1 {
		t.Errorf("%d deliveries are due after the endpoint was enabled again, want 1", n)
	}
	if _, err := h.webhooks().DeleteWebhook(t.Context(), &authv1.DeleteWebhookRequest{WebhookId: id}); err != nil {
		t.Fatal(err)
	}
	h.create(t, "ada@example.com", password)
	if n := h.count(t, "SELECT count(*) FROM auth.deliveries"); n != 1 {
		t.Errorf("there are %d deliveries after the deletion, want the one from before", n)
	}
	if n := h.count(t, "SELECT count(*) FROM auth.webhook_secrets"); n != 0 {
		t.Errorf("%d secrets are left", n)
	}
	h.exec(t, "UPDATE auth.webhooks SET expire_time = now() - interval '1 second'")
	h.run(t)
	h.until(t, 0, "SELECT count(*) FROM auth.webhooks")
	h.until(t, 0, "SELECT count(*) FROM auth.deliveries")
	_, err = h.webhooks().DeleteWebhook(t.Context(), &authv1.DeleteWebhookRequest{WebhookId: id})
	wantReason(t, err, connect.CodeNotFound, "WEBHOOK_NOT_FOUND")
}

// Old events are pruned with their deliveries, and secrets are resealed with a newer key.
func TestOldEventsArePrunedAndSecretsResealed(t *testing.T) {
	t.Parallel()
	h, server, made := newWebhookHarness(t, nil, func(r *authv1.CreateWebhookRequest) { r.Types = []string{"user.created"} })
	h.create(t, "ada@example.com", password)
	h.create(t, "grace@example.com", password)
	h.exec(t, `UPDATE auth.events SET create_time = now() - interval '31 days' WHERE id = (SELECT id FROM auth.events LIMIT 1)`)
	config := h.config
	config.Secrets = [][]byte{secretTwo, secretOne}
	h.open(t, config)
	h.run(t)
	h.until(t, 1, `SELECT count(*) FROM auth.events`)
	h.until(t, 1, `SELECT count(*) FROM auth.deliveries`)
	server.until(t, "the other event", atLeast(1))
	config.Secrets = [][]byte{secretTwo} // the older one is dropped
	h.open(t, config)
	h.run(t)
	if _, err := h.webhooks().SendTest(t.Context(), &authv1.SendTestRequest{WebhookId: made.GetWebhook().GetWebhookId()}); err != nil {
		t.Fatal(err)
	}
	server.until(t, "a test", func(calls []arrived) bool { return calls[len(calls)-1].Type == "webhook.test" })
}
