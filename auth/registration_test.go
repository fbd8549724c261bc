package auth_test

import (
	"strings"
	"testing"

	"connectrpc.com/connect/v2"

	"gatehouse/auth"
	authv1 "gatehouse/gen/auth/v1"
)

func (h *harness) verifyWith(t *testing.T, req *authv1.VerifyEmailRequest) *authv1.VerifyEmailResponse {
	t.Helper()
	req.AccountId = newID(t)
	response, err := patiently(func() (*authv1.VerifyEmailResponse, error) { return h.links.VerifyEmail(t.Context(), req) })
	if err != nil {
		t.Fatalf("VerifyEmail: %v", err)
	}
	return response
}

func TestARegistrationsNamesCountOnlyForTheOneWhoRegistered(t *testing.T) {
	t.Parallel()
	receiver := newReceiver()
	h := newHarness(t, byLink, func(c *auth.Config) { c.Users = receiver.client(t) })
	grace, none, locale := "Grace", "", "de"
	for _, one := range []struct {
		name string
		req  *authv1.VerifyEmailRequest
		want string
	}{
		{"same", &authv1.VerifyEmailRequest{Password: password}, "Ada Lovelace "},
		{"other", &authv1.VerifyEmailRequest{Password: newPassword}, "  "},
		{"own", &authv1.VerifyEmailRequest{Password: newPassword, FirstName: &grace, Locale: &locale}, "Grace  de"},
		{"change", &authv1.VerifyEmailRequest{Password: password, FirstName: &grace}, "Grace Lovelace "},
		{"no-name", &authv1.VerifyEmailRequest{Password: password, LastName: &none}, "Ada  "},
	} {
		email := one.name + "@example.com"
		h.register(t, email)
		one.req.Token = h.mailed(t, "verify_email", email).Token
		h.verifyWith(t, one.req)
		received := receiver.received()
		seed := received[len(received)-1].GetPresent()
		if got := seed.GetFirstName() + " " + seed.GetLastName() + " " + seed.GetLocale(); seed.GetEmail() != email || got != one.want {
			t.Errorf("%s: the profile starts with %q, want %q", one.name, got, one.want)
		}
	}
	if n := h.count(t, "SELECT count(*) FROM auth.links l WHERE l::text LIKE '%' || $1 || '%'", password); n != 0 {
		t.Errorf("%d links hold the password", n)
	}
}

func TestWhoKnowsThePasswordOnlyConfirmsTheEmail(t *testing.T) {
	t.Parallel()
	h := newHarness(t, withMail)
	account, before := h.signUp(t, "ada@example.com")
	response := h.verifyWith(t, &authv1.VerifyEmailRequest{Token: h.mailed(t, "verify_email", "ada@example.com").Token, Password: password})
	if got := response.GetAccount(); got.GetId() != account.GetId() || !got.GetEmailVerified() {
		t.Errorf("got the account %v, want it verified", got)
	}
	h.mustRefresh(t, response.GetTokens().GetRefreshToken(), "")
	h.mustRefresh(t, before.GetRefreshToken(), "")
	if n := h.count(t, "SELECT count(*) FROM auth.audit_events WHERE event = 'password.change'"); n != 0 {
		t.Errorf("the password was changed %d times", n)
	}
	h.wantMails(t)
	if _, err := h.login(t, "ada@example.com", password); err != nil {
		t.Errorf("Login: %v", err)
	}
}

func TestWhoIsSignedInOnlyConfirmsTheEmail(t *testing.T) {
	t.Parallel()
	h := newHarness(t, withMail)
	account, before := h.signUp(t, "ada@example.com")
	token := h.mailed(t, "verify_email", "ada@example.com").Token
	stranger, _ := h.signUp(t, "eve@example.com")
	h.post(t)
	for name, origin := range map[string]*authv1.Origin{"nobody": nil, "somebody else": h.origin(t, stranger)} {
		_, err := h.links.VerifyEmail(t.Context(), &authv1.VerifyEmailRequest{Token: token, AccountId: newID(t), Origin: origin})
		wantReason(t, err, connect.CodeInvalidArgument, "PASSWORD_TOO_SHORT")
		if n := h.count(t, "SELECT count(*) FROM auth.accounts WHERE email_verified"); n != 0 {
			t.Errorf("%s verified the email", name)
		}
	}
	key := &authv1.IdempotencyKey{Key: "k", Procedure: "/p", RequestHash: make([]byte, 32)}
	for range 2 { // the second has the answer again
		response := h.verifyWith(t, &authv1.VerifyEmailRequest{Token: token, Origin: h.origin(t, account), IdempotencyKey: key})
		if got := response.GetAccount(); got.GetId() != account.GetId() || !got.GetEmailVerified() || response.GetTokens() != nil {
			t.Errorf("got %v, want the account, verified, and no other session", response)
		}
	}
	h.mustRefresh(t, before.GetRefreshToken(), "")
	h.wantMails(t)
	if n := h.count(t, "SELECT count(*) FROM auth.sessions WHERE account_id = $1", account.GetId()); n != 1 {
		t.Errorf("there are %d sessions, want 1", n)
	}
	if _, err := h.login(t, "ada@example.com", password); err != nil {
		t.Errorf("Login: %v", err)
	}
}

// A link of a verified account, as a second registration brings it, resets the
// password: its owner learns of that.
func TestRegisteringAVerifiedAccountWithAnotherPasswordSendsAMail(t *testing.T) {
	t.Parallel()
	h := newHarness(t, byLink)
	h.register(t, "ada@example.com")
	h.verifyWith(t, &authv1.VerifyEmailRequest{Token: h.mailed(t, "verify_email", "ada@example.com").Token, Password: password})
	h.wantMails(t)
	h.register(t, "ada@example.com")
	h.verifyWith(t, &authv1.VerifyEmailRequest{Token: h.mailed(t, "account_exists", "ada@example.com").Token, Password: strings.ToUpper(newPassword)})
	h.wantMails(t, "password_changed ada@example.com")
}
