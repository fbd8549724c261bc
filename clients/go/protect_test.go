package gatehouse_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestAnAPIOfOnesOwnTakesAccessTokens runs the program of the guide "Protect your own
// API" against the gateway.
func TestAnAPIOfOnesOwnTakesAccessTokens(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "protect")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./testdata/protect").CombinedOutput(); err != nil {
		t.Fatalf("build the program: %v\n%s", err, out)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listen := free.Addr().String()
	free.Close()
	api := exec.CommandContext(t.Context(), program)
	api.Env = append(os.Environ(), "GATEHOUSE_URL="+gatewayURL, "LISTEN="+listen)
	if err := api.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = api.Process.Kill()
		_ = api.Wait()
	})
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if conn, err := net.Dial("tcp", listen); err == nil {
			conn.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the program does not listen")
		}
	}
	id, token := registered(t)
	parts := strings.Split(token, ".")
	for name, c := range map[string]struct {
		authorization string
		status        int
		body          string
	}{
		"valid":                 {"Bearer " + token, 200, `{"all":false,"owner":"` + id + `"}`},
		"missing":               {"", 401, `Access token is missing. Sign in, and send it as "Authorization: Bearer …".`},
		"with another scheme":   {"Basic " + token, 401, `Access token is missing. Sign in, and send it as "Authorization: Bearer …".`},
		"garbage":               {"Bearer garbage", 401, "Access token is not valid. Refresh it, or sign in again."},
		"without its signature": {"Bearer " + parts[0] + "." + parts[1] + ".", 401, "Access token is not valid. Refresh it, or sign in again."},
	} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+listen+"/orders", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		if c.authorization != "" {
			request.Header.Set("Authorization", c.authorization)
		}
		status, body := answerTo(t, request)
		if body = strings.TrimSpace(body); status != c.status || body != c.body {
			t.Errorf("a token that is %s: got %d %s, want %d %s", name, status, body, c.status, c.body)
		}
	}
}

// registered signs somebody up, and returns their id and access token.
func registered(t *testing.T) (id, token string) {
	t.Helper()
	message := `{"email":"protect@example.com","password":"correct horse battery"}`
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, gatewayURL+"/api/v1/auth/register", bytes.NewBufferString(message))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	_, body := answerTo(t, request)
	var answer struct {
		SignedIn struct {
			User   struct{ ID string }
			Tokens struct{ AccessToken string }
		}
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil || answer.SignedIn.Tokens.AccessToken == "" {
		t.Fatalf("register: %v: %s", err, body)
	}
	return answer.SignedIn.User.ID, answer.SignedIn.Tokens.AccessToken
}

func answerTo(t *testing.T, request *http.Request) (status int, body string) {
	t.Helper()
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}
