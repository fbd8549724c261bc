package auth_test

import (
	"fmt"
	"testing"

	"connectrpc.com/connect/v2"

	"gatehouse/auth"
	authv1 "gatehouse/gen/auth/v1"
)

// askReset asks for a reset from an address. The answer is always the same.
func (h *harness) askReset(t *testing.T, email, address string) {
	t.Helper()
	_, err := h.links.RequestPasswordReset(t.Context(), &authv1.RequestPasswordResetRequest{Email: email, Origin: &authv1.Origin{IpAddress: address}})
	if err != nil {
		t.Fatalf("RequestPasswordReset of %s from %s: %v", email, address, err)
	}
}

// floodResets asks for far more resets than are sent, from several networks.
func (h *harness) floodResets(t *testing.T, email string) {
	t.Helper()
	for i := range 100 {
		h.askReset(t, email, fmt.Sprintf("203.0.%d.7", i%10))
		h.holdWaits(t)
	}
}

// Strangers can't keep a victim from a link, in open mode neither.
func TestAFloodOfResetRequestsLeavesTheOwnerAUsableLink(t *testing.T) {
	t.Parallel()
	for name, mode := range map[string]func(*auth.Config){"open": withMail, "verify": byLink} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, throttled, mode)
			h.create(t, "ada@example.com", password)
			h.floodResets(t, "ADA@example.com")
			if sent := len(h.post(t)); sent < 5 || sent > 21 {
				t.Errorf("the flood of 100 requests sent %d mails, want 5 to 21", sent)
			}
			// The link of the flood's latest mail runs out: the owner gets another.
			h.exec(t, "UPDATE auth.links SET expire_time = now() + interval '1 minute'")
			h.askReset(t, "ada@example.com", "192.0.2.1")
			first := h.mailed(t, "reset_password", "ada@example.com")
			// While it is usable, the owner gets no second one, and it works.
			h.floodResets(t, "ada@example.com")
			h.askReset(t, "ada@example.com", "192.0.2.1")
			h.wantMails(t)
			if err := h.reset(t, first.Token); err != nil {
				t.Errorf("the owner's link after another flood: %v", err)
			}
		})
	}
}

// A network's flood below the recipient's bound takes nothing from others.
func TestANetworksFloodTakesNothingFromOtherNetworks(t *testing.T) {
	t.Parallel()
	h := newHarness(t, throttled, byLink)
	h.create(t, "ada@example.com", password)
	for range 20 {
		h.askReset(t, "ada@example.com", "203.0.113.7")
		h.holdWaits(t)
	}
	if sent := len(h.post(t)); sent != 5 {
		t.Errorf("20 requests of a network sent %d mails, want 5", sent)
	}
	h.askReset(t, "ada@example.com", "192.0.2.1")
	h.mailed(t, "reset_password", "ada@example.com")
	// Another kind of link has a count of its own.
	if _, err := h.accounts.CreateAccount(t.Context(), &authv1.CreateAccountRequest{
		AccountId: newID(t), Email: "ada@example.com", Password: password, SignIn: true, Origin: &authv1.Origin{IpAddress: "203.0.113.7"},
	}); err != nil {
		t.Fatal(err)
	}
	h.mailed(t, "account_exists", "ada@example.com")
}

// Guarantee 5: what is left behind above the bound doesn't depend on an account.
func TestAboveTheBoundAnAccountMakesNoDifference(t *testing.T) {
	t.Parallel()
	h := newHarness(t, throttled, byLink)
	h.create(t, "ada@example.com", password)
	var counts []string
	for _, email := range []string{"ada@example.com", "nobody@example.com"} {
		h.floodResets(t, email)
		for i := range 30 {
			_, err := h.accounts.CreateAccount(t.Context(), &authv1.CreateAccountRequest{
				AccountId: newID(t), Email: email, Password: password, SignIn: true, Origin: &authv1.Origin{IpAddress: fmt.Sprintf("198.51.%d.1", i%3)},
			})
			if err != nil {
				t.Fatalf("register %s: %v", email, err)
			}
			h.holdWaits(t)
		}
		counts = append(counts, fmt.Sprint(
			h.count(t, "SELECT count(*) FROM auth.links WHERE lower(email) = $1", email), " links, ",
			h.count(t, "SELECT count(*) FROM auth.mails WHERE lower(recipient) = $1", email), " mails",
		))
	}
	if counts[0] != counts[1] {
		t.Errorf("with an account there are %s, without %s", counts[0], counts[1])
	}
}

// What is refused, and so sends no mail, is not counted.
func TestWhatSendsNoMailIsNotCounted(t *testing.T) {
	t.Parallel()
	h := newHarness(t, throttled, withMail)
	account, _ := h.signedUp(t, "ada@example.com")
	origin := h.origin(t, account)
	h.exec(t, "DELETE FROM auth.throttles")
	for range 8 {
		_, err := h.accounts.CreateAccount(t.Context(), &authv1.CreateAccountRequest{
			AccountId: newID(t), Email: "ada@example.com", Password: password, SignIn: true, Origin: &authv1.Origin{IpAddress: "203.0.113.7"},
		})
		wantReason(t, err, connect.CodeAlreadyExists, "EMAIL_TAKEN")
	}
	ask := func(email string) error {
		_, err := h.links.RequestEmailChange(t.Context(), &authv1.RequestEmailChangeRequest{NewEmail: email, Origin: origin})
		return err
	}
	h.exec(t, "UPDATE auth.sessions SET authenticate_time = now() - interval '301 seconds'")
	for range 8 {
		wantReason(t, ask("new@example.com"), connect.CodeFailedPrecondition, "REAUTHENTICATION_REQUIRED")
	}
	if n := h.count(t, "SELECT coalesce(max(failures), 0) FROM auth.throttles"); n != 0 {
		t.Errorf("%d mails are counted of which none was sent", n)
	}
}

// Somebody signed in has a count of their own, that strangers can't spend.
func TestASignedInPersonsMailsCountForThemAlone(t *testing.T) {
	t.Parallel()
	h := newHarness(t, throttled, withMail)
	account, _ := h.signedUp(t, "ada@example.com")
	h.floodResets(t, "ada@example.com")
	h.post(t)
	send := func() error {
		_, err := h.links.SendVerification(t.Context(), &authv1.SendVerificationRequest{Origin: &authv1.Origin{AccountId: account.GetId()}})
		return err
	}
	for i := range 5 {
		if err := send(); err != nil {
			t.Fatalf("SendVerification %d: %v", i+1, err)
		}
		h.mailed(t, "verify_email", "ada@example.com")
	}
	h.holdWaits(t)
	wantReason(t, send(), connect.CodeResourceExhausted, "TOO_MANY_ATTEMPTS")
	h.wantMails(t)
}
