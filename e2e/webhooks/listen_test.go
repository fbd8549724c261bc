package webhooks

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"gatehouse/auth/totp"
	"gatehouse/e2e/harness"
)

// startListening runs gatehouse webhook listen, as somebody who enters the password and the
// next code of the authenticator app.
func startListening(t *testing.T, email, password string, secret totp.Secret, args ...string) *harness.Process {
	t.Helper()
	input := filepath.Join(t.TempDir(), "input")
	code := secret.Code(time.Now().Unix()/totp.Period + 1) // that of now has been used
	if err := os.WriteFile(input, []byte(password+"\n"+code+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	program := append([]string{"-c", `exec "$0" "$@" < ` + input, os.Args[0], "webhook", "listen", email}, args...)
	return harness.StartProgram(t, "/bin/sh", append(os.Environ(), harness.AsGatehouse()), program...)
}

// said waits until a process has printed a text.
func said(t *testing.T, p *harness.Process, what string) {
	t.Helper()
	harness.Eventually(t, time.Minute, "the command prints "+what, func() error {
		if text := p.Stdout.String() + p.Stderr.String(); !strings.Contains(text, what) {
			return fmt.Errorf("it has printed:\n%s", text)
		}
		return nil
	})
}

// gatehouse webhook listen prints and forwards what happens, also what happened while the
// gateway was unreachable, and ends with Ctrl-C.
func TestAListenerContinuesAfterTheGatewayRestarts(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.ThreeProcesses)
	p := s.Admin(t)
	secret := enrol(t, p)
	var mu sync.Mutex
	forwarded := map[string]http.Header{}
	bodies := map[string]string{}
	local := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		forwarded[string(body)], bodies[r.Header.Get("Webhook-Id")] = r.Header.Clone(), string(body)
	}))
	defer local.Close()
	listener := startListening(t, harness.AdminEmail, harness.AdminPassword, secret, "--url", s.URL, "--types", "user.created,user.deleted", "--forward", local.URL)
	said(t, listener, "Listening.")

	first := s.SignUp(t, "ada@example.com").ID
	said(t, listener, `"userId":"`+first+`"`)
	s.Processes[harness.RoleBff].Kill()
	exec(t, s, `INSERT INTO auth.accounts (id, email, password_hash) VALUES ('0195514a-2f40-7cc3-98c4-dc0c0c07398f', 'grace@example.com', 'x')`)
	s.Start(t, harness.RoleBff)
	said(t, listener, `"userId":"0195514a-2f40-7cc3-98c4-dc0c0c07398f"`)
	s.Restart(t, harness.RoleBff) // gracefully
	last := s.SignUp(t, "edith@example.com").ID
	said(t, listener, `"userId":"`+last+`"`)

	harness.Eventually(t, time.Minute, "every event is forwarded", func() error {
		mu.Lock()
		defer mu.Unlock()
		if len(bodies) != 3 {
			return fmt.Errorf("%d are", len(bodies))
		}
		return nil
	})
	printed := regexp.MustCompile(`whsec_\S+`).FindString(listener.Stdout.String())
	verifier, err := standardwebhooks.NewWebhook(printed)
	if err != nil {
		t.Fatalf("the printed secret %q: %v", printed, err)
	}
	mu.Lock()
	defer mu.Unlock()
	for body, header := range forwarded {
		if err := verifier.Verify([]byte(body), header); err != nil {
			t.Errorf("%s is forwarded with a wrong signature: %v", body, err)
		}
		if !strings.Contains(listener.Stdout.String(), body) {
			t.Errorf("%s is forwarded, and not printed", body)
		}
	}
	if _, status := listener.Interrupt(t); status != 0 {
		t.Errorf("after Ctrl-C the status is %d, want 0; its output:\n%s%s", status, listener.Stdout.String(), listener.Stderr.String())
	}
	if n := s.Count(t, `SELECT count(*) FROM auth.sessions WHERE account_id = $1 AND revoke_time IS NULL AND id <> $2`, p.ID, p.Session); n != 0 {
		t.Errorf("the command leaves %d sessions", n)
	}
}

func TestAListenerSaysWhatItsAccountLacks(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.ThreeProcesses)
	ada := s.SignUp(t, "ada@example.com")
	s.SignUp(t, "grace@example.com")
	for name, test := range map[string]struct {
		email, password string
		secret          totp.Secret
		want            []string
	}{
		"without the role":        {"ada@example.com", harness.Password, enrol(t, ada), []string{"permission_denied", "admin"}},
		"without a second factor": {"grace@example.com", harness.Password, totp.Secret{}, []string{"add an authenticator app"}},
		"with a wrong password":   {"grace@example.com", "not the password", totp.Secret{}, []string{"sign in", "password"}},
	} {
		listener := startListening(t, test.email, test.password, test.secret, "--url", s.URL)
		listener.Wait(t)
		text := listener.Stdout.String() + listener.Stderr.String()
		if status := listener.Cmd.ProcessState.ExitCode(); status != 1 || slices.ContainsFunc(test.want, func(want string) bool { return !strings.Contains(text, want) }) {
			t.Errorf("%s: status %d, want 1 and %q in:\n%s", name, status, test.want, text)
		}
	}
}
