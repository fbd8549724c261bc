package auth_test

import (
	"errors"
	"slices"
	"sync"
	"testing"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"

	"gatehouse/auth"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/fault"
)

func TestARegistrationByLinkMakesTheAccountOnceTheLinkIsUsed(t *testing.T) {
	t.Parallel()
	receiver := newReceiver()
	h := newHarness(t, byLink, func(c *auth.Config) { c.Users = receiver.client(t) })
	if got := h.register(t, "ada@example.com"); !proto.Equal(got, &authv1.CreateAccountResponse{VerificationSent: true}) {
		t.Errorf("got %v, want verification_sent alone", got)
	}
	if n := h.count(t, "SELECT count(*) FROM auth.accounts"); n != 0 {
		t.Fatalf("%d accounts were made before the link was used", n)
	}
	mail := h.mailed(t, "verify_email", "ada@example.com")
	id := newID(t)
	response, err := h.links.VerifyEmail(t.Context(), &authv1.VerifyEmailRequest{Token: mail.Token, Password: newPassword, AccountId: id})
	if err != nil {
		t.Fatalf("VerifyEmail: %v", err)
	}
	if got := response.GetAccount(); got.GetId() != id || got.GetEmail() != "ada@example.com" || !got.GetEmailVerified() || len(got.GetRoles()) != 0 {
		t.Errorf("got the account %v", got)
	}
	h.mustRefresh(t, response.GetTokens().GetRefreshToken(), "")
	received := receiver.received()
	if len(received) != 1 || received[0].GetAccountId() != id || received[0].GetPresent().GetFirstName() != "" || received[0].GetPresent().GetLastName() != "" {
		t.Errorf("users received %v, want no name that a stranger may have chosen", received)
	}
	_, err = h.login(t, "ada@example.com", password)
	wantReason(t, err, connect.CodeUnauthenticated, "CREDENTIALS_INVALID")
	if _, err := h.login(t, "ada@example.com", newPassword); err != nil {
		t.Errorf("Login with the password that the link's holder chose: %v", err)
	}
	h.wantMails(t, "new_sign_in ada@example.com") // the Login without a device token
}

func TestAWeakPasswordLeavesTheLinkAsItIs(t *testing.T) {
	t.Parallel()
	h := newHarness(t, byLink)
	tokens, _ := h.newLinks(t)
	_, err := h.links.VerifyEmail(t.Context(), &authv1.VerifyEmailRequest{Token: tokens["register"], Password: "short", AccountId: newID(t)})
	wantReason(t, err, connect.CodeInvalidArgument, "PASSWORD_TOO_SHORT")
	_, err = h.links.ResetPassword(t.Context(), &authv1.ResetPasswordRequest{Token: tokens["reset"], NewPassword: "short"})
	wantReason(t, err, connect.CodeInvalidArgument, "PASSWORD_TOO_SHORT")
	if _, err := h.verify(t, tokens["register"]); err != nil {
		t.Errorf("VerifyEmail: %v", err)
	}
	if err := h.reset(t, tokens["reset"]); err != nil {
		t.Errorf("ResetPassword: %v", err)
	}
}

func TestTheHolderOfTheLinkTakesOverTheAccountWithItsEmail(t *testing.T) {
	t.Parallel()
	h := newHarness(t, byLink)
	account, before := h.signedUp(t, "Ada@example.com")
	h.register(t, "ada@EXAMPLE.com")
	mail := h.mailed(t, "account_exists", "Ada@example.com") // as the account spells it
	response, err := h.verify(t, mail.Token)
	if err != nil {
		t.Fatalf("VerifyEmail: %v", err)
	}
	if got := response.GetAccount(); got.GetId() != account.GetId() || !got.GetEmailVerified() || got.GetEmail() != "Ada@example.com" {
		t.Errorf("got the account %v, want %s, verified", got, account.GetId())
	}
	_, err = h.refresh(t, before.GetRefreshToken(), "")
	wantReason(t, err, connect.CodeUnauthenticated, "SESSION_ENDED")
	h.mustRefresh(t, response.GetTokens().GetRefreshToken(), "")
	_, err = h.login(t, "ada@example.com", password)
	wantReason(t, err, connect.CodeUnauthenticated, "CREDENTIALS_INVALID")
	if n := h.count(t, "SELECT count(*) FROM auth.revocations r JOIN auth.sessions s ON s.id = r.session_id WHERE s.account_id = $1", account.GetId()); n != 1 {
		t.Errorf("%d sessions' access tokens were revoked, want 1", n)
	}
	h.wantMails(t) // using the link sends no mail
}

