package auth_test

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/mailtest"
)

func onlySignUps(r *authv1.CreateWebhookRequest) { r.Types = []string{"user.created"} }

// The name of the endpoint passes the check of its URL: what it resolves to is refused when
// the connection is made.
func TestADeliveryConnectsToNoAddressOfThisNetwork(t *testing.T) {
	t.Parallel()
	var connections atomic.Int32
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	server.StartTLS()
	t.Cleanup(server.Close)
	h := newHarness(t)
	h.createWebhook(t, strings.Replace(server.URL, "127.0.0.1", "localhost", 1), onlySignUps)
	h.run(t)
	h.create(t, "ada@example.com", password)
	h.until(t, 1, `SELECT count(*) FROM auth.deliveries WHERE attempts = 1 AND lease_time IS NULL AND last_error LIKE '%an address that is not public%'`)
	if n := connections.Load(); n != 0 {
		t.Errorf("the endpoint got %d connections, want none", n)
	}
}

func TestADeliveryFollowsNoRedirect(t *testing.T) {
	t.Parallel()
	other := newHooks(t, nil)
	h, server, _ := newWebhookHarness(t, func(_ arrived, header http.Header) int {
		header.Set("Location", other.url())
		return http.StatusTemporaryRedirect
	}, onlySignUps)
	h.run(t)
	h.create(t, "ada@example.com", password)
	server.until(t, "the attempt", atLeast(1))
	h.until(t, 1, `SELECT count(*) FROM auth.deliveries WHERE sent_time IS NULL AND last_status = 307 AND last_error LIKE '%redirects are not followed%'`)
	if calls := other.arrived(); len(calls) != 0 {
		t.Errorf("the target of the redirect got %d calls, want none", len(calls))
	}
}

// Each interval differs from the documented one by at most a fifth, and not always by the
// same.
func TestTheIntervalsOfTheAttempts(t *testing.T) {
	t.Parallel()
	h, _, _ := newWebhookHarness(t, func(arrived, http.Header) int { return http.StatusServiceUnavailable }, onlySignUps)
	h.run(t)
	began := time.Now()
	h.create(t, "ada@example.com", password)
	seen := map[int]bool{}
	for i, want := range []time.Duration{
		5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour,
	} {
		attempt := i + 1
		h.until(t, 1, `SELECT count(*) FROM auth.deliveries WHERE attempts = $1 AND lease_time IS NULL`, attempt)
		var seconds float64
		if err := h.owner.QueryRow(t.Context(), `SELECT extract(epoch FROM next_attempt_time - now())::float8 FROM auth.deliveries`).Scan(&seconds); err != nil {
			t.Fatal(err)
		}
		left := time.Duration(seconds * float64(time.Second))
		if passed := time.Since(began); left > want*6/5 || left+passed < want*4/5 {
			t.Errorf("%s after attempt %d began, the next one is %s away; want %s with a jitter of a fifth", passed, attempt, left, want)
		}
		seen[int(100*left/want)] = true
		began = time.Now()
		h.dueAll(t)
	}
	if len(seen) < 3 {
		t.Errorf("the intervals are %v percent of the documented ones, want jitter", seen)
	}
	h.until(t, 1, `SELECT count(*) FROM auth.deliveries WHERE attempts = 10 AND fail_time IS NOT NULL`)
}

// An endpoint that holds its answer back is left after 15 seconds.
func TestAnAttemptWaitsFifteenSeconds(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	h, _, _ := newWebhookHarness(t, func(arrived, http.Header) int {
		<-release
		return http.StatusOK
	}, onlySignUps)
	t.Cleanup(func() { close(release) })
	h.run(t)
	h.create(t, "ada@example.com", password)
	h.until(t, 1, `SELECT count(*) FROM auth.deliveries WHERE attempts = 1 AND last_error = 'The endpoint did not answer in time.' AND last_milliseconds >= 15000`)
}

