package auth_test

import (
	"testing"
)

// The owner is told of a sign-in on a device that isn't known, and not of the
// first one, nor of those on a known device.
func TestASignInOnAnUnknownDeviceIsToldByMail(t *testing.T) {
	t.Parallel()
	h := newHarness(t, withMail)
	account, _ := h.signUp(t, "ada@example.com")
	told := func() int {
		return h.count(t, "SELECT count(*) FROM auth.mails WHERE kind = 'new_sign_in' AND recipient = 'ada@example.com' AND account_id = $1", account.GetId())
	}
	if n := told(); n != 0 {
		t.Errorf("%d mails about the sign-up, want none", n)
	}
	unknown, err := h.try(t.Context(), "ada@example.com", password, "203.0.113.7", "")
	if err != nil {
		t.Fatal(err)
	}
	if n := told(); n != 1 {
		t.Errorf("%d mails about the unknown device, want 1", n)
	}
	if _, err := h.try(t.Context(), "ada@example.com", password, "203.0.113.8", unknown.GetDeviceToken()); err != nil {
		t.Fatal(err)
	}
	_, _ = h.try(t.Context(), "ada@example.com", "wrong password", "203.0.113.9", "")
	if n := told(); n != 1 {
		t.Errorf("%d mails after a known device and a wrong password, want still 1", n)
	}
}