// Somebody registers another's email where nobody has to show that it is theirs.
func TestAnAttackersEarlierRegistrationGainsNothing(t *testing.T) {
	t.Parallel()
	h := newHarness(t, withMail)
	attacker, tokens := h.signUp(t, "victim@example.com")
	if attacker.GetEmailVerified() {
		t.Error("an email that nobody verified is called verified")
	}
	response, err := h.verify(t, h.mailed(t, "verify_email", "victim@example.com").Token)
	if err != nil {
		t.Fatalf("VerifyEmail: %v", err)
	}
	if !response.GetAccount().GetEmailVerified() {
		t.Error("the email is not verified")
	}
	_, err = h.refresh(t, tokens.GetRefreshToken(), "")
	wantReason(t, err, connect.CodeUnauthenticated, "SESSION_ENDED")
	_, err = h.login(t, "victim@example.com", password)
	wantReason(t, err, connect.CodeUnauthenticated, "CREDENTIALS_INVALID")
	if _, err := h.login(t, "victim@example.com", newPassword); err != nil {
		t.Errorf("the victim can't sign in: %v", err)
	}
}

func TestOpenRegistrationSendsALinkIfItMakesAnAccount(t *testing.T) {
	t.Parallel()
	h := newHarness(t, withMail)
	h.signUp(t, "ada@example.com")
	h.wantMails(t, "verify_email ada@example.com")
	_, err := h.accounts.CreateAccount(t.Context(), &authv1.CreateAccountRequest{AccountId: newID(t), Email: "ADA@example.com", Password: password, SignIn: true})
	wantReason(t, err, connect.CodeAlreadyExists, "EMAIL_TAKEN")
	h.wantMails(t)

	mailless := newHarness(t)
	mailless.signUp(t, "ada@example.com")
	if n := mailless.count(t, "SELECT (SELECT count(*) FROM auth.links) + (SELECT count(*) FROM auth.mails)"); n != 0 {
		t.Errorf("%d links and mails were written that can't be sent", n)
	}
}

func TestAVerificationCanBeAskedForAgain(t *testing.T) {
	t.Parallel()
	h := newHarness(t, withMail)
	account, _ := h.signUp(t, "ada@example.com")
	h.mailed(t, "verify_email", "ada@example.com")
	send := func() error {
		_, err := h.links.SendVerification(t.Context(), &authv1.SendVerificationRequest{Origin: &authv1.Origin{AccountId: account.GetId(), Locale: "de-AT"}})
		return err
	}
	if err := send(); err != nil {
		t.Fatalf("SendVerification: %v", err)
	}
	mail := h.mailed(t, "verify_email", "ada@example.com")
	if mail.Locale != "de-AT" || mail.Account != account.GetId() {
		t.Errorf("got the mail %+v, want it in de-AT and for the account", mail)
	}
	if _, err := h.verify(t, mail.Token); err != nil {
		t.Fatalf("VerifyEmail: %v", err)
	}
	if err := send(); err != nil {
		t.Errorf("SendVerification once verified: %v", err)
	}
	h.wantMails(t)
	_, err := h.links.SendVerification(t.Context(), &authv1.SendVerificationRequest{Origin: &authv1.Origin{AccountId: newID(t)}})
	wantReason(t, err, connect.CodeNotFound, "USER_NOT_FOUND")
}

// Two links from two registrations of one email, used at the same time.
func TestTwoRegistrationsOfAnEmailMakeOneAccount(t *testing.T) {
	t.Parallel()
	h := newHarness(t, byLink)
	for round := range 5 {
		email := string(rune('a'+round)) + "@example.com"
		h.register(t, email)
		h.register(t, email)
		sent := h.wantMails(t, "verify_email "+email, "verify_email "+email)
		errs := make([]error, len(sent))
		var wait sync.WaitGroup
		for i, mail := range sent {
			wait.Go(func() { _, errs[i] = h.verify(t, mail.Token) })
		}
		wait.Wait()
		// The second to come finds that the first has ended its link.
		failure := errors.Join(errs...)
		if (errs[0] == nil) == (errs[1] == nil) || fault.Reason(failure) != "LINK_SUPERSEDED" {
			t.Errorf("got %v, want one to win and one LINK_SUPERSEDED", errs)
		}
		if n := h.count(t, "SELECT count(*) FROM auth.accounts WHERE email = $1", email); n != 1 {
			t.Errorf("%d accounts have %s, want 1", n, email)
		}
	}
}

