package auth_test

import (
	"sync"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect/v2"

	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/fault"
)

func TestAnEmailChangesOnceTheNewAddressIsShown(t *testing.T) {
	t.Parallel()
	h := newHarness(t, byLink)
	account, tokens := h.signedUp(t, "ada@example.com")
	h.requestEmail(t, account, "lovelace@example.com")
	sent := h.wantMails(t, "confirm_email lovelace@example.com", "email_change_requested ada@example.com")
	confirm, notice := sent[0], sent[1]
	if confirm.Values["new_email"] != "lovelace@example.com" || confirm.Values["old_email"] != "" {
		t.Errorf("the mail to the new address has the values %v, want the new email and not the old one", confirm.Values)
	}
	if notice.Token != "" || notice.Values["new_email"] != "lovelace@example.com" {
		t.Errorf("got the notice %+v, want the new address and no link", notice)
	}
	if _, err := h.login(t, "lovelace@example.com", password); fault.Reason(err) != "CREDENTIALS_INVALID" {
		t.Errorf("Login by the new email, before it is confirmed: %v", err)
	}
	response, err := h.confirm(t, confirm.Token)
	if err != nil {
		t.Fatalf("ConfirmEmailChange: %v", err)
	}
	if got := response.GetAccount(); got.GetId() != account.GetId() || got.GetEmail() != "lovelace@example.com" || !got.GetEmailVerified() {
		t.Errorf("got the account %v", got)
	}
	events := (&reader{harness: h, service: "users"}).next(t).GetEvents()
	if len(events) != 1 || events[0].GetEmail() != "lovelace@example.com" || events[0].GetVersion() != 2 {
		t.Errorf("users reads %v, want the new email", events)
	}
	for _, mail := range h.wantMails(t, "email_changed ada@example.com", "email_changed lovelace@example.com") {
		if mail.Token != "" || mail.Values["old_email"] != "ada@example.com" || mail.Values["new_email"] != "lovelace@example.com" {
			t.Errorf("got the notice %+v", mail)
		}
	}
	h.mustRefresh(t, tokens.GetRefreshToken(), "")
	if _, err := h.login(t, "lovelace@example.com", password); err != nil {
		t.Errorf("Login by the new email: %v", err)
	}
	if n := h.count(t, "SELECT count(*) FROM auth.audit_events WHERE event = 'account.email.change' AND account_id = $1", account.GetId()); n != 1 {
		t.Errorf("the audit has %d changes, want 1", n)
	}
}

func TestAChangeOfEmailNeedsARecentSignIn(t *testing.T) {
	t.Parallel()
	h := newHarness(t, byLink)
	account, _ := h.signedUp(t, "ada@example.com")
	other, _ := h.signedUp(t, "other@example.com")
	origin := h.origin(t, account)
	ask := func(origin *authv1.Origin) error {
		_, err := h.links.RequestEmailChange(t.Context(), &authv1.RequestEmailChangeRequest{NewEmail: "new@example.com", Origin: origin})
		return err
	}
	wantReason(t, ask(&authv1.Origin{AccountId: other.GetId(), SessionId: origin.GetSessionId()}), connect.CodeFailedPrecondition, "REAUTHENTICATION_REQUIRED")
	wantReason(t, ask(&authv1.Origin{AccountId: account.GetId()}), connect.CodeFailedPrecondition, "REAUTHENTICATION_REQUIRED")
	h.exec(t, "UPDATE auth.sessions SET authenticate_time = now() - interval '301 seconds'")
	wantReason(t, ask(origin), connect.CodeFailedPrecondition, "REAUTHENTICATION_REQUIRED")
	h.wantMails(t)
	if n := h.count(t, "SELECT coalesce(sum(count), 0) FROM auth.audit_events WHERE event = 'link.request' AND outcome = 'refused' AND reason = 'REAUTHENTICATION_REQUIRED'"); n != 3 {
		t.Errorf("the audit has %d refusals, want 3", n)
	}
	if _, err := h.sessions.Reauthenticate(t.Context(), &authv1.ReauthenticateRequest{Password: password, Origin: origin}); err != nil {
		t.Fatalf("Reauthenticate: %v", err)
	}
	if err := ask(origin); err != nil {
		t.Errorf("RequestEmailChange: %v", err)
	}
}

