package auth_test

import (
	"testing"
)

// A sign-in on an unknown device sends a mail to the owner. The first sign-in and
// sign-ins on known devices do not.
func TestASignInOnAnUnknownDeviceSendsAMail(t *testing.T) {
	t.Parallel()
	h := newHarness(t, withMail)
	account, _ := h.signUp(t, "ada@example.com")
	notices := func() int {
		return h.count(t, "SELECT count(*) FROM auth.mails WHERE kind = 'new_sign_in' AND recipient = 'ada@example.com' AND account_id = $1", account.GetId())
	}
	if n := notices(); n != 0 {
		t.Errorf("%d mails about the sign-up, want none", n)
	}
	unknown, err := h.try(t.Context(), "ada@example.com", password, "203.0.113.7", "")
	if err != nil {
		t.Fatal(err)
	}
	if n := notices(); n != 1 {
		t.Errorf("%d mails about the unknown device, want 1", n)
	}
	if _, err := h.try(t.Context(), "ada@example.com", password, "203.0.113.8", unknown.GetDeviceToken()); err != nil {
		t.Fatal(err)
	}
	_, _ = h.try(t.Context(), "ada@example.com", "wrong password", "203.0.113.9", "")
	if n := notices(); n != 1 {
		t.Errorf("%d mails after a known device and a wrong password, want still 1", n)
	}
}