func TestARegistrationEndsWhenRegistrationIsClosed(t *testing.T) {
	t.Parallel()
	h := newHarness(t, byLink)
	h.register(t, "ada@example.com")
	token := h.mailed(t, "verify_email", "ada@example.com").Token
	closed := h.config
	closed.Registration = auth.RegistrationClosed
	h.open(t, closed)
	_, err := h.verify(t, token)
	wantReason(t, err, connect.CodePermissionDenied, "REGISTRATION_CLOSED")
}

func TestAnInvitedPersonChoosesTheirPassword(t *testing.T) {
	t.Parallel()
	h := newHarness(t, withMail, func(c *auth.Config) { c.Registration = auth.RegistrationClosed })
	invite := func(h *harness, email string) (*authv1.Account, error) {
		response, err := h.accounts.CreateAccount(t.Context(), &authv1.CreateAccountRequest{
			AccountId: newID(t), Email: email, Roles: []string{"editor"}, Profile: &authv1.ProfileSeed{FirstName: "Ada", Locale: "fr"},
			Origin: &authv1.Origin{AccountId: newID(t), Locale: "de", IpAddress: "192.0.2.1"},
		})
		return response.GetAccount(), err
	}
	account, err := invite(h, "ada@example.com")
	if err != nil || account.GetEmailVerified() {
		t.Fatalf("invite: got %v, %v", account, err)
	}
	for _, guess := range []string{password, " "} {
		_, err = h.login(t, "ada@example.com", guess)
		wantReason(t, err, connect.CodeUnauthenticated, "CREDENTIALS_INVALID")
	}
	mail := h.mailed(t, "invitation", "ada@example.com")
	if mail.Locale != "fr" || mail.Account != account.GetId() || mail.Values["ip_address"] != "" {
		t.Errorf("got the mail %+v, want it in the profile's language and without the administrator's address", mail)
	}
	response, err := h.verify(t, mail.Token)
	if err != nil {
		t.Fatalf("VerifyEmail: %v", err)
	}
	if got := response.GetAccount(); got.GetId() != account.GetId() || !got.GetEmailVerified() || !slices.Equal(got.GetRoles(), []string{"editor"}) {
		t.Errorf("got the account %v, want the invited one, verified, with its roles", got)
	}
	if _, err := h.login(t, "ada@example.com", newPassword); err != nil {
		t.Errorf("Login: %v", err)
	}
	h.wantMails(t, "new_sign_in ada@example.com") // of the Login alone: nobody had a password before

	_, err = invite(h, "ada@example.com")
	wantReason(t, err, connect.CodeAlreadyExists, "EMAIL_TAKEN")
	h.wantMails(t)

	mailless := newHarness(t)
	_, err = invite(mailless, "ada@example.com")
	wantReason(t, err, connect.CodeFailedPrecondition, "MAIL_UNAVAILABLE")
	if n := mailless.count(t, "SELECT count(*) FROM auth.accounts"); n != 0 {
		t.Error("an account was made whose owner can't be told")
	}
}

func TestWithoutMailWhatNeedsItSaysSo(t *testing.T) {
	t.Parallel()
	h := newHarness(t, func(c *auth.Config) { c.Registration = auth.RegistrationVerify })
	account, _ := h.signedUp(t, "ada@example.com")
	origin := h.origin(t, account)
	for name, call := range map[string]func() error{
		"register": func() error {
			_, err := h.accounts.CreateAccount(t.Context(), &authv1.CreateAccountRequest{AccountId: newID(t), Email: "b@example.com", Password: password, SignIn: true})
			return err
		},
		"RequestPasswordReset": func() error {
			_, err := h.links.RequestPasswordReset(t.Context(), &authv1.RequestPasswordResetRequest{Email: "ada@example.com"})
			return err
		},
		"RequestEmailChange": func() error {
			_, err := h.links.RequestEmailChange(t.Context(), &authv1.RequestEmailChangeRequest{NewEmail: "b@example.com", Origin: origin})
			return err
		},
		"SendVerification": func() error {
			_, err := h.links.SendVerification(t.Context(), &authv1.SendVerificationRequest{Origin: origin})
			return err
		},
		"ForcePasswordReset": func() error {
			_, err := h.accounts.ForcePasswordReset(t.Context(), &authv1.ForcePasswordResetRequest{AccountId: account.GetId()})
			return err
		},
	} {
		if err := call(); connect.CodeOf(err) != connect.CodeFailedPrecondition || fault.Reason(err) != "MAIL_UNAVAILABLE" {
			t.Errorf("%s: got %v, want MAIL_UNAVAILABLE", name, err)
		}
	}
	if _, err := h.login(t, "ada@example.com", password); err != nil {
		t.Errorf("Login: %v", err)
	}
}
