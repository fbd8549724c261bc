package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
	policyv1 "gatehouse/gen/policy/v1"
)

// recentRequests are requests of the methods that want a recent sign-in; %s is
// another user's id.
var recentRequests = map[protoreflect.Name]string{
	"ChangePassword":     `{"currentPassword":"` + harness.AdminPassword + `","newPassword":"battery horse correct"}`,
	"RequestEmailChange": `{"newEmail":"root@example.org"}`,
	"DeleteMe":           `{}`,
	"CreateUser":         `{"user":{"email":"backdoor@example.com","roles":["admin"]},"password":"battery horse correct"}`,
	"EnableUser":         `{"userId":"%s"}`,
	"SetUserRoles":       `{"userId":"%s","roles":["admin"]}`,
	"ChangeUserEmail":    `{"userId":"%s","email":"backdoor@example.com"}`,
	"ForcePasswordReset": `{"userId":"%s"}`,
	"DeleteUser":         `{"userId":"%s"}`,

	"BeginLinkIdentity":    `{"provider":"work"}`,
	"CompleteLinkIdentity": `{"provider":"work","flowToken":"ghc_AAAA","code":"x","state":"ghc_AAAA"}`,
	"UnlinkIdentity":       `{"identityId":"00000000-0000-7000-8000-000000000000"}`,
	"UnlinkUserIdentity":   `{"userId":"%s","identityId":"00000000-0000-7000-8000-000000000000"}`,

	"CreateKey": `{"name":"backdoor","scopes":["me:read"]}`,

	"BeginPasskeyRegistration":  `{}`,
	"FinishPasskeyRegistration": `{"registrationToken":"ghc_AAAA","response":{}}`,
	"DeletePasskey":             `{"passkeyId":"00000000-0000-7000-8000-000000000000"}`,
	"RemovePassword":            `{}`,

	"BeginTOTPEnrolment":      `{}`,
	"FinishTOTPEnrolment":     `{"enrolmentToken":"ghc_bm90LW91cnM","code":"123456"}`,
	"RemoveTOTP":              `{}`,
	"RegenerateRecoveryCodes": `{}`,
	"ResetUserFactors":        `{"userId":"%s"}`,
}

// A stolen access token of an administrator's session ends with its five minutes:
// nothing that it can do outlives it.
func TestAnOldSignInChangesNobody(t *testing.T) {
	t.Parallel()
	providers := filepath.Join(t.TempDir(), "providers.yaml")
	if err := os.WriteFile(providers, []byte(`[{id: work, kind: oidc, client_id: x, issuer: "http://127.0.0.1:1"}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	s := harness.Start(t, harness.OneProcess, harness.WithSettings("GATEHOUSE_PROVIDERS="+providers))
	ada := s.SignUp(t, "ada@example.com").ID
	if _, err := s.Admin(t).Client().Users.DisableUser(t.Context(), &bffv1.DisableUserRequest{UserId: ada}); err != nil {
		t.Fatalf("DisableUser: %v", err)
	}
	login, err := s.Client("").Auth.Login(t.Context(), &bffv1.LoginRequest{Email: harness.AdminEmail, Password: harness.AdminPassword})
	if err != nil {
		t.Fatal(err)
	}
	token := login.GetSignedIn().GetTokens().GetAccessToken()
	if _, err := s.Owner.Exec(t.Context(), "UPDATE auth.sessions SET authenticate_time = now() - interval '6 minutes'"); err != nil {
		t.Fatal(err)
	}
	accounts := func() (text string) {
		t.Helper()
		err := s.Owner.QueryRow(t.Context(), "SELECT string_agg(a::text, ' ' ORDER BY id) || (SELECT count(*) FROM auth.links) FROM auth.accounts a").Scan(&text)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	before, refused := accounts(), 0
	for _, file := range []protoreflect.FileDescriptor{bffv1.File_bff_v1_account_service_proto, bffv1.File_bff_v1_user_service_proto, bffv1.File_bff_v1_auth_service_proto} {
		methods := file.Services().Get(0).Methods()
		for i := range methods.Len() {
			method := methods.Get(i)
			if policy, _ := proto.GetExtension(method.Options(), policyv1.E_Method).(*policyv1.Method); !policy.GetRecentSignIn() {
				continue
			}
			request, ok := recentRequests[method.Name()]
			if !ok {
				t.Errorf("%s wants a recent sign-in: add a request of it to recentRequests", method.FullName())
				continue
			}
			refused++
			if strings.Contains(request, "%s") {
				request = fmt.Sprintf(request, ada)
			}
			status, _, body := s.Post(t, fmt.Sprintf("/%s/%s", method.Parent().FullName(), method.Name()), token, request)
			refusedFirst := (strings.HasPrefix(string(method.Name()), "Finish") || method.Name() == "CompleteLinkIdentity") && strings.Contains(body, "CHALLENGE_INVALID") // Begin gives no token
			if status != http.StatusBadRequest || !strings.Contains(body, "REAUTHENTICATION_REQUIRED") && !refusedFirst {
				t.Errorf("%s by an old sign-in: got %d %s, want REAUTHENTICATION_REQUIRED", method.Name(), status, body)
			}
		}
	}
	if after := accounts(); after != before {
		t.Errorf("the accounts were changed from\n%s\nto\n%s", before, after)
	}
	if refused != len(recentRequests) {
		t.Errorf("%d methods were tried, and recentRequests has %d", refused, len(recentRequests))
	}
	var audited int
	err = s.Owner.QueryRow(t.Context(), "SELECT count(*) FROM auth.audit_events WHERE outcome = 'refused' AND reason = 'REAUTHENTICATION_REQUIRED' AND event LIKE 'account.%' AND event <> 'account.password.change'").Scan(&audited)
	if err != nil || audited < 6 {
		t.Errorf("the audit has %d refusals (%v), want those of the administrator's six methods", audited, err)
	}
	if _, err := s.Client(token).Account.Reauthenticate(t.Context(), &bffv1.ReauthenticateRequest{Password: harness.AdminPassword}); err != nil {
		t.Fatalf("Reauthenticate: %v", err)
	}
	if _, err := s.Client(token).Users.SetUserRoles(t.Context(), &bffv1.SetUserRolesRequest{UserId: ada, Roles: []string{"editor"}}); err != nil {
		t.Errorf("SetUserRoles after Reauthenticate: %v", err)
	}
}