func TestANewEmailThatIsTakenIsToldToItsOwnerAlone(t *testing.T) {
	t.Parallel()
	h := newHarness(t, byLink)
	account, _ := h.signedUp(t, "ada@example.com")
	h.create(t, "bob@example.com", password)
	h.requestEmail(t, account, "BOB@example.com")
	sent := h.wantMails(t, "email_in_use BOB@example.com", "email_change_requested ada@example.com")
	if sent[0].Token != "" || sent[0].Values["old_email"] != "" {
		t.Errorf("got the mail %+v, want neither a link nor the asker's email", sent[0])
	}

	h.requestEmail(t, account, "ADA@example.com") // one's own, in another case
	token := h.mailed(t, "confirm_email", "ADA@example.com").Token
	response, err := h.confirm(t, token)
	if err != nil || response.GetAccount().GetEmail() != "ADA@example.com" {
		t.Errorf("ConfirmEmailChange to another case: got %v, %v", response.GetAccount(), err)
	}
}

func TestOfTwoWhoChangeToOneEmailOneGetsIt(t *testing.T) {
	t.Parallel()
	h := newHarness(t, byLink)
	ada, _ := h.signedUp(t, "ada@example.com")
	bob, _ := h.signedUp(t, "bob@example.com")
	for round := range 10 {
		email := string(rune('k'+round)) + "@example.com"
		var tokens []string
		for _, account := range []*authv1.Account{ada, bob} {
			h.requestEmail(t, account, email)
			tokens = append(tokens, h.mailed(t, "confirm_email", email).Token)
		}
		var won atomic.Int32
		var wait sync.WaitGroup
		for _, token := range tokens {
			wait.Go(func() {
				_, err := h.confirm(t, token)
				if err == nil {
					won.Add(1)
				} else if connect.CodeOf(err) != connect.CodeAlreadyExists || fault.Reason(err) != "EMAIL_TAKEN" {
					t.Errorf("ConfirmEmailChange: got %v, want EMAIL_TAKEN", err)
				}
			})
		}
		wait.Wait()
		if won.Load() != 1 {
			t.Errorf("%d of two got %s, want 1", won.Load(), email)
		}
	}
}

func TestALaterChangeOfEmailReplacesTheEarlierOne(t *testing.T) {
	t.Parallel()
	h := newHarness(t, byLink)
	account, _ := h.signedUp(t, "ada@example.com")
	h.requestEmail(t, account, "wrong@example.com")
	first := h.mailed(t, "confirm_email", "wrong@example.com").Token
	h.requestEmail(t, account, "right@example.com")
	second := h.mailed(t, "confirm_email", "right@example.com").Token
	_, err := h.confirm(t, first)
	wantReason(t, err, connect.CodeFailedPrecondition, "LINK_SUPERSEDED")
	if _, err := h.confirm(t, second); err != nil {
		t.Errorf("ConfirmEmailChange: %v", err)
	}
}

func TestAnAdministratorsChangeOfEmailIsToldToBothAddresses(t *testing.T) {
	t.Parallel()
	h := newHarness(t, byLink)
	account, _ := h.signedUp(t, "ada@example.com")
	h.exec(t, "UPDATE auth.accounts SET email_verified = true")
	change := func(email string) *authv1.Account {
		t.Helper()
		response, err := h.accounts.ChangeAccountEmail(t.Context(), &authv1.ChangeAccountEmailRequest{
			AccountId: account.GetId(), Email: email, Origin: &authv1.Origin{AccountId: newID(t), Locale: "de"},
		})
		if err != nil {
			t.Fatalf("ChangeAccountEmail: %v", err)
		}
		return response.GetAccount()
	}
	if got := change("ada@example.com"); !got.GetEmailVerified() {
		t.Error("the same email is not verified any more")
	}
	h.wantMails(t)
	if got := change("lovelace@example.com"); got.GetEmailVerified() || got.GetEmail() != "lovelace@example.com" {
		t.Errorf("got the account %v, want the email, not verified", got)
	}
	for _, mail := range h.wantMails(t, "email_changed ada@example.com", "email_changed lovelace@example.com") {
		if mail.Locale != "" {
			t.Errorf("got a mail in the administrator's language: %+v", mail)
		}
	}
	h.create(t, "bob@example.com", password)
	_, err := h.accounts.ChangeAccountEmail(t.Context(), &authv1.ChangeAccountEmailRequest{AccountId: account.GetId(), Email: "Bob@example.com"})
	wantReason(t, err, connect.CodeAlreadyExists, "EMAIL_TAKEN")
	h.wantMails(t)
}
