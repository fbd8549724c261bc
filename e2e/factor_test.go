package e2e

import (
	"encoding/base32"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	"gatehouse/auth/totp"
	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
)

// authenticator is an authenticator app.
type authenticator struct{ secret totp.Secret }

// code returns the code of the step that is so many after the current one.
func (a authenticator) code(steps int64) string {
	return a.secret.Code(time.Now().Unix()/totp.Period + steps)
}

// enrolApp enrols an app, and returns it. The person then has the tokens of level 2.
func enrolApp(t *testing.T, p *harness.Person) authenticator {
	t.Helper()
	begun, err := p.Client().Account.BeginTOTPEnrolment(t.Context(), &bffv1.BeginTOTPEnrolmentRequest{})
	if err != nil {
		t.Fatalf("BeginTOTPEnrolment: %v", err)
	}
	raw, err := base32.StdEncoding.DecodeString(begun.GetSecret())
	if err != nil {
		t.Fatal(err)
	}
	enrolled := authenticator{totp.Secret(raw)}
	finished, err := p.Client().Account.FinishTOTPEnrolment(t.Context(), &bffv1.FinishTOTPEnrolmentRequest{EnrolmentToken: begun.GetEnrolmentToken(), Code: enrolled.code(0)})
	if err != nil {
		t.Fatalf("FinishTOTPEnrolment: %v", err)
	}
	p.Take(finished.GetTokens())
	return enrolled
}

// An administrator at level 1 has no role that needs level 2, on any method, and gains it
// by enrolling; the last one who lost the phone is helped by a command.
func TestAnAdministratorNeedsTheSecondFactorForTheRole(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.ThreeProcesses, harness.WithSettings("GATEHOUSE_SECOND_FACTOR_ROLES=admin"))
	list := func(p *harness.Person) error {
		_, err := p.Client().Users.ListUsers(t.Context(), &bffv1.ListUsersRequest{})
		return err
	}
	security := func(p *harness.Person) *bffv1.Security {
		t.Helper()
		me, err := p.Client().Account.GetMe(t.Context(), &bffv1.GetMeRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return me.GetSecurity()
	}
	admin := s.Admin(t)
	harness.WantReason(t, list(admin), connect.CodePermissionDenied, "PERMISSION_DENIED")
	if got := security(admin); got.GetLevel() != 1 || !slices.Equal(got.GetWithheldRoles(), []string{"admin"}) || got.GetSecondFactor() {
		t.Errorf("before: %v, want level 1 and the role admin withheld", got)
	}
	phone := enrolApp(t, admin)
	if err := list(admin); err != nil {
		t.Errorf("after the enrolment: %v", err)
	}
	if got := security(admin); got.GetLevel() != 2 || len(got.GetWithheldRoles()) != 0 || !got.GetSecondFactor() || got.GetRecoveryCodesLeft() != 10 {
		t.Errorf("after: %v, want level 2, ten recovery codes and no role withheld", got)
	}
	owed, err := s.Client("").Auth.Login(t.Context(), &bffv1.LoginRequest{Email: harness.AdminEmail, Password: harness.AdminPassword})
	if err != nil || owed.GetChallenge() == nil || owed.GetSignedIn() != nil {
		t.Fatalf("Login: %v, %v, want a challenge", owed, err)
	}
	signedIn, err := s.Client("").Auth.CompleteLogin(t.Context(), &bffv1.CompleteLoginRequest{
		ChallengeToken: owed.GetChallenge().GetToken(), Proof: &bffv1.CompleteLoginRequest_TotpCode{TotpCode: phone.code(1)}, RememberDevice: true,
	})
	if err != nil {
		t.Fatalf("CompleteLogin: %v", err)
	}
	if err := list(harness.PersonOf(t, s.Connect, signedIn.GetSignedIn())); err != nil {
		t.Errorf("after CompleteLogin: %v", err)
	}
	// A remembered device has no role that needs level 2.
	remembered, err := s.Client("").Auth.Login(t.Context(), &bffv1.LoginRequest{
		Email: harness.AdminEmail, Password: harness.AdminPassword, DeviceToken: signedIn.GetSignedIn().GetDeviceToken(),
	})
	if err != nil || remembered.GetSignedIn() == nil {
		t.Fatalf("Login on the remembered device: %v, %v", remembered, err)
	}
	harness.WantReason(t, list(harness.PersonOf(t, s.Connect, remembered.GetSignedIn())), connect.CodePermissionDenied, "PERMISSION_DENIED")

	status, said := harness.RunCommand(t, s.Roles[harness.RoleAuth].Env, "admin", "reset-factors", strings.ToUpper(harness.AdminEmail))
	if status != 0 || !strings.Contains(said, "password is unchanged") {
		t.Fatalf("admin reset-factors: exit status %d, said %s", status, said)
	}
	enrolApp(t, s.Admin(t))
}

// The export names the factors and contains no secret of them.
func TestAnExportListsSecondFactorsWithoutSecrets(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.ThreeProcesses)
	ada := s.SignUp(t, "ada@example.com")
	phone := enrolApp(t, ada)
	status, _, body := s.Post(t, "/bff.v1.AccountService/ExportMe", ada.Access, "{}")
	if status != http.StatusOK || !strings.Contains(body, `"totp":{"createTime"`) || !strings.Contains(body, `"recoveryCodesLeft":10`) {
		t.Errorf("ExportMe answers %d %s, want the authenticator app and the number of recovery codes", status, body)
	}
	if strings.Contains(body, phone.secret.String()) {
		t.Error("the export contains the secret")
	}
}

// In cookie mode the tokens of the next level are set as cookies.
func TestACookieSessionGainsTheLevel(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.ThreeProcesses)
	ada := s.SignUp(t, "ada@example.com")
	begun, err := ada.Client().Account.BeginTOTPEnrolment(t.Context(), &bffv1.BeginTOTPEnrolmentRequest{})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := base32.StdEncoding.DecodeString(begun.GetSecret())
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/bff.v1.AccountService/FinishTOTPEnrolment",
		strings.NewReader(`{"enrolmentToken":"`+begun.GetEnrolmentToken()+`","code":"`+authenticator{totp.Secret(raw)}.code(0)+`"}`))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"Content-Type": "application/json", "Authorization": "Bearer " + ada.Access, "X-Gatehouse-Session": "cookie", "Origin": s.URL, "Sec-Fetch-Site": "same-origin",
	} {
		request.Header.Set(name, value)
	}
	status, header, body := harness.Do(t, request)
	if status != http.StatusOK || strings.Contains(body, "ghr_") || len(header.Values("Set-Cookie")) == 0 {
		t.Errorf("FinishTOTPEnrolment answers %d %s with the cookies %v, want the tokens in cookies alone", status, body, header.Values("Set-Cookie"))
	}
}