func TestADeliveryHasTheSignaturesThatWereAskedFor(t *testing.T) {
	t.Parallel()
	for want, versions := range map[string][]string{"v1": nil, "v1a": {"v1a"}, "v1 v1a": {"v1", "v1a"}} {
		h, server, _ := newWebhookHarness(t, nil, onlySignUps, func(r *authv1.CreateWebhookRequest) { r.SignatureVersions = versions })
		h.run(t)
		h.create(t, "ada@example.com", password)
		var got []string
		for _, one := range strings.Fields(server.until(t, want, atLeast(1))[0].Header.Get("Webhook-Signature")) {
			version, _, _ := strings.Cut(one, ",")
			got = append(got, version)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("asked for %q, the delivery has signatures %q", versions, got)
		}
	}
}

// Administrators get a mail a day about an endpoint, however many events it loses, and one
// when it is disabled.
func TestAdministratorsGetOneMailADayAboutAnEndpoint(t *testing.T) {
	t.Parallel()
	var gone atomic.Bool
	server := newHooks(t, func(arrived, http.Header) int {
		if gone.Load() {
			return http.StatusGone
		}
		return http.StatusBadGateway
	})
	h, _ := newMailHarness(t, mailtest.Config{}, locally)
	h.createWebhook(t, server.url(), onlySignUps)
	h.exec(t, `INSERT INTO auth.accounts (id, email, password_hash, roles) VALUES
		(gen_random_uuid(), 'root@example.com', 'x', '{admin}'), (gen_random_uuid(), 'ada@example.com', 'x', '{}')`)
	h.run(t)
	const kinds = `SELECT count(*) FROM auth.mails WHERE recipient = 'root@example.com' AND kind = $1`
	lose := func(dead int) {
		t.Helper()
		h.until(t, 0, `SELECT count(*) FROM auth.deliveries WHERE lease_time IS NOT NULL`)
		h.exec(t, `UPDATE auth.deliveries SET attempts = 9 WHERE fail_time IS NULL`)
		h.dueAll(t)
		h.until(t, dead, `SELECT count(*) FROM auth.deliveries WHERE fail_time IS NOT NULL`)
	}
	h.until(t, 2, `SELECT count(*) FROM auth.deliveries WHERE attempts > 0 AND lease_time IS NULL`)
	lose(2)
	h.until(t, 1, kinds, "webhook_failed")
	h.exec(t, `UPDATE auth.webhooks SET alert_time = alert_time - interval '23 hours 50 minutes'`)
	h.exec(t, `INSERT INTO auth.accounts (id, email, password_hash) VALUES (gen_random_uuid(), 'grace@example.com', 'x')`)
	h.until(t, 3, `SELECT count(*) FROM auth.deliveries`)
	lose(3)
	if n := h.count(t, kinds, "webhook_failed"); n != 1 {
		t.Errorf("%d mails in one day, want 1", n)
	}
	h.exec(t, `UPDATE auth.webhooks SET alert_time = alert_time - interval '20 minutes'`)
	h.exec(t, `INSERT INTO auth.accounts (id, email, password_hash) VALUES (gen_random_uuid(), 'edith@example.com', 'x')`)
	h.until(t, 4, `SELECT count(*) FROM auth.deliveries`)
	lose(4)
	h.until(t, 2, kinds, "webhook_failed")
	gone.Store(true)
	h.exec(t, `INSERT INTO auth.accounts (id, email, password_hash) VALUES (gen_random_uuid(), 'mary@example.com', 'x')`)
	h.until(t, 5, `SELECT count(*) FROM auth.deliveries`)
	h.dueAll(t)
	h.until(t, 1, kinds, "webhook_disabled")
	if n := h.count(t, `SELECT count(*) FROM auth.mails WHERE recipient <> 'root@example.com' AND kind LIKE 'webhook%'`); n != 0 {
		t.Errorf("%d mails about the endpoint to others, want none", n)
	}
}
