package auth_test

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect/v2"

	"gatehouse/auth"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/fault"
)

func TestAnEmailBelongsToOneAccountInAnyCase(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.signUp(t, "Ada@Example.com")
	_, err := h.accounts.CreateAccount(t.Context(), &authv1.CreateAccountRequest{AccountId: newID(t), Email: "ada@example.COM", Password: password})
	wantReason(t, err, connect.CodeAlreadyExists, "EMAIL_TAKEN")
	if n := h.count(t, "SELECT count(*) FROM auth.account_log"); n != 1 {
		t.Errorf("the account log has %d rows, want only the first account's", n)
	}
}

func TestAnIdIsUsedOnce(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	account, _ := h.signUp(t, "ada@example.com")
	_, err := h.accounts.CreateAccount(t.Context(), &authv1.CreateAccountRequest{AccountId: account.GetId(), Email: "bob@example.com", Password: password})
	wantReason(t, err, connect.CodeAlreadyExists, "ACCOUNT_EXISTS")
}

func TestClosedRegistrationStillLetsAdministratorsCreate(t *testing.T) {
	t.Parallel()
	h := newHarness(t, func(c *auth.Config) { c.Registration = auth.RegistrationClosed })
	_, err := h.accounts.CreateAccount(t.Context(), &authv1.CreateAccountRequest{AccountId: newID(t), Email: "ada@example.com", Password: password, SignIn: true})
	wantReason(t, err, connect.CodePermissionDenied, "REGISTRATION_CLOSED")
	_, err = h.accounts.CreateAccount(t.Context(), &authv1.CreateAccountRequest{AccountId: newID(t), Email: "ada@example.com", Password: password})
	if err != nil {
		t.Errorf("an administrator's CreateAccount: %v", err)
	}
}

func (h *harness) login(t *testing.T, email, password string) (*authv1.LoginResponse, error) {
	t.Helper()
	return h.sessions.Login(t.Context(), &authv1.LoginRequest{Email: email, Password: password})
}

func TestLogin(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	account, _ := h.signUp(t, "ada@example.com")
	response, err := h.login(t, "ADA@example.com", password)
	if err != nil {
		t.Fatalf("Login in another case: %v", err)
	}
	if response.GetAccount().GetId() != account.GetId() {
		t.Errorf("signed in as %s, want %s", response.GetAccount().GetId(), account.GetId())
	}
	_, err = h.login(t, "ada@example.com", "wrong password")
	wantReason(t, err, connect.CodeUnauthenticated, "CREDENTIALS_INVALID")
	_, err = h.login(t, "nobody@example.com", password)
	wantReason(t, err, connect.CodeUnauthenticated, "CREDENTIALS_INVALID")
	_, err = h.login(t, "ada@example.com", "")
	wantReason(t, err, connect.CodeInvalidArgument, fault.ReasonInvalid)

	rows := h.count(t, "SELECT count(*) FROM auth.audit_events WHERE event = 'session.login' AND outcome = 'refused'")
	if rows != 2 {
		t.Errorf("the audit has %d refused logins, want 2", rows)
	}
	if n := h.count(t, "SELECT count(*) FROM auth.audit_events e WHERE e::text ILIKE '%example.com%' OR e::text ILIKE '%password%'"); n != 0 {
		t.Errorf("%d rows of the audit hold an email or a password", n)
	}
}

