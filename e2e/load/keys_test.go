package load

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/golang-jwt/jwt/v5"

	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
)

// keys runs gatehouse keys while the twin runs, and returns its output.
func keys(t testing.TB, w *harness.Stack, status int, args ...string) string {
	t.Helper()
	p := harness.StartProcess(t, []string{"AUTH_DATABASE_URL=" + w.Database.Auth, "GATEHOUSE_SECRET_KEY=" + hex.EncodeToString([]byte(harness.StackSecret))}, append([]string{"keys"}, args...)...)
	p.Wait(t)
	if got := p.Cmd.ProcessState.ExitCode(); got != status {
		t.Fatalf("gatehouse keys %v: exit status %d, want %d: %s%s", args, got, status, p.Stdout.String(), p.Stderr.String())
	}
	return p.Stdout.String() + p.Stderr.String()
}

func kidOf(t testing.TB, token string) string {
	t.Helper()
	parsed, _, err := jwt.NewParser().ParseUnverified(token, jwt.MapClaims{})
	if err != nil {
		t.Fatalf("parse a token: %v", err)
	}
	return parsed.Header["kid"].(string)
}

func TestARotationUnderLoadFailsNoRequest(t *testing.T) {
	t.Parallel()
	w := harness.StartStack(t, harness.StackConfig{Gateways: 2, Auths: 2})
	stop := make(chan struct{})
	var callers sync.WaitGroup
	var requests, unavailable atomic.Int64
	// A busy machine may take a part too long: that is not a failure of the rotation.
	busy := func(err error) bool {
		if connect.CodeOf(err) == connect.CodeUnavailable {
			unavailable.Add(1)
			return true
		}
		return false
	}
	var kids sync.Map // that a caller got a token of
	for i := range 6 {
		person := w.Gateways[0].SignUp(t, fmt.Sprintf("person%d@example.com", i))
		callers.Go(func() {
			ticker := time.NewTicker(50 * time.Millisecond)
			defer ticker.Stop()
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				case <-ticker.C:
				}
				gateway, other := w.Gateways[n%2], w.Gateways[(n+1)%2]
				refreshed, err := gateway.Client("").Auth.Refresh(t.Context(), &bffv1.RefreshRequest{RefreshToken: person.Refresh})
				if busy(err) {
					continue
				}
				if err != nil {
					t.Errorf("Refresh: %v", err)
					return
				}
				// The other gateway gets it at once, in addition to the old one.
				for _, token := range []string{refreshed.GetTokens().GetAccessToken(), person.Access} {
					if _, err := other.Client(token).Account.GetMe(t.Context(), &bffv1.GetMeRequest{}); err != nil && !busy(err) {
						t.Errorf("GetMe with a token of %s: %v", kidOf(t, token), err)
						return
					}
				}
				person.Take(refreshed.GetTokens())
				kids.Store(kidOf(t, person.Access), true)
				requests.Add(3)
			}
		})
	}
	rotateTwice(t, w, &kids)
	close(stop)
	callers.Wait()
	if all, lost := requests.Load(), unavailable.Load(); all < 300 || lost*100 > all {
		t.Errorf("of %d requests %d were not answered, want some hundreds, and at most one in a hundred", all, lost)
	}
	t.Logf("%d requests, %d not answered in time", requests.Load(), unavailable.Load())
	if said := keys(t, w, 0, "list"); strings.Count(said, "verifies what it signed") != 2 || strings.Count(said, "signs since") != 1 {
		t.Errorf("keys list said\n%s", said)
	}
}

// rotateTwice rotates the key twice, each time until callers have tokens of it.
func rotateTwice(t *testing.T, w *harness.Stack, kids *sync.Map) {
	t.Helper()
	for range 2 {
		said := keys(t, w, 0, "rotate")
		kid, _, ok := strings.Cut(said, " signs in ")
		if !ok {
			t.Fatalf("keys rotate said %q", said)
		}
		harness.Eventually(t, 60*time.Second, "tokens of the next key", func() error {
			if _, ok := kids.Load(kid); !ok {
				return errors.New("there are none of " + kid)
			}
			return nil
		})
	}
}

func TestAnEmergencyRotationSignsEverybodyOutWithinASecond(t *testing.T) {
	t.Parallel()
	w := harness.StartStack(t, harness.StackConfig{Gateways: 2, Auths: 2})
	ada := w.Gateways[0].SignUp(t, "ada@example.com")
	use := func(gateway *harness.System, token string) error {
		_, err := gateway.Client(token).Account.ListSessions(t.Context(), &bffv1.ListSessionsRequest{})
		return err
	}
	for _, gateway := range w.Gateways {
		if err := use(gateway, ada.Access); err != nil {
			t.Fatal(err)
		}
	}
	if said := keys(t, w, harness.ExitUsage, "rotate", "--emergency"); !strings.Contains(said, "--yes") {
		t.Errorf("without --yes it said %q", said)
	}
	if err := use(w.Gateways[0], ada.Access); err != nil {
		t.Fatalf("after a rotation that was refused: %v", err)
	}
	said := keys(t, w, 0, "rotate", "--emergency", "--yes")
	began := time.Now()
	kid, _, ok := strings.Cut(said, " signs now")
	if !ok || !strings.Contains(said, "Every session has ended.\n") {
		t.Errorf("it said %q", said)
	}
	for _, gateway := range w.Gateways {
		harness.Eventually(t, harness.RevocationBound, "the old token is refused", func() error {
			if err := use(gateway, ada.Access); connect.CodeOf(err) != connect.CodeUnauthenticated {
				return fmt.Errorf("got %v", err)
			}
			return nil
		})
		_, err := gateway.Client("").Auth.Refresh(t.Context(), &bffv1.RefreshRequest{RefreshToken: ada.Refresh})
		harness.WantReason(t, err, connect.CodeUnauthenticated, "SESSION_ENDED")
	}
	t.Logf("the old token was refused by both gateways after %s", time.Since(began))
	// A new sign-in works.
	harness.Eventually(t, harness.RevocationBound, "sign in again", func() error {
		response, err := w.Gateways[1].Client("").Auth.Login(t.Context(), &bffv1.LoginRequest{Email: "ada@example.com", Password: harness.Password})
		if err != nil {
			return err
		}
		token := response.GetSignedIn().GetTokens().GetAccessToken()
		if got := kidOf(t, token); got != kid {
			return fmt.Errorf("a token of %s, want %s", got, kid)
		}
		return use(w.Gateways[0], token)
	})
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.Gateways[0].URL+"/.well-known/jwks.json", nil)
	if err != nil {
		t.Fatal(err)
	}
	_, _, body := harness.Do(t, request)
	if strings.Count(body, `"kid"`) != 1 || !strings.Contains(body, kid) {
		t.Errorf("published are %s, want %s alone", body, kid)
	}
}
