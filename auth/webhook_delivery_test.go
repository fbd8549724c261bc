package auth_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"google.golang.org/protobuf/types/known/timestamppb"

	"connectrpc.com/connect/v2"

	"gatehouse/auth"
	authv1 "gatehouse/gen/auth/v1"
)

// arrived is one call of an endpoint.
type arrived struct {
	ID, Type, User string
	Header         http.Header
	Body           []byte
}

// hooks is an endpoint that records its calls.
type hooks struct {
	*httptest.Server
	mu    sync.Mutex
	calls []arrived
	// answer returns the status of a call; 204 if nil.
	answer func(arrived, http.Header) int
}

func newHooks(t testing.TB, answer func(arrived, http.Header) int) *hooks {
	t.Helper()
	h := &hooks{answer: answer}
	h.Server = httptest.NewServer(h)
	t.Cleanup(h.Close)
	return h
}

func (h *hooks) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	text, _ := io.ReadAll(r.Body) // a body that breaks off is no JSON
	var body struct {
		Type string
		Data struct{ UserID string }
	}
	_ = json.Unmarshal(text, &body)
	call := arrived{ID: r.Header.Get("Webhook-Id"), Type: body.Type, User: body.Data.UserID, Header: r.Header.Clone(), Body: text}
	status := http.StatusNoContent
	h.mu.Lock()
	h.calls = append(h.calls, call)
	h.mu.Unlock()
	if h.answer != nil {
		status = h.answer(call, w.Header())
	}
	w.WriteHeader(status)
}

// url is the endpoint's, by the name that is allowed during development.
func (h *hooks) url() string { return strings.Replace(h.URL, "127.0.0.1", "localhost", 1) + "/hooks" }

func (h *hooks) arrived() []arrived {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.calls)
}

