package e2e

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

	bffv1 "gatehouse/gen/bff/v1"
)

// keys runs gatehouse keys beside the twin and returns what it prints.
func keys(t testing.TB, w *Stack, status int, args ...string) string {
	t.Helper()
	p := startProcess(t, []string{"AUTH_DATABASE_URL=" + w.database.Auth, "GATEHOUSE_SECRET_KEY=" + hex.EncodeToString([]byte(StackSecret))}, append([]string{"keys"}, args...)...)
	p.wait(t)
	if got := p.cmd.ProcessState.ExitCode(); got != status {
		t.Fatalf("gatehouse keys %v: exit status %d, want %d: %s%s", args, got, status, p.stdout.String(), p.stderr.String())
	}
	return p.stdout.String() + p.stderr.String()
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
	w := StartStack(t, StackConfig{Gateways: 2, Auths: 2})
	stop := make(chan struct{})
	var callers sync.WaitGroup
	var requests, unavailable atomic.Int64
	// A busy machine may take a part too long: that is no fault of a rotation's.
	busy := func(err error) bool {
		if connect.CodeOf(err) == connect.CodeUnavailable {
			unavailable.Add(1)
			return true
		}
		return false
	}
	var kids sync.Map // that a caller got a token of
	for i := range 6 {
		person := w.gateways[0].signUp(t, fmt.Sprintf("person%d@example.com", i))
		callers.Go(func() {
			ticker := time.NewTicker(20 * time.Millisecond)
			defer ticker.Stop()
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				case <-ticker.C:
				}
				gateway, other := w.gateways[n%2], w.gateways[(n+1)%2]
				refreshed, err := gateway.client("").auth.Refresh(t.Context(), &bffv1.RefreshRequest{RefreshToken: person.Refresh})
				if busy(err) {
					continue
				}
				if err != nil {
					t.Errorf("Refresh: %v", err)
					return
				}
				// The other gateway gets it at once, the old one beside it.
				for _, token := range []string{refreshed.GetTokens().GetAccessToken(), person.Access} {
					if _, err := other.client(token).account.GetMe(t.Context(), &bffv1.GetMeRequest{}); err != nil && !busy(err) {
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
	for range 2 {
		said := keys(t, w, 0, "rotate")
		kid, _, ok := strings.Cut(said, " signs in ")
		if !ok {
			t.Fatalf("keys rotate said %q", said)
		}
		eventually(t, 60*time.Second, "tokens of the next key", func() error {
			if _, ok := kids.Load(kid); !ok {
				return errors.New("there are none of " + kid)
			}
			return nil
		})
	}
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

func TestAnEmergencyRotationSignsEverybodyOutWithinASecond(t *testing.T) {
	t.Parallel()
	w := StartStack(t, StackConfig{Gateways: 2, Auths: 2})
	ada := w.gateways[0].signUp(t, "ada@example.com")
	use := func(gateway *system, token string) error {
		_, err := gateway.client(token).account.ListSessions(t.Context(), &bffv1.ListSessionsRequest{})
		return err
	}
	for _, gateway := range w.gateways {
		if err := use(gateway, ada.Access); err != nil {
			t.Fatal(err)
		}
	}
	if said := keys(t, w, exitMistake, "rotate", "--emergency"); !strings.Contains(said, "--yes") {
		t.Errorf("without --yes it said %q", said)
	}
	if err := use(w.gateways[0], ada.Access); err != nil {
		t.Fatalf("after a rotation that was refused: %v", err)
	}
	said := keys(t, w, 0, "rotate", "--emergency", "--yes")
	began := time.Now()
	kid, _, ok := strings.Cut(said, " signs now")
	if !ok || !strings.Contains(said, "Every session has ended.\n") {
		t.Errorf("it said %q", said)
	}
	for _, gateway := range w.gateways {
		eventually(t, cutOffBound, "the old token is refused", func() error {
			if err := use(gateway, ada.Access); connect.CodeOf(err) != connect.CodeUnauthenticated {
				return fmt.Errorf("got %v", err)
			}
			return nil
		})
		_, err := gateway.client("").auth.Refresh(t.Context(), &bffv1.RefreshRequest{RefreshToken: ada.Refresh})
		wantReason(t, err, connect.CodeUnauthenticated, "SESSION_ENDED")
	}
	t.Logf("the old token was refused by both gateways after %s", time.Since(began))
	// Whoever signs in again is in.
	eventually(t, cutOffBound, "sign in anew", func() error {
		response, err := w.gateways[1].client("").auth.Login(t.Context(), &bffv1.LoginRequest{Email: "ada@example.com", Password: Password})
		if err != nil {
			return err
		}
		token := response.GetSignedIn().GetTokens().GetAccessToken()
		if got := kidOf(t, token); got != kid {
			return fmt.Errorf("a token of %s, want %s", got, kid)
		}
		return use(w.gateways[0], token)
	})
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.gateways[0].url+"/.well-known/jwks.json", nil)
	if err != nil {
		t.Fatal(err)
	}
	_, _, body := do(t, request)
	if strings.Count(body, `"kid"`) != 1 || !strings.Contains(body, kid) {
		t.Errorf("published are %s, want %s alone", body, kid)
	}
}
