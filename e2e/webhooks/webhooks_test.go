// Package webhooks tests the delivery of events by real processes.
package webhooks

import (
	"bytes"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"gatehouse/auth/totp"
	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
)

func TestMain(m *testing.M) { harness.Main(m) }

// event is one call of an endpoint.
type event struct {
	ID      string
	Type    string
	User    string
	Version int
	header  http.Header
	body    []byte
}

// endpoint records the calls that it accepts.
type endpoint struct {
	*httptest.Server
	down   atomic.Bool
	mu     sync.Mutex
	events []event
}

// startEndpoint starts an endpoint with a certificate, and returns the settings of a system
// that trusts it and may reach it.
func startEndpoint(t *testing.T) (*endpoint, harness.Option) {
	t.Helper()
	e := &endpoint{}
	e.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var in struct {
			Type string
			Data struct {
				UserID  string
				Version int
			}
		}
		if err != nil || json.Unmarshal(body, &in) != nil || e.down.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		e.events = append(e.events, event{r.Header.Get("Webhook-Id"), in.Type, in.Data.UserID, in.Data.Version, r.Header.Clone(), body})
	}))
	t.Cleanup(e.Close)
	roots := filepath.Join(t.TempDir(), "roots.pem")
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: e.Certificate().Raw})
	if err := os.WriteFile(roots, certificate, 0o600); err != nil {
		t.Fatal(err)
	}
	return e, harness.WithSettings("SSL_CERT_FILE="+roots, "GATEHOUSE_WEBHOOK_NETWORKS=127.0.0.0/8")
}

func (e *endpoint) got() []event {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.events)
}

// of returns the versions of a user's events, in the order of their first arrivals.
func (e *endpoint) of(user string) (versions []int) {
	seen := map[string]bool{}
	for _, one := range e.got() {
		if one.User == user && !seen[one.ID] {
			seen[one.ID] = true
			versions = append(versions, one.Version)
		}
	}
	return versions
}

// admin is the administrator with a second factor.
func admin(t *testing.T, s *harness.System) *harness.Person {
	t.Helper()
	p := s.Admin(t)
	enrol(t, p)
	return p
}

// enrol gives a person an authenticator app, and returns its secret.
func enrol(t *testing.T, p *harness.Person) totp.Secret {
	t.Helper()
	begun, err := p.Client().Account.BeginTOTPEnrolment(t.Context(), &bffv1.BeginTOTPEnrolmentRequest{})
	if err != nil {
		t.Fatalf("BeginTOTPEnrolment: %v", err)
	}
	raw, err := base32.StdEncoding.DecodeString(begun.GetSecret())
	if err != nil {
		t.Fatal(err)
	}
	code := totp.Secret(raw).Code(time.Now().Unix() / totp.Period)
	finished, err := p.Client().Account.FinishTOTPEnrolment(t.Context(), &bffv1.FinishTOTPEnrolmentRequest{EnrolmentToken: begun.GetEnrolmentToken(), Code: code})
	if err != nil {
		t.Fatalf("FinishTOTPEnrolment: %v", err)
	}
	p.Take(finished.GetTokens())
	return totp.Secret(raw)
}

func create(t *testing.T, p *harness.Person, url string, types ...string) *bffv1.CreateWebhookResponse {
	t.Helper()
	made, err := p.Client().Webhooks.CreateWebhook(t.Context(), &bffv1.CreateWebhookRequest{Url: url, Types: types})
	if err != nil {
		t.Fatalf("CreateWebhook: %v", err)
	}
	return made
}

func wantSigned(t *testing.T, secret string, events []event) {
	t.Helper()
	verifier, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range events {
		if err := verifier.VerifyIgnoringTimestamp(one.body, one.header); err != nil {
			t.Errorf("%s %s: %v", one.Type, one.ID, err)
		}
	}
}

