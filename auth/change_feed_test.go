package auth_test

import (
	"errors"
	"slices"
	"testing"

	"gatehouse/auth"
	authv1 "gatehouse/gen/auth/v1"
)

// tagsSince returns what has been noted, and forgets it.
func (h *harness) tagsSince(t *testing.T) []string {
	t.Helper()
	rows, err := h.owner.Query(t.Context(), "DELETE FROM auth.changes RETURNING tag")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var tags []string
	for rows.Next() {
		var tag string
		if err := rows.Scan(&tag); err != nil {
			t.Fatal(err)
		}
		tags = append(tags, tag)
	}
	slices.Sort(tags)
	return slices.Compact(tags)
}

// Every write records the tags of the data that it changes, in the same transaction, so
// that each gateway invalidates its cache entries with those tags.
func TestEveryWriteNotesWhatItChanges(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.signUp(t, "root@example.com", auth.AdminRole)
	ada, tokens := h.signUp(t, "ada@example.com")
	account, sessions := "account/"+ada.GetId(), "sessions/"+ada.GetId()
	if got := h.tagsSince(t); !slices.Contains(got, account) || !slices.Contains(got, sessions) {
		t.Errorf("signing up noted %v", got)
	}
	id, origin := ada.GetId(), &authv1.Origin{AccountId: ada.GetId(), SessionId: h.sessionsOf(t, ada.GetId())[0]}
	both, none := []string{account, sessions}, []string(nil)
	var token string
	for _, write := range []struct {
		what string
		do   func() error
		want []string
	}{
		{"a wrong password", func() error {
			if _, err := h.sessions.Login(t.Context(), &authv1.LoginRequest{Email: "ada@example.com", Password: "wrong"}); err == nil {
				return errors.New("it was right")
			}
			return nil
		}, none},
		{"a sign-in", func() error {
			response, err := h.sessions.Login(t.Context(), &authv1.LoginRequest{Email: "ada@example.com", Password: password})
			token = response.GetTokens().GetRefreshToken()
			return err
		}, both},
		{"a refresh by the same client", func() error {
			refreshed, err := h.refresh(t, token, "")
			token = refreshed.GetRefreshToken()
			return err
		}, none},
		{"a refresh from another address", func() error {
			_, err := h.sessions.Refresh(t.Context(), &authv1.RefreshRequest{RefreshToken: token, Origin: &authv1.Origin{IpAddress: "192.0.2.9"}})
			return err
		}, []string{sessions}},
		{"a token used again", func() error {
			h.age(t, "1 minute")
			if _, err := h.refresh(t, token, ""); err == nil {
				return errors.New("it was accepted")
			}
			return nil
		}, []string{sessions}},
		{"other roles", func() error {
			_, err := h.accounts.SetAccountRoles(t.Context(), &authv1.SetAccountRolesRequest{AccountId: id, Roles: []string{"editor"}})
			return err
		}, both},
		{"the same roles", func() error {
			_, err := h.accounts.SetAccountRoles(t.Context(), &authv1.SetAccountRolesRequest{AccountId: id, Roles: []string{"editor"}})
			return err
		}, none},
		{"another email", func() error {
			_, err := h.accounts.ChangeAccountEmail(t.Context(), &authv1.ChangeAccountEmailRequest{AccountId: id, Email: "countess@example.com"})
			return err
		}, both},
		{"another password", func() error {
			_, err := h.accounts.ChangePassword(t.Context(), &authv1.ChangePasswordRequest{CurrentPassword: password, NewPassword: "a brand new pass phrase", Origin: origin})
			return err
		}, both},
		{"a session revoked", func() error {
			_, err := h.sessions.RevokeSession(t.Context(), &authv1.RevokeSessionRequest{AccountId: id, SessionId: origin.GetSessionId()})
			return err
		}, both},
		{"all sessions revoked", func() error {
			_, err := h.sessions.RevokeSessions(t.Context(), &authv1.RevokeSessionsRequest{AccountId: id})
			return err
		}, both},
		{"a logout", func() error {
			_, err := h.sessions.Logout(t.Context(), &authv1.LogoutRequest{RefreshToken: tokens.GetRefreshToken()})
			return err
		}, both},
		{"an operator's password reset", func() error {
			return h.service.SetPassword(t.Context(), "countess@example.com", "yet another pass phrase")
		}, both},
		{"an account disabled", func() error {
			_, err := h.accounts.SetAccountStatus(t.Context(), &authv1.SetAccountStatusRequest{AccountId: id, Status: authv1.AccountStatus_ACCOUNT_STATUS_DISABLED})
			return err
		}, both},
		{"an account deleted", func() error {
			_, err := h.accounts.DeleteAccount(t.Context(), &authv1.DeleteAccountRequest{AccountId: id})
			return err
		}, both},
	} {
		if err := write.do(); err != nil {
			t.Fatalf("%s: %v", write.what, err)
		}
		if got := h.tagsSince(t); !slices.Equal(got, write.want) {
			t.Errorf("%s noted %v, want %v", write.what, got, write.want)
		}
	}
}

// A write that is rolled back records no tags.
func TestWhatIsRolledBackIsNotNoted(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	root, _ := h.signUp(t, "root@example.com", auth.AdminRole)
	h.tagsSince(t)
	if _, err := h.accounts.DeleteAccount(t.Context(), &authv1.DeleteAccountRequest{AccountId: root.GetId()}); err == nil {
		t.Fatal("the last administrator was deleted")
	}
	if got := h.tagsSince(t); len(got) > 0 {
		t.Errorf("a refused deletion noted %v", got)
	}
}
