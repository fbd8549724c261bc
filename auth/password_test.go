package auth_test

import (
	"strings"
	"testing"

	"connectrpc.com/connect/v2"

	"gatehouse/auth"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/fault"
)

func TestNewPasswordsAreHeldToTheRules(t *testing.T) {
	t.Parallel()
	h := newHarness(t, func(c *auth.Config) { c.PasswordMin = 10 })
	account, _ := h.signUp(t, "lovelace+work@example.com")
	sessions, err := h.sessions.ListSessions(t.Context(), &authv1.ListSessionsRequest{AccountId: account.GetId()})
	if err != nil {
		t.Fatal(err)
	}
	origin := &authv1.Origin{AccountId: account.GetId(), SessionId: sessions.GetSessions()[0].GetId()}
	for _, test := range []struct{ name, email, password, reason string }{
		{"nine characters", "lovelace+work@example.com", "ninechars", "PASSWORD_TOO_SHORT"},
		{"nine characters in ten code points", "lovelace+work@example.com", "cafe\u0301 here", "PASSWORD_TOO_SHORT"},
		{"129 characters", "lovelace+work@example.com", strings.Repeat("long pass", 14) + "xyz", "PASSWORD_TOO_LONG"},
		{"a common one", "lovelace+work@example.com", "1234567890", "PASSWORD_COMMON"},
		{"a common one in another case", "lovelace+work@example.com", "QwertyUiop", "PASSWORD_COMMON"},
		{"a common one in full width", "lovelace+work@example.com", "ｑｗｅｒｔｙｕｉｏｐ", "PASSWORD_COMMON"},
		{"the email", "lovelace+work@example.com", "Lovelace+Work@example.com", "PASSWORD_CONTAINS_EMAIL"},
		{"the name in it", "lovelace+work@example.com", "my LOVELACE horse", "PASSWORD_CONTAINS_EMAIL"},
		{"a short email", "ada@example.com", "ada@example.com", "PASSWORD_CONTAINS_EMAIL"},
		{"a short name in it", "ada@example.com", "canadaaaaaaaa", ""},
		{"ten letters", "ada1@example.com", "abcdefghiz", ""},
		{"any Unicode", "ada2@example.com", "пароль 🔑 密码 ok", ""},
		{"spaces and one kind of letter", "ada3@example.com", "just a few words", ""},
		{"128 characters", "ada4@example.com", strings.Repeat("é", 128), ""},
	} {
		_, err := h.accounts.CreateAccount(t.Context(), &authv1.CreateAccountRequest{AccountId: newID(t), Email: test.email, Password: test.password, SignIn: true})
		if test.reason == "" && err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		if test.reason != "" {
			if wantReason(t, err, connect.CodeInvalidArgument, test.reason); t.Failed() {
				t.Fatalf("%s: %q for %s", test.name, test.password, test.email)
			}
		}
		if test.reason == "" || test.email != "lovelace+work@example.com" {
			continue
		}
		_, err = h.accounts.ChangePassword(t.Context(), &authv1.ChangePasswordRequest{CurrentPassword: password, NewPassword: test.password, Origin: origin})
		if wantReason(t, err, connect.CodeInvalidArgument, test.reason); t.Failed() {
			t.Fatalf("ChangePassword to %s: %q", test.name, test.password)
		}
	}
}

// An operator knows what they do, but for a slip of the keyboard.
func TestOperatorsPasswordsAreHeldToTheirLength(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	if err := h.service.CreateAdministrator(t.Context(), "admin@example.com", "short"); fault.Reason(err) != "PASSWORD_TOO_SHORT" {
		t.Errorf("CreateAdministrator: %v, want PASSWORD_TOO_SHORT", err)
	}
	if err := h.service.CreateAdministrator(t.Context(), "admin@example.com", "administrator"); err != nil {
		t.Errorf("CreateAdministrator: %v", err)
	}
	if err := h.service.SetPassword(t.Context(), "admin@example.com", strings.Repeat("x", 129)); fault.Reason(err) != "PASSWORD_TOO_LONG" {
		t.Errorf("SetPassword: %v, want PASSWORD_TOO_LONG", err)
	}
	if err := h.service.SetPassword(t.Context(), "admin@example.com", "password"); err != nil {
		t.Errorf("SetPassword: %v", err)
	}
}