func TestAPasswordIsTheSameInEveryUnicodeForm(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	_, err := h.accounts.CreateAccount(t.Context(), &authv1.CreateAccountRequest{AccountId: newID(t), Email: "zoe@example.com", Password: "Zo\u00eb's caf\u00e9 au lait"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.login(t, "zoe@example.com", "Zoe\u0308's cafe\u0301 au lait"); err != nil {
		t.Errorf("the same password, decomposed: %v", err)
	}
}

func TestAnOutdatedHashIsMadeAnewAtLogin(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.signUp(t, "ada@example.com")
	// Made by argon2id with m=64 KiB, t=1 from "an old password here".
	h.exec(t, "UPDATE auth.accounts SET password_hash = $1", auth.HashForTest("an old password here", 64, 1))
	if _, err := h.login(t, "ada@example.com", "an old password here"); err != nil {
		t.Fatalf("Login with an outdated hash: %v", err)
	}
	if n := h.count(t, "SELECT count(*) FROM auth.accounts WHERE password_hash LIKE '$argon2id$v=19$m=19456,t=2,p=1$%'"); n != 1 {
		t.Error("Login did not replace the outdated hash")
	}
	if _, err := h.login(t, "ada@example.com", "an old password here"); err != nil {
		t.Errorf("Login with the new hash: %v", err)
	}
}

func TestADisabledAccountIsToldSoOnlyAfterTheRightPassword(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	account, tokens := h.signUp(t, "ada@example.com")
	response, err := h.accounts.SetAccountStatus(t.Context(), &authv1.SetAccountStatusRequest{AccountId: account.GetId(), Status: authv1.AccountStatus_ACCOUNT_STATUS_DISABLED})
	if err != nil {
		t.Fatalf("disable: %v", err)
	}
	if got := response.GetAccount().GetAuthzVersion(); got != 2 {
		t.Errorf("authz_version is %d, want 2", got)
	}
	_, err = h.login(t, "ada@example.com", "wrong password")
	wantReason(t, err, connect.CodeUnauthenticated, "CREDENTIALS_INVALID")
	_, err = h.login(t, "ada@example.com", password)
	wantReason(t, err, connect.CodePermissionDenied, "ACCOUNT_DISABLED")
	_, err = h.refresh(t, tokens.GetRefreshToken(), "")
	wantReason(t, err, connect.CodeUnauthenticated, "SESSION_ENDED")

	_, err = h.accounts.SetAccountStatus(t.Context(), &authv1.SetAccountStatusRequest{AccountId: account.GetId(), Status: authv1.AccountStatus_ACCOUNT_STATUS_ACTIVE})
	if err != nil {
		t.Fatalf("enable: %v", err)
	}
	if _, err := h.login(t, "ada@example.com", password); err != nil {
		t.Errorf("Login once enabled again: %v", err)
	}
	_, err = h.refresh(t, tokens.GetRefreshToken(), "")
	wantReason(t, err, connect.CodeUnauthenticated, "SESSION_ENDED")
}

func TestRolesAreASetAndRaiseTheAuthorisationVersion(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	account, _ := h.signUp(t, "ada@example.com")
	set := func(roles ...string) *authv1.Account {
		t.Helper()
		response, err := h.accounts.SetAccountRoles(t.Context(), &authv1.SetAccountRolesRequest{AccountId: account.GetId(), Roles: roles})
		if err != nil {
			t.Fatalf("SetAccountRoles %v: %v", roles, err)
		}
		return response.GetAccount()
	}
	got := set("editor", "billing", "editor")
	if want := []string{"billing", "editor"}; !slices.Equal(got.GetRoles(), want) || got.GetAuthzVersion() != 2 {
		t.Errorf("got %v with version %d, want %v with 2", got.GetRoles(), got.GetAuthzVersion(), want)
	}
	if got := set("editor", "billing"); got.GetAuthzVersion() != 2 {
		t.Errorf("the same roles raised the version to %d", got.GetAuthzVersion())
	}
	if got := set(); len(got.GetRoles()) != 0 || got.GetAuthzVersion() != 3 {
		t.Errorf("got %v with version %d, want none with 3", got.GetRoles(), got.GetAuthzVersion())
	}
}

func TestTheLastAdministratorStays(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	account, _ := h.signUp(t, "root@example.com", auth.AdminRole)
	disabled, _ := h.signUp(t, "other@example.com", auth.AdminRole)
	_, err := h.accounts.SetAccountStatus(t.Context(), &authv1.SetAccountStatusRequest{AccountId: disabled.GetId(), Status: authv1.AccountStatus_ACCOUNT_STATUS_DISABLED})
	if err != nil {
		t.Fatalf("disable one of two: %v", err)
	}
	for name, remove := range map[string]func() error{
		"demote": func() error {
			_, err := h.accounts.SetAccountRoles(t.Context(), &authv1.SetAccountRolesRequest{AccountId: account.GetId()})
			return err
		},
		"disable": func() error {
			_, err := h.accounts.SetAccountStatus(t.Context(), &authv1.SetAccountStatusRequest{AccountId: account.GetId(), Status: authv1.AccountStatus_ACCOUNT_STATUS_DISABLED})
			return err
		},
		"delete": func() error {
			_, err := h.accounts.DeleteAccount(t.Context(), &authv1.DeleteAccountRequest{AccountId: account.GetId()})
			return err
		},
	} {
		err := remove()
		if fault.Reason(err) != "LAST_ADMINISTRATOR" {
			t.Errorf("%s: got %v, want LAST_ADMINISTRATOR", name, err)
		}
	}
	if _, err := h.login(t, "root@example.com", password); err != nil {
		t.Errorf("the last administrator can't sign in: %v", err)
	}
}

func TestChangePasswordEndsTheOtherSessions(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	account, tokens := h.signUp(t, "ada@example.com")
	other, err := h.login(t, "ada@example.com", password)
	if err != nil {
		t.Fatal(err)
	}
	var current string
	if err := h.owner.QueryRow(t.Context(), "SELECT id FROM auth.sessions ORDER BY create_time LIMIT 1").Scan(&current); err != nil {
		t.Fatal(err)
	}
	change := func(old string) error {
		_, err := h.accounts.ChangePassword(t.Context(), &authv1.ChangePasswordRequest{
			CurrentPassword: old, NewPassword: "another horse battery",
			Origin: &authv1.Origin{AccountId: account.GetId(), SessionId: current},
		})
		return err
	}
	wantReason(t, change("wrong password"), connect.CodeInvalidArgument, "PASSWORD_WRONG")
	if err := change(password); err != nil {
		t.Fatalf("ChangePassword: %v", err)
	}
	h.mustRefresh(t, tokens.GetRefreshToken(), "")
	_, err = h.refresh(t, other.GetTokens().GetRefreshToken(), "")
	wantReason(t, err, connect.CodeUnauthenticated, "SESSION_ENDED")
	_, err = h.login(t, "ada@example.com", password)
	wantReason(t, err, connect.CodeUnauthenticated, "CREDENTIALS_INVALID")
	if _, err := h.login(t, "ada@example.com", "another horse battery"); err != nil {
		t.Errorf("Login with the new password: %v", err)
	}
}

func TestDeletionNeedsARecentSignIn(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	account, _ := h.signUp(t, "ada@example.com")
	sessions, err := h.sessions.ListSessions(t.Context(), &authv1.ListSessionsRequest{AccountId: account.GetId()})
	if err != nil || len(sessions.GetSessions()) != 1 {
		t.Fatalf("ListSessions: %v, %v", sessions, err)
	}
	origin := &authv1.Origin{AccountId: account.GetId(), SessionId: sessions.GetSessions()[0].GetId()}
	remove := func() error {
		_, err := h.accounts.DeleteAccount(t.Context(), &authv1.DeleteAccountRequest{AccountId: account.GetId(), RequireRecentSignIn: true, Origin: origin})
		return err
	}
	h.exec(t, "UPDATE auth.sessions SET authenticate_time = now() - interval '6 minutes'")
	wantReason(t, remove(), connect.CodeFailedPrecondition, "REAUTHENTICATION_REQUIRED")
	_, err = h.sessions.Reauthenticate(t.Context(), &authv1.ReauthenticateRequest{Password: "wrong password", Origin: origin})
	wantReason(t, err, connect.CodeInvalidArgument, "PASSWORD_WRONG")
	wantReason(t, remove(), connect.CodeFailedPrecondition, "REAUTHENTICATION_REQUIRED")
	if _, err := h.sessions.Reauthenticate(t.Context(), &authv1.ReauthenticateRequest{Password: password, Origin: origin}); err != nil {
		t.Fatalf("Reauthenticate: %v", err)
	}
	if err := remove(); err != nil {
		t.Fatalf("DeleteAccount: %v", err)
	}
	_, err = h.accounts.GetAccount(t.Context(), &authv1.GetAccountRequest{AccountId: account.GetId()})
	wantReason(t, err, connect.CodeNotFound, "USER_NOT_FOUND")
	if n := h.count(t, "SELECT count(*) FROM auth.sessions"); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
}

func TestSessionsAreRevokedByTheirOwnerAlone(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	ada, _ := h.signUp(t, "ada@example.com")
	bob, _ := h.signUp(t, "bob@example.com")
	for range 2 {
		if _, err := h.login(t, "ada@example.com", password); err != nil {
			t.Fatal(err)
		}
	}
	sessions, err := h.sessions.ListSessions(t.Context(), &authv1.ListSessionsRequest{AccountId: ada.GetId()})
	if err != nil || len(sessions.GetSessions()) != 3 {
		t.Fatalf("ListSessions: %d, %v; want 3", len(sessions.GetSessions()), err)
	}
	revoke := func(account, session string) error {
		_, err := h.sessions.RevokeSession(t.Context(), &authv1.RevokeSessionRequest{AccountId: account, SessionId: session})
		return err
	}
	first, kept := sessions.GetSessions()[0].GetId(), sessions.GetSessions()[1].GetId()
	wantReason(t, revoke(bob.GetId(), first), connect.CodeNotFound, "SESSION_NOT_FOUND")
	if err := revoke(ada.GetId(), first); err != nil {
		t.Errorf("RevokeSession: %v", err)
	}
	wantReason(t, revoke(ada.GetId(), first), connect.CodeNotFound, "SESSION_NOT_FOUND")
	response, err := h.sessions.RevokeSessions(t.Context(), &authv1.RevokeSessionsRequest{AccountId: ada.GetId(), ExceptSessionId: kept})
	if err != nil || response.GetRevoked() != 1 {
		t.Errorf("RevokeSessions but one: %v, %v; want 1", response, err)
	}
	response, err = h.sessions.RevokeSessions(t.Context(), &authv1.RevokeSessionsRequest{AccountId: ada.GetId()})
	if err != nil || response.GetRevoked() != 1 {
		t.Errorf("RevokeSessions: %v, %v; want 1", response, err)
	}
	_, err = h.sessions.RevokeSessions(t.Context(), &authv1.RevokeSessionsRequest{AccountId: newID(t)})
	wantReason(t, err, connect.CodeNotFound, "USER_NOT_FOUND")
	if h.liveSessions(t) != 1 {
		t.Error("Bob's session was ended too")
	}
}

func TestBatchGetAccountsKeepsTheOrderAndSkipsWhatIsNotThere(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	one, _ := h.signUp(t, "one@example.com")
	two, _ := h.signUp(t, "two@example.com")
	response, err := h.accounts.BatchGetAccounts(t.Context(), &authv1.BatchGetAccountsRequest{AccountIds: []string{two.GetId(), newID(t), one.GetId()}})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, account := range response.GetAccounts() {
		got = append(got, account.GetEmail())
	}
	if want := []string{"two@example.com", "one@example.com"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestCopiesThatStartAtOnceMakeOneAdministratorAndOneKey(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.exec(t, "DELETE FROM auth.signing_keys")
	var wait sync.WaitGroup
	var made atomic.Int32
	for range 8 {
		wait.Go(func() {
			copied, err := auth.New(t.Context(), h.config)
			if err != nil {
				t.Errorf("auth.New: %v", err)
				return
			}
			ok, err := copied.EnsureAdministrator(t.Context(), "admin@localhost", password)
			for fault.Reason(err) == "TOO_MANY_PASSWORD_CHECKS" {
				ok, err = copied.EnsureAdministrator(t.Context(), "admin@localhost", password)
			}
			if err != nil {
				t.Errorf("EnsureAdministrator: %v", err)
			}
			if ok {
				made.Add(1)
			}
		})
	}
	wait.Wait()
	if made.Load() != 1 || h.count(t, "SELECT count(*) FROM auth.accounts") != 1 || h.count(t, "SELECT count(*) FROM auth.signing_keys") != 1 {
		t.Errorf("%d copies made an administrator; there are %d accounts and %d keys; want 1 of each", made.Load(),
			h.count(t, "SELECT count(*) FROM auth.accounts"), h.count(t, "SELECT count(*) FROM auth.signing_keys"))
	}
}

func TestResetPasswordEndsEverySession(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.signUp(t, "ada@example.com")
	if err := h.service.SetPassword(t.Context(), "Ada@Example.com", "a brand new password"); err != nil {
		t.Fatalf("ResetPassword: %v", err)
	}
	if h.liveSessions(t) != 0 {
		t.Error("a session outlived the reset")
	}
	if _, err := h.login(t, "ada@example.com", "a brand new password"); err != nil {
		t.Errorf("Login: %v", err)
	}
	err := h.service.SetPassword(t.Context(), "nobody@example.com", "a brand new password")
	wantReason(t, err, connect.CodeNotFound, "USER_NOT_FOUND")
}

func TestSecretsAreSealedAndBoundToTheirLabel(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.exec(t, "UPDATE auth.signing_keys SET kid = 'renamed'")
	_, err := auth.New(t.Context(), h.config)
	if err == nil || !strings.Contains(err.Error(), "renamed") {
		t.Errorf("a key under another's id was opened: %v", err)
	}
}
