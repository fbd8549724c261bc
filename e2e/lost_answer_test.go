package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"

	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
)

// sendRaw sends a request and reads the first bytes of the answer before it hangs up; all
// if most is negative. It returns them.
func sendRaw(t *testing.T, base, path, key, body string, most int64) []byte {
	t.Helper()
	parsed, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", parsed.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nIdempotency-Key: %s\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s",
		path, parsed.Host, key, len(body), body)
	if err != nil {
		t.Fatal(err)
	}
	var answer io.Reader = conn
	if most >= 0 {
		answer = io.LimitReader(conn, most)
	}
	read, err := io.ReadAll(answer)
	if err != nil {
		t.Fatal(err)
	}
	return read
}

// The answer to CompleteLogin is cut after every byte, and the call is repeated with the
// same key: all get the same session, and the recovery code is spent once.
func TestAnAnswerOfCompleteLoginThatIsCutAnywhereCostsNothing(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.ThreeProcesses, harness.WithSettings("GATEHOUSE_THROTTLE=off"))
	ada := s.SignUp(t, "ada@example.com")
	codes := enrolForCodes(t, ada)
	owed, err := s.Client("").Auth.Login(t.Context(), &bffv1.LoginRequest{Email: "ada@example.com", Password: harness.Password})
	if err != nil || owed.GetChallenge() == nil {
		t.Fatalf("Login: %v, %v, want a challenge", owed, err)
	}
	before := s.Count(t, "SELECT count(*) FROM auth.sessions")
	const path = "/bff.v1.AuthService/CompleteLogin"
	body := fmt.Sprintf(`{"challengeToken":%q,"recoveryCode":%q,"rememberDevice":true}`, owed.GetChallenge().GetToken(), codes[0])
	sendRaw(t, s.URL, path, "one-key", body, 0) // nothing is read
	whole := sendRaw(t, s.URL, path, "one-key", body, -1)
	want := refreshTokenIn(t, whole)
	for length := int64(1); length < int64(len(whole)); length++ {
		cut := sendRaw(t, s.URL, path, "one-key", body, length)
		if int64(len(cut)) != length {
			t.Fatalf("the answer has %d bytes, want at least %d: %s", len(cut), length, cut)
		}
	}
	if got := refreshTokenIn(t, sendRaw(t, s.URL, path, "one-key", body, -1)); got != want {
		t.Error("the last answer has another refresh token")
	}
	if n := s.Count(t, "SELECT count(*) FROM auth.sessions"); n != before+1 {
		t.Errorf("%d sessions began, want 1", n-before)
	}
	if n := s.Count(t, "SELECT count(*) FROM auth.recovery_codes WHERE use_time IS NOT NULL"); n != 1 {
		t.Errorf("%d recovery codes were spent, want 1", n)
	}
	if n := s.Count(t, "SELECT count(*) FROM auth.remembered_devices"); n != 1 {
		t.Errorf("%d devices are remembered, want 1", n)
	}
	if _, err := s.Client("").Refresh(t.Context(), want, ""); err != nil {
		t.Errorf("the session of the repeated answers: %v", err)
	}
}

// A change of level revokes the access token, and so a client whose answer was lost first
// refreshes, and then repeats its call.
func TestALostAnswerOfAStepUpCostsNothing(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.ThreeProcesses, harness.WithSettings("GATEHOUSE_THROTTLE=off"))
	ada := s.SignUp(t, "ada@example.com")
	codes := enrolForCodes(t, ada)
	owed, err := ada.Client().Account.Reauthenticate(t.Context(), &bffv1.ReauthenticateRequest{Password: harness.Password})
	if err != nil {
		t.Fatal(err)
	}
	call := func() (*bffv1.CompleteReauthenticationResponse, error) {
		ctx, info := connect.NewClientContext(context.WithoutCancel(t.Context()))
		info.RequestHeader().Set("Idempotency-Key", "one-key")
		return ada.Client().Account.CompleteReauthentication(ctx, &bffv1.CompleteReauthenticationRequest{
			ChallengeToken: owed.GetChallenge().GetToken(), Proof: &bffv1.CompleteReauthenticationRequest_RecoveryCode{RecoveryCode: codes[0]},
		})
	}
	lost, err := call()
	if err != nil {
		t.Fatal(err)
	}
	if err := ada.Renew(t.Context(), ""); err != nil {
		t.Fatalf("the refresh after the lost answer: %v", err)
	}
	again, err := call()
	if err != nil {
		t.Fatalf("the repeated call: %v", err)
	}
	if again.GetTokens().GetRefreshToken() != lost.GetTokens().GetRefreshToken() {
		t.Error("the repeated call answers with another refresh token")
	}
	if n := s.Count(t, "SELECT count(*) FROM auth.recovery_codes WHERE use_time IS NOT NULL"); n != 1 {
		t.Errorf("%d recovery codes were spent, want 1", n)
	}
}

// enrolForCodes enrols an app, and returns the recovery codes.
func enrolForCodes(t *testing.T, p *harness.Person) []string {
	t.Helper()
	enrolApp(t, p)
	made, err := p.Client().Account.RegenerateRecoveryCodes(t.Context(), &bffv1.RegenerateRecoveryCodesRequest{})
	if err != nil || len(made.GetRecoveryCodes()) != 10 {
		t.Fatalf("RegenerateRecoveryCodes: %v, %v", made, err)
	}
	return slices.Clone(made.GetRecoveryCodes())
}

func refreshTokenIn(t *testing.T, raw []byte) string {
	t.Helper()
	answer, err := http.ReadResponse(bufio.NewReader(strings.NewReader(string(raw))), nil)
	if err != nil {
		t.Fatalf("%q: %v", raw, err)
	}
	defer answer.Body.Close()
	var got struct {
		SignedIn struct {
			Tokens struct{ RefreshToken string }
		}
	}
	if err := json.NewDecoder(answer.Body).Decode(&got); err != nil || got.SignedIn.Tokens.RefreshToken == "" {
		t.Fatalf("the answer %q: %v", raw, err)
	}
	return got.SignedIn.Tokens.RefreshToken
}
