package auth_test

import (
	"testing"

	"connectrpc.com/connect/v2"

	authv1 "gatehouse/gen/auth/v1"
)

func TestAResetEndsEverySessionAndVerifiesTheEmail(t *testing.T) {
	t.Parallel()
	h := newHarness(t, withMail)
	account, tokens := h.signUp(t, "Ada@example.com")
	h.mailed(t, "verify_email", "Ada@example.com")
	_, err := h.links.RequestPasswordReset(t.Context(), &authv1.RequestPasswordResetRequest{
		Email: "ada@EXAMPLE.com", Origin: &authv1.Origin{IpAddress: "192.0.2.7", UserAgent: "curl", RequestId: "r-1", Locale: "de"},
	})
	if err != nil {
		t.Fatalf("RequestPasswordReset: %v", err)
	}
	// To the account's own spelling: the asker's may be another's mailbox.
	mail := h.mailed(t, "reset_password", "Ada@example.com")
	if mail.Account != account.GetId() || mail.Locale != "de" || mail.Values["ip_address"] != "192.0.2.7" || mail.Values["user_agent"] != "curl" || mail.Values["time"] == "" {
		t.Errorf("got the mail %+v, want it to say who asked", mail)
	}
	if n := h.count(t, `SELECT count(*) FROM auth.audit_events WHERE event = 'link.send' AND account_id = $1 AND ip_address = '192.0.2.7' AND request_id = 'r-1'`, account.GetId()); n != 1 {
		t.Errorf("the account's audit has %d rows of who asked, want 1", n)
	}
	if _, err := h.login(t, "ada@example.com", password); err != nil {
		t.Errorf("the old password, before the link is used: %v", err)
	}
	if err := h.reset(t, mail.Token); err != nil {
		t.Fatalf("ResetPassword: %v", err)
	}
	if n := h.liveSessions(t); n != 0 {
		t.Errorf("%d sessions outlived the reset", n)
	}
	_, err = h.refresh(t, tokens.GetRefreshToken(), "")
	wantReason(t, err, connect.CodeUnauthenticated, "SESSION_ENDED")
	_, err = h.login(t, "ada@example.com", password)
	wantReason(t, err, connect.CodeUnauthenticated, "CREDENTIALS_INVALID")
	response, err := h.login(t, "ada@example.com", newPassword)
	if err != nil || !response.GetAccount().GetEmailVerified() {
		t.Errorf("Login with the new password: got %v, %v, want a verified email", response.GetAccount(), err)
	}
	if notice := h.mailed(t, "password_changed", "Ada@example.com"); notice.Token != "" || notice.Account != account.GetId() {
		t.Errorf("got the notice %+v", notice)
	}
}

func TestAResetSendsNothingToADisabledAccountOrToNone(t *testing.T) {
	t.Parallel()
	h := newHarness(t, byLink)
	account, _ := h.signedUp(t, "ada@example.com")
	h.exec(t, "UPDATE auth.accounts SET status = 'disabled' WHERE id = $1", account.GetId())
	for _, email := range []string{"ada@example.com", "nobody@example.com"} {
		h.requestReset(t, email)
	}
	h.register(t, "ada@example.com")
	h.wantMails(t)
	if n := h.count(t, "SELECT count(*) FROM auth.links WHERE account_id IS NOT NULL"); n != 0 {
		t.Errorf("%d links were given to an account", n)
	}
}

// A copy of auth dies after the mail is sent and before that is noted.
func TestAMailThatIsAddressedAgainSaysTheSame(t *testing.T) {
	t.Parallel()
	h := newHarness(t, byLink)
	account, _ := h.signedUp(t, "ada@example.com")
	h.requestReset(t, "ada@example.com")
	h.register(t, "ada@example.com")
	first := h.addressAll(t)
	second := h.addressAll(t)
	if len(first) != 2 || len(second) != 2 {
		t.Fatalf("got %d and then %d mails, want 2", len(first), len(second))
	}
	for i := range first {
		a, b := first[i], second[i]
		if a.Kind != b.Kind || a.To != b.To || a.Token != b.Token || a.Account != account.GetId() || b.Account != account.GetId() {
			t.Errorf("got %+v and then %+v, want the same", a, b)
		}
	}
	if n := h.count(t, "SELECT count(*) FROM auth.audit_events WHERE event = 'link.send'"); n != 2 {
		t.Errorf("the audit has %d rows of two links, want 2", n)
	}
}

func TestAForcedResetTakesThePasswordAwayAndSendsALink(t *testing.T) {
	t.Parallel()
	h := newHarness(t, byLink)
	account, tokens := h.signedUp(t, "ada@example.com")
	force := func(id string) (*authv1.Account, error) {
		response, err := h.accounts.ForcePasswordReset(t.Context(), &authv1.ForcePasswordResetRequest{
			AccountId: id, Origin: &authv1.Origin{AccountId: newID(t), IpAddress: "192.0.2.1", Locale: "de"},
		})
		return response.GetAccount(), err
	}
	for range 2 { // the second time without a password
		if got, err := force(account.GetId()); err != nil || got.GetId() != account.GetId() {
			t.Fatalf("ForcePasswordReset: got %v, %v", got, err)
		}
		_, err := h.refresh(t, tokens.GetRefreshToken(), "")
		wantReason(t, err, connect.CodeUnauthenticated, "SESSION_ENDED")
		_, err = h.login(t, "ada@example.com", password)
		wantReason(t, err, connect.CodeUnauthenticated, "CREDENTIALS_INVALID")
		mail := h.mailed(t, "reset_password", "ada@example.com")
		if mail.Locale != "" || mail.Values["ip_address"] != "" {
			t.Errorf("got the mail %+v, want nothing of the administrator's", mail)
		}
		if err := h.reset(t, mail.Token); err != nil {
			t.Fatalf("ResetPassword: %v", err)
		}
		if _, err := h.login(t, "ada@example.com", newPassword); err != nil {
			t.Errorf("Login: %v", err)
		}
		h.post(t)
	}

	invited := h.create(t, "bob@example.com", "")
	h.mailed(t, "invitation", "bob@example.com")
	if _, err := force(invited.GetId()); err != nil {
		t.Fatalf("ForcePasswordReset of an invited account: %v", err)
	}
	if _, err := h.verify(t, h.mailed(t, "invitation", "bob@example.com").Token); err != nil {
		t.Errorf("VerifyEmail: %v", err)
	}
	_, err := force(newID(t))
	wantReason(t, err, connect.CodeNotFound, "USER_NOT_FOUND")
	if n := h.count(t, "SELECT count(*) FROM auth.audit_events WHERE event = 'account.password.force' AND outcome = 'succeeded' AND actor_id IS NOT NULL"); n != 3 {
		t.Errorf("the audit has %d forced resets, want 3", n)
	}
}