// exec changes rows as no method can.
func exec(t *testing.T, s *harness.System, statement string) {
	t.Helper()
	if _, err := s.Owner.Exec(t.Context(), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// timePasses lets the time pass that leases and retries wait for.
func timePasses(t *testing.T, s *harness.System) {
	t.Helper()
	exec(t, s, `UPDATE auth.deliveries SET next_attempt_time = now(), lease_time = NULL WHERE sent_time IS NULL AND fail_time IS NULL`)
	exec(t, s, `UPDATE auth.webhooks SET resume_time = NULL`)
}

// auth is killed at each point of a delivery: every event arrives, in order.
func TestEachEventArrivesWhereverAuthIsKilled(t *testing.T) {
	t.Parallel()
	e, trusted := startEndpoint(t)
	crash := harness.NewCrashPoints(t)
	s := harness.Start(t, harness.ThreeProcesses, trusted, crash.Option())
	p := admin(t, s)
	made := create(t, p, e.URL, "user.created", "user.roles_changed", "user.deleted")
	want := map[string]int{}
	for n, point := range []string{
		"auth: before the change is committed", "auth: after the change is committed", "auth: after deliveries are leased", "auth: before an event is sent",
		"auth: after an event is sent", "auth: before a delivery is recorded", "auth: after a delivery is recorded",
	} {
		user := s.SignUp(t, fmt.Sprintf("user%d@example.com", n)).ID
		harness.Eventually(t, time.Minute, "the account's event arrives", func() error {
			if got := e.of(user); len(got) != 1 {
				return fmt.Errorf("got %v", got)
			}
			return nil
		})
		want[user] = 1
		crash.Arm(t, point)
		for role := range 3 {
			_, err := p.Client().Users.SetUserRoles(t.Context(), &bffv1.SetUserRolesRequest{UserId: user, Roles: []string{fmt.Sprintf("role%d", role)}})
			if err == nil {
				want[user]++
			}
		}
		s.Processes[harness.RoleAuth].Wait(t)
		s.Start(t, harness.RoleAuth)
		timePasses(t, s)
	}
	harness.Eventually(t, time.Minute, "every event arrives", func() error {
		for user, least := range want {
			committed := s.Count(t, `SELECT count(*) FROM auth.events WHERE account_id = $1`, user)
			if got := e.of(user); len(got) != committed || len(got) < least || !slices.IsSorted(got) {
				return fmt.Errorf("the events of %s arrived with the versions %v, want %d in order, %d of acknowledged changes", user, got, committed, least)
			}
		}
		return nil
	})
	if n := s.Count(t, `SELECT count(*) FROM auth.accounts a WHERE a.version <> (SELECT max(version) FROM auth.events e WHERE e.account_id = a.id) AND a.email LIKE 'user%'`); n != 0 {
		t.Errorf("%d accounts have changed without an event", n)
	}
	wantSigned(t, made.GetSecret(), e.got())
}

// The endpoint is down, and auth is killed meanwhile; then everything arrives.
func TestWhatHappensWhileAnEndpointIsDownArrives(t *testing.T) {
	t.Parallel()
	e, trusted := startEndpoint(t)
	s := harness.Start(t, harness.ThreeProcesses, trusted)
	p := admin(t, s)
	made := create(t, p, e.URL, "user.created", "user.roles_changed", "user.deleted")
	e.down.Store(true)
	var users []string
	for n := range 6 {
		users = append(users, s.SignUp(t, fmt.Sprintf("user%d@example.com", n)).ID)
		if n == 3 {
			s.Processes[harness.RoleAuth].Kill()
			s.Start(t, harness.RoleAuth)
		}
		if _, err := p.Client().Users.SetUserRoles(t.Context(), &bffv1.SetUserRolesRequest{UserId: users[n], Roles: []string{"editor"}}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.Client().Users.DeleteUser(t.Context(), &bffv1.DeleteUserRequest{UserId: users[0]}); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, time.Minute, "the circuit breaker opens", func() error {
		if n := s.Count(t, `SELECT count(*) FROM auth.webhooks WHERE failures >= 5`); n != 1 {
			return fmt.Errorf("it is closed")
		}
		return nil
	})
	e.down.Store(false)
	timePasses(t, s)
	harness.Eventually(t, 2*time.Minute, "every event arrives", func() error {
		if n := s.Count(t, `SELECT count(*) FROM auth.deliveries WHERE sent_time IS NULL`); n != 0 {
			return fmt.Errorf("%d wait", n)
		}
		return nil
	})
	for n, user := range users {
		want := []int{1, 2}
		if n == 0 {
			want = []int{1, 2, 3}
		}
		if got := e.of(user); !slices.Equal(got, want) {
			t.Errorf("the events of user %d arrived with the versions %v, want %v", n, got, want)
		}
	}
	wantSigned(t, made.GetSecret(), e.got())
	rotated, err := p.Client().Webhooks.RotateSecret(t.Context(), &bffv1.RotateSecretRequest{WebhookId: made.GetWebhook().GetWebhookId()})
	if err != nil {
		t.Fatal(err)
	}
	wantSecretNowhere(t, s, made.GetSecret(), rotated.GetSecret())
	for _, one := range e.got() {
		for _, personal := range []string{"example.com", "Ada", "Lovelace"} {
			if bytes.Contains(one.body, []byte(personal)) {
				t.Errorf("%s holds %q: %s", one.Type, personal, one.body)
			}
		}
	}
	if n := s.Count(t, `SELECT count(*) FROM auth.events e WHERE e.account_id = $1 AND (e.data::text LIKE '%example.com%' OR e.data - '{userId,version}'::text[] <> '{}')`, users[0]); n != 0 {
		t.Errorf("%d stored events of the deleted user hold more than ids", n)
	}
}

// wantSecretNowhere looks for the secrets of webhooks in the logs and the tables.
func wantSecretNowhere(t *testing.T, s *harness.System, secrets ...string) {
	t.Helper()
	for _, secret := range secrets {
		encoded := strings.TrimPrefix(secret, "whsec_")
		raw, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil || len(raw) < 24 {
			t.Fatalf("the secret has %d bytes: %v", len(raw), err)
		}
		for name, process := range s.Processes {
			if text := process.Stderr.String(); strings.Contains(text, encoded) || len(text) < 100 {
				t.Errorf("the log of %s has a secret, or nothing", name)
			}
		}
		harness.WantInNoTable(t, s.Owner, encoded)
		if n := s.Count(t, `SELECT count(*) FROM auth.webhook_secrets w WHERE position('`+hex.EncodeToString(raw)+`' IN w::text) > 0`); n != 0 {
			t.Errorf("%d rows have the bytes of a secret", n)
		}
	}
}
