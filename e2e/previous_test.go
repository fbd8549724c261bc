package e2e

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/mailtest"
)

// An older auth that knows no second factors runs beside this schema during an upgrade or
// after a rollback. By none of its ways in does it begin a session of an account with a
// second factor, or replace the decoy of its password.
func TestAnAuthWithoutSecondFactorsLetsNobodyPastTheirs(t *testing.T) {
	t.Parallel()
	older := harness.BuildBeforeFactors(t)
	server := mailtest.Start(t, mailtest.Config{})
	s := harness.Start(t, harness.ThreeProcesses, harness.WithSettings("SMTP_URL="+server.URL()))
	mailed := func(kind string, count int) string {
		t.Helper()
		return linkOf(t, server, kind, count)
	}
	ada := s.SignUp(t, "ada@example.com")
	unused := mailed("verify", 1)
	if _, err := ada.Client().Account.SendVerificationEmail(t.Context(), &bffv1.SendVerificationEmailRequest{}); err != nil {
		t.Fatal(err)
	}
	if _, err := ada.Anonymous().Auth.VerifyEmail(t.Context(), &bffv1.VerifyEmailRequest{Token: mailed("verify", 2), Password: harness.Password}); err != nil {
		t.Fatal(err)
	}
	ada = s.SignIn(t, "ada@example.com", harness.Password)
	enrolApp(t, ada)
	if _, err := s.Client("").Auth.RequestPasswordReset(t.Context(), &bffv1.RequestPasswordResetRequest{Email: "ada@example.com"}); err != nil {
		t.Fatal(err)
	}
	reset := mailed("reset", 1)
	decoys := func() int {
		t.Helper()
		return s.Count(t, "SELECT count(*) FROM auth.accounts WHERE email = 'ada@example.com' AND second_factor AND starts_with(password_hash, '$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$')")
	}
	if decoys() != 1 {
		t.Fatal("the account has no decoy")
	}
	sessions := s.Count(t, "SELECT count(*) FROM auth.sessions")

	s.Program = older
	for _, service := range []string{harness.RoleAuth, harness.RoleUsers, harness.RoleBff} {
		s.Restart(t, service)
	}
	const next = "quite another sentence"
	for _, way := range []struct{ name, procedure, body string }{
		{"the password", "Login", `{"email":"ada@example.com","password":"` + harness.Password + `"}`},
		{"a link to verify", "VerifyEmail", `{"token":"` + unused + `","password":"` + next + `"}`},
		{"a link to reset", "ResetPassword", `{"token":"` + reset + `","newPassword":"` + next + `"}`},
		{"the password that the reset asked for", "Login", `{"email":"ada@example.com","password":"` + next + `"}`},
	} {
		status, _, body := s.Post(t, "/bff.v1.AuthService/"+way.procedure, "", way.body)
		if status == http.StatusOK || strings.Contains(body, "accessToken") {
			t.Errorf("%s: the older auth answers %d %s", way.name, status, body)
		}
		if way.procedure == "Login" && (status != http.StatusUnauthorized || !strings.Contains(body, "CREDENTIALS_INVALID")) {
			t.Errorf("%s: the older auth answers %d %s, want 401 CREDENTIALS_INVALID", way.name, status, body)
		}
		t.Logf("%s: %d %s", way.name, status, body)
	}
	if n := s.Count(t, "SELECT count(*) FROM auth.sessions"); n != sessions {
		t.Errorf("%d sessions began", n-sessions)
	}
	if decoys() != 1 {
		t.Error("the older auth replaced the decoy")
	}

	s.Program = ""
	for _, service := range []string{harness.RoleBff, harness.RoleUsers, harness.RoleAuth} {
		s.Restart(t, service)
	}
	owed, err := s.Client("").Auth.Login(t.Context(), &bffv1.LoginRequest{Email: "ada@example.com", Password: harness.Password})
	if err != nil || owed.GetChallenge() == nil || owed.GetSignedIn() != nil {
		t.Errorf("afterwards: %v, %v, want a challenge", owed, err)
	}
	_, err = s.Client("").Auth.Login(t.Context(), &bffv1.LoginRequest{Email: "ada@example.com", Password: next})
	harness.WantReason(t, err, connect.CodeUnauthenticated, "CREDENTIALS_INVALID")
}

// linkOf waits for so many mails with a link of a kind, and returns the token of the last.
func linkOf(t *testing.T, server *mailtest.Server, kind string, count int) (token string) {
	t.Helper()
	link := regexp.MustCompile("/link/" + kind + "#token=(ghl_[A-Za-z0-9_-]{43})")
	harness.Eventually(t, 30*time.Second, "get the mailed link", func() error {
		var found []string
		for _, mail := range server.Received() {
			if match := link.FindStringSubmatch(mail.Text); match != nil {
				found = append(found, match[1])
			}
		}
		if len(found) < count {
			return fmt.Errorf("the server has %d of %d mails", len(found), count)
		}
		token = found[count-1]
		return nil
	})
	return token
}
