package auth_test

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"math"
	"testing"
	"time"

	authv1 "gatehouse/gen/auth/v1"
)

// minutesSince is how many minutes of the clock have been touched since then.
func minutesSince(start time.Time) int {
	return int(time.Now().Truncate(time.Minute).Sub(start.Truncate(time.Minute))/time.Minute) + 1
}

func TestRepeatedRefusalsAreOneRowAMinuteWithTheirCount(t *testing.T) {
	t.Parallel()
	h := newHarness(t, withMail, throttled)
	account, tokens := h.signUp(t, "ada@example.com")
	if _, err := h.sessions.Logout(t.Context(), &authv1.LogoutRequest{RefreshToken: tokens.GetRefreshToken()}); err != nil {
		t.Fatal(err)
	}
	const calls = 300
	for _, test := range []struct {
		name, where string
		call        func(i int) error
	}{
		{"an ended token", "event = 'session.refresh' AND account_id IS NOT NULL", func(i int) error {
			_, err := h.sessions.Refresh(t.Context(), &authv1.RefreshRequest{
				RefreshToken: tokens.GetRefreshToken(), Origin: &authv1.Origin{IpAddress: fmt.Sprintf("203.0.%d.7", i%100)},
			})
			return err
		}},
		{"unknown links of one network", "event = 'link.reset'", func(i int) error {
			secret := make([]byte, 32)
			_, _ = rand.Read(secret)
			_, err := h.links.ResetPassword(t.Context(), &authv1.ResetPasswordRequest{
				Token: "ghl_" + base64.RawURLEncoding.EncodeToString(secret), NewPassword: newPassword,
				Origin: &authv1.Origin{IpAddress: fmt.Sprintf("2001:db8::%x", i+1)},
			})
			return err
		}},
	} {
		start := time.Now()
		for i := range calls {
			if err := test.call(i); err == nil {
				t.Fatalf("%s: call %d was not refused", test.name, i)
			}
		}
		if n := h.count(t, "SELECT coalesce(sum(count), 0) FROM auth.audit_events WHERE outcome = 'refused' AND "+test.where); n != calls {
			t.Errorf("%s: the audit counts %d refusals, want %d", test.name, n, calls)
		}
		if n, most := h.count(t, "SELECT count(*) FROM auth.audit_events WHERE outcome = 'refused' AND "+test.where), minutesSince(start); n > most {
			t.Errorf("%s: %d refusals left %d rows, want at most %d", test.name, calls, n, most)
		}
	}
	response, err := h.audit.ListAuditEvents(t.Context(), &authv1.ListAuditEventsRequest{AccountId: account.GetId()})
	if err != nil {
		t.Fatal(err)
	}
	var listed int32
	for _, event := range response.GetEvents() {
		if event.GetCount() < 1 {
			t.Errorf("%s has the count %d, want 1 at least", event.GetEvent(), event.GetCount())
		}
		if event.GetEvent() == "session.refresh" {
			listed += event.GetCount()
		}
	}
	if listed != calls {
		t.Errorf("the list tells of %d refused refreshes, want %d", listed, calls)
	}
}

// Guesses at ever new emails, of which few are looked at, leave few rows.
func TestAFloodOfGuessesAtManyEmailsLeavesFewRows(t *testing.T) {
	t.Parallel()
	h := newHarness(t, throttled)
	h.signUp(t, "person3@example.com")
	const guesses = 300
	start := time.Now()
	for i := range guesses {
		_, _ = h.try(t.Context(), fmt.Sprintf("person%d@example.com", i), "wrong password", "203.0.113.7", "")
	}
	rows, refusals := h.count(t, "SELECT count(*) FROM auth.audit_events WHERE outcome = 'refused'"), h.count(t, "SELECT sum(count) FROM auth.audit_events WHERE outcome = 'refused'")
	looked := 5 + int(math.Log2(time.Since(start).Seconds()+1))
	if most := looked + minutesSince(start); rows > most || refusals != guesses {
		t.Errorf("%d rows count %d refusals, want at most %d rows and %d refusals", rows, refusals, most, guesses)
	}
	if n := h.count(t, "SELECT count(*) FROM auth.audit_events WHERE reason = 'TOO_MANY_ATTEMPTS' AND account_id IS NOT NULL"); n != 0 {
		t.Errorf("%d refusals of a whole network name an account", n)
	}
}

// Refusals of several networks, accounts and reasons stay apart.
func TestRefusalsOfDifferentKindsAreDifferentRows(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	for _, address := range []string{"203.0.113.7", "203.0.113.8"} {
		for _, event := range []func(){
			func() {
				_, _ = h.links.ResetPassword(t.Context(), &authv1.ResetPasswordRequest{Token: "ghl_x", NewPassword: newPassword, Origin: &authv1.Origin{IpAddress: address}})
			},
			func() {
				_, _ = h.links.ConfirmEmailChange(t.Context(), &authv1.ConfirmEmailChangeRequest{Token: "ghl_x", Origin: &authv1.Origin{IpAddress: address}})
			},
		} {
			event()
		}
	}
	if n := h.count(t, "SELECT count(DISTINCT (event, ip_address)) FROM auth.audit_events WHERE outcome = 'refused'"); n != 4 {
		t.Errorf("%d kinds of refusals have a row, want 4", n)
	}
}
