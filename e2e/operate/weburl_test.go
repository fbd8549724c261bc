package operate

import (
	"net/http"
	"strings"
	"testing"

	"gatehouse/e2e/harness"
)

// A process doesn't start with what a browser would never match.
func TestTheEdgesSettingsAreRefusedAtTheStart(t *testing.T) {
	t.Parallel()
	p := harness.StartProcess(t, []string{
		"GATEHOUSE_PUBLIC_URL=https://example.com.", "GATEHOUSE_ORIGINS=https://app.example.com.", "GATEHOUSE_TRUSTED_PROXIES=0.0.0.0/1,128.0.0.0/1",
		"GATEHOUSE_OPS_HOSTS=http://metrics", "GATEHOUSE_OPS_LISTEN=127.0.0.1:9",
	}, harness.RoleBff)
	p.Wait(t)
	if code := p.Cmd.ProcessState.ExitCode(); code != 2 {
		t.Errorf("exit status %d, want 2", code)
	}
	for _, want := range []string{"GATEHOUSE_PUBLIC_URL", "GATEHOUSE_ORIGINS", "GATEHOUSE_TRUSTED_PROXIES", "GATEHOUSE_OPS_HOSTS"} {
		if !strings.Contains(p.Stderr.String(), want) {
			t.Errorf("it doesn't name %s:\n%s", want, p.Stderr.String())
		}
	}
}

// Pages of a development server may call what up serves, and sign in with
// cookies.
func TestUpAllowsPagesOfDevelopmentServers(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.OneProcess)
	for origin, want := range map[string]bool{
		"http://localhost:5173": true, "http://127.0.0.1:3000": true, "http://localhost": true,
		"http://localhost.evil.example": false, "http://localhost:5173.evil.example": false, "https://localhost:5173": false, "http://evil.example": false, "null": false,
	} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodOptions, s.URL+"/bff.v1.AuthService/Login", nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Origin", origin)
		request.Header.Set("Access-Control-Request-Method", http.MethodPost)
		request.Header.Set("Access-Control-Request-Headers", "content-type,x-gatehouse-session")
		_, header, _ := harness.Do(t, request)
		if got := header.Get("Access-Control-Allow-Origin") == origin; got != want {
			t.Errorf("a page of %s may call: %v (%v), want %v", origin, got, header, want)
		}
	}
}
