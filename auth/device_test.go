package auth_test

import (
	"testing"
	"time"

	"gatehouse/internal/fault"
)

func TestStrangersDoNotLockOutAKnownDevice(t *testing.T) {
	t.Parallel()
	h := newHarness(t, throttled)
	account, _ := h.signUp(t, "ada@example.com")
	h.signUp(t, "bob@example.com")
	signedIn, err := h.try(t.Context(), "ada@example.com", password, "198.51.100.1", "")
	if err != nil {
		t.Fatal(err)
	}
	device := signedIn.GetDeviceToken()
	foreign, err := h.try(t.Context(), "bob@example.com", password, "198.51.100.1", "")
	if err != nil {
		t.Fatal(err)
	}
	for range 6 {
		_, _ = h.try(t.Context(), "ada@example.com", "wrong password", "203.0.113.7", "")
		h.passWaits(t)
	}
	_, _ = h.try(t.Context(), "ada@example.com", "wrong password", "203.0.113.7", "")
	h.holdWaits(t)
	_, err = h.try(t.Context(), "ada@example.com", password, "198.51.100.1", "")
	wantWait(t, "without a device token", err, time.Minute, 2*time.Hour)
	for name, token := range map[string]string{
		"another account's": foreign.GetDeviceToken(), "garbage": "ghd_garbage", "a changed one": device[:len(device)-2] + "AA",
		"a refresh token": signedIn.GetTokens().GetRefreshToken(),
	} {
		_, err = h.try(t.Context(), "ada@example.com", password, "198.51.100.1", token)
		wantWait(t, name+" device token", err, time.Minute, 2*time.Hour)
	}
	again, err := h.try(t.Context(), "ada@example.com", password, "203.0.113.7", device) // even from the strangers' address
	if err != nil {
		t.Fatalf("the known device: %v", err)
	}
	if again.GetDeviceToken() != device {
		t.Error("the known device got another token")
	}
	if n := h.count(t, "SELECT count(DISTINCT device_id) FROM auth.sessions WHERE account_id = $1", account.GetId()); n != 2 {
		t.Errorf("%d devices are noted, want 2: where she signed up, and the known one", n)
	}
	// The strangers' count stands: she hasn't cleared it for them.
	_, err = h.try(t.Context(), "ada@example.com", password, "198.51.100.1", "")
	wantWait(t, "a stranger after her", err, time.Minute, 2*time.Hour)
}

// A device token that is stolen gives five guesses, not as many as one likes.
func TestADevicesOwnFailuresWait(t *testing.T) {
	t.Parallel()
	h := newHarness(t, throttled)
	h.signUp(t, "ada@example.com")
	signedIn, err := h.try(t.Context(), "ada@example.com", password, "", "")
	if err != nil {
		t.Fatal(err)
	}
	device := signedIn.GetDeviceToken()
	guesses := 0
	for range 30 {
		_, err := h.try(t.Context(), "ada@example.com", "wrong password", "", device)
		if fault.Reason(err) == "TOO_MANY_ATTEMPTS" {
			break
		}
		guesses++
		h.holdWaits(t)
	}
	if guesses != 10 {
		t.Errorf("%d guesses were looked at, want 5 for the device and 5 for the account", guesses)
	}
	_, err = h.try(t.Context(), "ada@example.com", password, "", device)
	wantWait(t, "the device", err, time.Minute, 20*time.Hour)
}

func TestDeviceTokensOfAnOlderSecretKeyCount(t *testing.T) {
	t.Parallel()
	h := newHarness(t, throttled)
	h.signUp(t, "ada@example.com")
	signedIn, err := h.try(t.Context(), "ada@example.com", password, "", "")
	if err != nil {
		t.Fatal(err)
	}
	config := h.config
	config.Secrets = [][]byte{secretTwo, secretOne}
	h.open(t, config)
	renewed, err := h.try(t.Context(), "ada@example.com", password, "", signedIn.GetDeviceToken())
	if err != nil {
		t.Fatal(err)
	}
	if renewed.GetDeviceToken() == signedIn.GetDeviceToken() {
		t.Error("the sign-in did not issue a device token with the newest key")
	}
	if n := h.count(t, "SELECT count(DISTINCT device_id) FROM auth.sessions"); n != 2 { // and that of the sign-up
		t.Errorf("the sessions have %d devices, want the same one for both keys", n)
	}
}
