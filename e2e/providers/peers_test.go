package providers

import (
	"bufio"
	"encoding/json"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oauth2-proxy/mockoidc"
)

// startMockoidc starts mockoidc, which asks nobody: each visit is that of the next person
// in a queue.
func startMockoidc(t *testing.T) peer {
	t.Helper()
	mock, err := mockoidc.Run()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = mock.Shutdown() })
	return peer{issuer: mock.Issuer(), client: mock.ClientID, secret: mock.ClientSecret, visit: func(t *testing.T, address, email string) url.Values {
		t.Helper()
		mock.QueueUser(&mockoidc.MockUser{Subject: "id of " + email, Email: email, EmailVerified: true})
		response, err := redirects(nil).Get(address)
		if err != nil {
			t.Fatal(err)
		}
		return answerOf(t, response)
	}}
}

// buildExample builds the command that serves zitadel's example.
func buildExample(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "exampleprovider")
	if output, err := exec.CommandContext(t.Context(), "go", "build", "-C", "tools", "-o", program, "./exampleprovider").CombinedOutput(); err != nil {
		t.Fatalf("build the example provider: %v\n%s", err, output)
	}
	return program
}

const examplePassword = "a password at the provider"

// startExample starts zitadel's example provider, which has a sign-in page.
func startExample(t *testing.T, program string) peer {
	t.Helper()
	people := map[string]map[string]any{}
	for _, email := range []string{ada, grace} {
		id := "id of " + email
		people[id] = map[string]any{"ID": id, "Username": email, "Password": examplePassword, "Email": email, "EmailVerified": true}
	}
	text, err := json.Marshal(people)
	if err != nil {
		t.Fatal(err)
	}
	users := filepath.Join(t.TempDir(), "users.json")
	if err := os.WriteFile(users, text, 0o600); err != nil {
		t.Fatal(err)
	}
	const secret = "a secret of the tests"
	command := exec.CommandContext(t.Context(), program, "-callback", callback, "-secret", secret, "-users", users)
	command.Stderr = os.Stderr
	said, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = command.Wait() }) // the end of the test's context kills it
	issuer, err := bufio.NewReader(said).ReadString('\n')
	if err != nil {
		t.Fatalf("the example provider does not say its issuer: %v", err)
	}
	issuer = strings.TrimSpace(issuer)
	return peer{issuer: issuer, client: "web", secret: secret, tellsTime: true, visit: func(t *testing.T, address, email string) url.Values {
		t.Helper()
		jar, err := cookiejar.New(nil)
		if err != nil {
			t.Fatal(err)
		}
		page, err := redirects(jar).Get(address)
		if err != nil {
			t.Fatal(err)
		}
		page.Body.Close()
		id := page.Request.URL.Query().Get("authRequestID")
		if id == "" {
			t.Fatalf("the provider led to %s, want its sign-in page", page.Request.URL)
		}
		response, err := redirects(jar).PostForm(issuer+"login/username", url.Values{"id": {id}, "username": {email}, "password": {examplePassword}})
		if err != nil {
			t.Fatal(err)
		}
		return answerOf(t, response)
	}}
}