func TestChangingAPasswordNeedsARecentSignIn(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	account, _ := h.signUp(t, "ada@example.com")
	sessions, err := h.sessions.ListSessions(t.Context(), &authv1.ListSessionsRequest{AccountId: account.GetId()})
	if err != nil {
		t.Fatal(err)
	}
	origin := &authv1.Origin{AccountId: account.GetId(), SessionId: sessions.GetSessions()[0].GetId()}
	change := func() error {
		_, err := h.accounts.ChangePassword(t.Context(), &authv1.ChangePasswordRequest{CurrentPassword: password, NewPassword: "another horse battery", Origin: origin})
		return err
	}
	h.exec(t, "UPDATE auth.sessions SET authenticate_time = now() - interval '301 seconds'")
	before := h.service.HashesForTest()
	wantReason(t, change(), connect.CodeFailedPrecondition, "REAUTHENTICATION_REQUIRED")
	if after := h.service.HashesForTest(); after != before {
		t.Error("the password was looked at")
	}
	if _, err := h.sessions.Reauthenticate(t.Context(), &authv1.ReauthenticateRequest{Password: password, Origin: origin}); err != nil {
		t.Fatalf("Reauthenticate: %v", err)
	}
	if err := change(); err != nil {
		t.Errorf("after Reauthenticate: %v", err)
	}
	h.exec(t, "UPDATE auth.sessions SET revoke_time = now(), revoke_reason = 'test'")
	wantReason(t, change(), connect.CodeUnauthenticated, "SESSION_ENDED")
}

// Changing the password makes older links invalid, so that a person who holds one can
// no longer use it.
func TestAChangedPasswordSupersedesOpenLinks(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	account, _ := h.signUp(t, "ada@example.com")
	other, _ := h.signUp(t, "bob@example.com")
	sessions, err := h.sessions.ListSessions(t.Context(), &authv1.ListSessionsRequest{AccountId: account.GetId()})
	if err != nil {
		t.Fatal(err)
	}
	for i, id := range []string{account.GetId(), other.GetId()} {
		h.exec(t, `INSERT INTO auth.links (token_hash, kind, email, account_id, expire_time)
			VALUES (sha256($1), 'reset', 'ada@example.com', $2, now() + interval '1 hour')`, []byte{byte(i)}, id)
	}
	_, err = h.accounts.ChangePassword(t.Context(), &authv1.ChangePasswordRequest{
		CurrentPassword: password, NewPassword: "another horse battery",
		Origin: &authv1.Origin{AccountId: account.GetId(), SessionId: sessions.GetSessions()[0].GetId()},
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := h.count(t, "SELECT count(*) FROM auth.links WHERE account_id = $1 AND end_reason = 'superseded'", account.GetId()); n != 1 {
		t.Errorf("%d of the account's links are superseded, want its one", n)
	}
	if n := h.count(t, "SELECT count(*) FROM auth.links WHERE end_time IS NULL"); n != 1 {
		t.Errorf("%d links are open, want the other account's", n)
	}
}

// Login reports a disabled account only to a caller with the right password, and the
// audit records each refused sign-in with its reason.
func TestRefusedSignInsAreAuditedWithTheirReason(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	account, _ := h.signUp(t, "ada@example.com")
	h.exec(t, "UPDATE auth.accounts SET status = 'disabled'")
	_, err := h.login(t, "ada@example.com", "wrong password")
	wantReason(t, err, connect.CodeUnauthenticated, "CREDENTIALS_INVALID")
	_, err = h.login(t, "ada@example.com", password)
	wantReason(t, err, connect.CodePermissionDenied, "ACCOUNT_DISABLED")
	_, err = h.login(t, "nobody@example.com", password)
	wantReason(t, err, connect.CodeUnauthenticated, "CREDENTIALS_INVALID")
	for _, want := range []struct{ reason, account string }{
		{"CREDENTIALS_INVALID", account.GetId()}, {"ACCOUNT_DISABLED", account.GetId()}, {"CREDENTIALS_INVALID", ""},
	} {
		n := h.count(t, `SELECT count(*) FROM auth.audit_events
			WHERE event = 'session.login' AND outcome = 'refused' AND reason = $1 AND coalesce(account_id::text, '') = $2`, want.reason, want.account)
		if n != 1 {
			t.Errorf("%d rows of %v, want 1", n, want)
		}
	}
}