// until waits until a condition of the calls holds.
func (h *hooks) until(t testing.TB, what string, holds func([]arrived) bool) []arrived {
	t.Helper()
	deadline := time.Now().Add(90 * time.Second)
	for {
		calls := h.arrived()
		if holds(calls) {
			return calls
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: the endpoint got %d calls", what, len(calls))
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func atLeast(n int) func([]arrived) bool {
	return func(calls []arrived) bool { return len(calls) >= n }
}

// locally lets webhooks call http://localhost, as gatehouse up does.
func locally(c *auth.Config) { c.WebhookLocalhost = true }

// newWebhookHarness is auth with an endpoint, to which it delivers.
func newWebhookHarness(t *testing.T, answer func(arrived, http.Header) int, change ...func(*authv1.CreateWebhookRequest)) (*harness, *hooks, *authv1.CreateWebhookResponse) {
	t.Helper()
	h := newHarness(t, locally)
	server := newHooks(t, answer)
	made := h.createWebhook(t, server.url(), change...)
	return h, server, made
}

// dueAll makes what waits due, as if its time had come.
func (h *harness) dueAll(t testing.TB) {
	t.Helper()
	h.exec(t, `UPDATE auth.deliveries SET next_attempt_time = now() WHERE sent_time IS NULL AND fail_time IS NULL AND lease_time IS NULL`)
	h.exec(t, `UPDATE auth.webhooks SET resume_time = NULL`)
}

func TestAnEventArrivesSigned(t *testing.T) {
	t.Parallel()
	h, server, made := newWebhookHarness(t, nil, func(r *authv1.CreateWebhookRequest) { r.SignatureVersions = []string{"v1", "v1a"} })
	h.run(t)
	account, _ := h.signUp(t, "ada@example.com")
	calls := server.until(t, "a sign-up", atLeast(2))
	if calls[0].Type != "user.created" || calls[1].Type != "session.created" || calls[0].User != account.GetId() {
		t.Errorf("got %s and %s of %s, want user.created and session.created of %s", calls[0].Type, calls[1].Type, calls[0].User, account.GetId())
	}
	verifier, err := standardwebhooks.NewWebhook(made.GetSecret())
	if err != nil {
		t.Fatalf("NewWebhook(%q): %v", made.GetSecret(), err)
	}
	call := calls[0]
	if err := verifier.Verify(call.Body, call.Header); err != nil {
		t.Errorf("the library refuses the signature: %v", err)
	}
	tampered := slices.Clone(call.Body)
	tampered[len(tampered)/2] ^= 1
	if err := verifier.Verify(tampered, call.Header); err == nil {
		t.Error("the library accepts a body with a wrong bit")
	}
	late := call.Header.Clone()
	late.Set("Webhook-Timestamp", fmt.Sprint(time.Now().Add(-6*time.Minute).Unix()))
	if err := verifier.Verify(call.Body, late); err == nil {
		t.Error("the library accepts a replay after 6 minutes")
	}
	keys := made.GetWebhook().GetPublicKeys()
	if len(keys) != 1 || !verifiedByKey(t, keys[0], call) {
		t.Errorf("the signature v1a does not verify with %q: %s", keys, call.Header.Get("Webhook-Signature"))
	}
	if strings.Contains(string(call.Body), "ada@example.com") {
		t.Errorf("the body has the email: %s", call.Body)
	}
}

// verifiedByKey checks the signature v1a as the specification says.
func verifiedByKey(t *testing.T, key string, call arrived) bool {
	t.Helper()
	public, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(key, "whpk_"))
	if err != nil || len(public) != ed25519.PublicKeySize {
		t.Fatalf("%q is no public key: %v", key, err)
	}
	signed := fmt.Appendf(nil, "%s.%s.%s", call.ID, call.Header.Get("Webhook-Timestamp"), call.Body)
	for signature := range strings.FieldsSeq(call.Header.Get("Webhook-Signature")) {
		version, text, _ := strings.Cut(signature, ",")
		raw, err := base64.StdEncoding.DecodeString(text)
		if version == "v1a" && err == nil && ed25519.Verify(public, signed, raw) {
			return true
		}
	}
	return false
}

func TestARotatedSecretSignsForADay(t *testing.T) {
	t.Parallel()
	h, server, made := newWebhookHarness(t, nil)
	id := made.GetWebhook().GetWebhookId()
	rotated, err := h.webhooks().RotateSecret(t.Context(), &authv1.RotateSecretRequest{WebhookId: id})
	if err != nil {
		t.Fatal(err)
	}
	h.run(t)
	accepts := func(secret string, call arrived) bool {
		verifier, err := standardwebhooks.NewWebhook(secret)
		if err != nil {
			t.Fatal(err)
		}
		return verifier.Verify(call.Body, call.Header) == nil
	}
	h.signUp(t, "ada@example.com")
	call := server.until(t, "a sign-up", atLeast(1))[0]
	if !accepts(made.GetSecret(), call) || !accepts(rotated.GetSecret(), call) {
		t.Errorf("both secrets sign during the overlap: old %t, new %t", accepts(made.GetSecret(), call), accepts(rotated.GetSecret(), call))
	}
	h.exec(t, "UPDATE auth.webhook_secrets SET expire_time = now() WHERE expire_time IS NOT NULL")
	before := len(server.arrived())
	if _, err := h.webhooks().SendTest(t.Context(), &authv1.SendTestRequest{WebhookId: id}); err != nil {
		t.Fatal(err)
	}
	calls := server.until(t, "a test", func(calls []arrived) bool { return calls[len(calls)-1].Type == "webhook.test" && len(calls) > before })
	if call := calls[len(calls)-1]; accepts(made.GetSecret(), call) || !accepts(rotated.GetSecret(), call) {
		t.Error("after the overlap, the old secret signs or the new one does not")
	}
	if n := h.count(t, "SELECT count(*) FROM auth.webhook_secrets WHERE position($1 in encode(sealed_secret, 'escape')) > 0", made.GetSecret()); n != 0 {
		t.Error("the table has a secret in plain text")
	}
	for range 3 {
		_, err = h.webhooks().RotateSecret(t.Context(), &authv1.RotateSecretRequest{WebhookId: id})
	}
	if err != nil {
		t.Fatalf("the fifth secret: %v", err)
	}
	h.exec(t, "UPDATE auth.webhook_secrets SET expire_time = now() + interval '1 hour' WHERE expire_time IS NOT NULL")
	_, err = h.webhooks().RotateSecret(t.Context(), &authv1.RotateSecretRequest{WebhookId: id})
	wantReason(t, err, connect.CodeResourceExhausted, "TOO_MANY_WEBHOOK_SECRETS")
}

// The first attempts of an account's first event fail; its later events wait, others do not.
func TestEventsOfOneAccountArriveInTheirOrder(t *testing.T) {
	t.Parallel()
	var refusing atomic.Bool
	var refused atomic.Value
	refusing.Store(true)
	h, server, _ := newWebhookHarness(t, func(call arrived, _ http.Header) int {
		if id, _ := refused.Load().(string); refusing.Load() && call.User == id {
			return http.StatusInternalServerError
		}
		return http.StatusOK
	}, func(r *authv1.CreateWebhookRequest) { r.Types = []string{"user.created", "user.roles_changed"} })
	account := h.create(t, "ada@example.com", password)
	refused.Store(account.GetId())
	const changes = 20
	for n := range changes {
		_, err := h.accounts.SetAccountRoles(t.Context(), &authv1.SetAccountRolesRequest{AccountId: account.GetId(), Roles: []string{fmt.Sprintf("role%d", n)}})
		if err != nil {
			t.Fatal(err)
		}
	}
	h.run(t)
	h.open(t, h.config)
	h.run(t) // another copy
	server.until(t, "the first event", atLeast(1))
	other := h.create(t, "grace@example.com", password)
	server.until(t, "another account's event", func(calls []arrived) bool {
		return slices.ContainsFunc(calls, func(call arrived) bool { return call.User == other.GetId() })
	})
	for _, call := range server.arrived() {
		if call.User == account.GetId() && call.Type != "user.created" {
			t.Fatalf("%s arrived before user.created was accepted", call.Type)
		}
	}
	refusing.Store(false)
	h.dueAll(t)
	h.until(t, 0, `SELECT count(*) FROM auth.deliveries WHERE sent_time IS NULL`)
	var order []int
	versions := map[string]bool{}
	for _, call := range server.arrived() {
		var body struct{ Data struct{ Version int } }
		if err := json.Unmarshal(call.Body, &body); err != nil {
			t.Fatal(err)
		}
		if call.User == account.GetId() && !versions[call.ID] {
			order, versions[call.ID] = append(order, body.Data.Version), true
		}
	}
	if len(order) != changes+1 || !slices.IsSorted(order) {
		t.Errorf("the versions arrived as %v, want %d in order", order, changes+1)
	}
}

func TestAnEndpointGetsAtMostFourEventsAtOnce(t *testing.T) {
	t.Parallel()
	var under, most atomic.Int32
	h, _, _ := newWebhookHarness(t, func(arrived, http.Header) int {
		now := under.Add(1)
		for seen := most.Load(); now > seen && !most.CompareAndSwap(seen, now); seen = most.Load() {
		}
		time.Sleep(50 * time.Millisecond)
		under.Add(-1)
		return http.StatusOK
	}, func(r *authv1.CreateWebhookRequest) { r.Types = []string{"user.created"} })
	const accounts = 60
	h.exec(t, `INSERT INTO auth.accounts (id, email, password_hash) SELECT gen_random_uuid(), 'user' || n || '@example.com', 'x' FROM generate_series(1, $1) n`, accounts)
	h.run(t)
	h.open(t, h.config)
	h.run(t) // another copy
	h.until(t, accounts, `SELECT count(*) FROM auth.deliveries WHERE sent_time IS NOT NULL AND attempts = 1`)
	if n := most.Load(); n > 4 || n < 2 {
		t.Errorf("%d events at once, want 2 to 4", n)
	}
}

func TestAFailedAttemptIsRepeatedByTheSchedule(t *testing.T) {
	t.Parallel()
	h, server, made := newWebhookHarness(t, func(_ arrived, header http.Header) int {
		header.Set("Retry-After", "7200")
		return http.StatusServiceUnavailable
	}, func(r *authv1.CreateWebhookRequest) { r.Types = []string{"user.created"} })
	h.exec(t, `INSERT INTO auth.accounts (id, email, password_hash, roles) VALUES (gen_random_uuid(), 'root@example.com', 'x', '{admin}')`)
	h.run(t)
	server.until(t, "the first attempt", atLeast(1))
	h.until(t, 1, `SELECT count(*) FROM auth.deliveries WHERE attempts = 1 AND last_status = 503
		AND next_attempt_time BETWEEN now() + interval '59 minutes' AND now() + interval '61 minutes'`) // an hour of the two
	for attempt := 2; attempt <= 10; attempt++ {
		h.dueAll(t)
		h.until(t, 1, `SELECT count(*) FROM auth.deliveries WHERE attempts = $1 AND lease_time IS NULL`, attempt)
	}
	if n := h.count(t, `SELECT count(*) FROM auth.deliveries WHERE fail_time IS NOT NULL`); n != 1 {
		t.Error("after ten attempts the delivery is no dead letter")
	}
	if n := h.count(t, `SELECT count(*) FROM auth.audit_events WHERE event = 'webhook.fail' AND reason = 'WEBHOOK_UNDELIVERED'`); n != 1 {
		t.Errorf("%d audit events about the dead letter, want 1", n)
	}
	listed, err := h.webhooks().ListDeliveries(t.Context(), &authv1.ListDeliveriesRequest{
		WebhookId: made.GetWebhook().GetWebhookId(), Status: authv1.DeliveryStatus_DELIVERY_STATUS_FAILED,
	})
	if err != nil || len(listed.GetDeliveries()) != 1 {
		t.Fatalf("ListDeliveries: %v, %v", listed, err)
	}
	dead := listed.GetDeliveries()[0]
	if dead.GetLastStatus() != 503 || dead.GetLastError() != "The endpoint answered with status 503." || dead.GetAttempts() != 10 {
		t.Errorf("the dead letter is %v", dead)
	}
	id := made.GetWebhook().GetWebhookId()
	if _, err := h.webhooks().RetryDelivery(t.Context(), &authv1.RetryDeliveryRequest{WebhookId: id, DeliveryId: dead.GetDeliveryId()}); err != nil {
		t.Fatal(err)
	}
	server.until(t, "the retry", atLeast(11)) // whatever Retry-After said
	same := server.arrived()
	if same[0].ID != same[10].ID {
		t.Errorf("the retry has the webhook-id %s, want %s", same[10].ID, same[0].ID)
	}
	_, err = h.webhooks().RetryDelivery(t.Context(), &authv1.RetryDeliveryRequest{WebhookId: id, DeliveryId: newID(t)})
	wantReason(t, err, connect.CodeNotFound, "DELIVERY_NOT_FOUND")
}

func TestAnEndpointThatIsGoneOrFailsForDaysIsDisabled(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		status int
		since  string
	}{"gone": {http.StatusGone, "now()"}, "failing": {http.StatusBadGateway, "now() - interval '5 days 1 minute'"}} {
		h, server, made := newWebhookHarness(t, func(arrived, http.Header) int { return test.status },
			func(r *authv1.CreateWebhookRequest) { r.Types = []string{"user.created"} })
		h.exec(t, "UPDATE auth.webhooks SET fail_since_time = "+test.since)
		h.run(t)
		h.create(t, "ada@example.com", password)
		server.until(t, name, atLeast(1))
		h.until(t, 1, `SELECT count(*) FROM auth.webhooks WHERE NOT enabled AND disable_reason = $1`, name)
		if n := h.count(t, `SELECT count(*) FROM auth.audit_events WHERE event = 'webhook.disable'`); n != 1 {
			t.Errorf("%s: %d audit events, want 1", name, n)
		}
		_, err := h.webhooks().SendTest(t.Context(), &authv1.SendTestRequest{WebhookId: made.GetWebhook().GetWebhookId()})
		wantReason(t, err, connect.CodeFailedPrecondition, "WEBHOOK_DISABLED")
	}
}

// The circuit breaker opens after five failures, and what waits is sent when it closes.
func TestWhatWaitsForAnEndpointArrivesWhenItIsBack(t *testing.T) {
	t.Parallel()
	var down atomic.Bool
	down.Store(true)
	h, server, _ := newWebhookHarness(t, func(arrived, http.Header) int {
		if down.Load() {
			return http.StatusBadGateway
		}
		return http.StatusOK
	}, func(r *authv1.CreateWebhookRequest) { r.Types = []string{"user.created"} })
	const accounts = 50
	h.exec(t, `INSERT INTO auth.accounts (id, email, password_hash) SELECT gen_random_uuid(), 'user' || n || '@example.com', 'x' FROM generate_series(1, $1) n`, accounts)
	h.run(t)
	h.until(t, 1, `SELECT count(*) FROM auth.webhooks WHERE resume_time > now() AND failures >= 5`)
	if n := len(server.arrived()); n > 12 {
		t.Errorf("%d attempts before the circuit breaker opened, want 5 and those under way", n)
	}
	h.until(t, 0, `SELECT count(*) FROM auth.deliveries WHERE lease_time IS NOT NULL`) // none fails after this
	down.Store(false)
	h.exec(t, `UPDATE auth.webhooks SET resume_time = now()`)
	h.until(t, accounts, `SELECT count(*) FROM auth.deliveries WHERE sent_time IS NOT NULL`)
	h.until(t, 1, `SELECT count(*) FROM auth.webhooks WHERE failures = 0 AND resume_time IS NULL AND fail_since_time IS NULL`)
}

func TestStoredEventsAreReplayed(t *testing.T) {
	t.Parallel()
	h, server, made := newWebhookHarness(t, nil, func(r *authv1.CreateWebhookRequest) { r.Types = []string{"user.created"} })
	h.run(t)
	h.create(t, "ada@example.com", password)
	first := server.until(t, "the event", atLeast(1))[0]
	h.until(t, 1, `SELECT count(*) FROM auth.deliveries WHERE sent_time IS NOT NULL`)
	id := made.GetWebhook().GetWebhookId()
	replayed, err := h.webhooks().ReplayEvents(t.Context(), &authv1.ReplayEventsRequest{WebhookId: id, StartTime: timestamppb.New(time.Now().Add(-time.Hour))})
	if err != nil || replayed.GetCount() != 1 {
		t.Fatalf("ReplayEvents: %v, %v", replayed, err)
	}
	if again := server.until(t, "the replay", atLeast(2))[1]; again.ID != first.ID || string(again.Body) != string(first.Body) {
		t.Errorf("the replay is %s %s, want %s %s", again.ID, again.Body, first.ID, first.Body)
	}
	_, err = h.webhooks().ReplayEvents(t.Context(), &authv1.ReplayEventsRequest{WebhookId: id, StartTime: timestamppb.Now(), Types: []string{"user.renamed"}})
	wantReason(t, err, connect.CodeInvalidArgument, "EVENT_TYPE_UNKNOWN")
}
