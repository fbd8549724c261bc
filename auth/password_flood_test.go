package auth_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/fault"
)

// floodSignIns keeps strangers guessing, from many networks, until what it
// returns is called, which returns how many guesses were refused unlooked-at. It
// returns once the queue refuses strangers.
func (h *harness) floodSignIns(t *testing.T) (end func() int64) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	var refused atomic.Int64
	for i := range 80 {
		group.Go(func() {
			for ctx.Err() == nil {
				_, err := h.try(ctx, fmt.Sprintf("victim%d@example.com", i), "wrong password", fmt.Sprintf("203.0.113.%d", i%8), "")
				if fault.Reason(err) == "TOO_MANY_PASSWORD_CHECKS" {
					refused.Add(1)
				}
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	end = func() int64 { cancel(); group.Wait(); return refused.Load() }
	for deadline := time.Now().Add(30 * time.Second); refused.Load() == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			end()
			t.Fatal("the flood is not refused: it is no flood")
		}
	}
	return end
}

// Guarantees 4 and 12: of a flood of wrong sign-ins, only its like is refused.
func TestAFloodOfSignInsRefusesNobodyWhoIsKnown(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	const people = 8
	type person struct {
		account *authv1.Account
		origin  *authv1.Origin
		device  string
	}
	known := make([]person, people)
	for i := range known {
		account, _ := h.signUp(t, fmt.Sprintf("person%d@example.com", i))
		known[i] = person{account: account, origin: h.origin(t, account)}
		response, err := h.try(t.Context(), account.GetEmail(), password, "192.0.2.1", "")
		if err != nil {
			t.Fatal(err)
		}
		known[i].device = response.GetDeviceToken()
	}
	end := h.floodSignIns(t)
	for _, test := range []struct {
		name string
		call func(p person) error
	}{
		{"sign-in on a known device", func(p person) error {
			_, err := h.try(t.Context(), p.account.GetEmail(), password, "203.0.113.1", p.device)
			return err
		}},
		{"reauthentication", func(p person) error {
			_, err := h.sessions.Reauthenticate(t.Context(), &authv1.ReauthenticateRequest{Password: password, Origin: p.origin})
			return err
		}},
		{"account made by an administrator", func(p person) error {
			_, err := h.accounts.CreateAccount(t.Context(), &authv1.CreateAccountRequest{
				AccountId: newID(t), Email: "new." + p.account.GetEmail(), Password: newPassword, Origin: p.origin,
			})
			return err
		}},
		{"change of a password", func(p person) error {
			_, err := h.accounts.ChangePassword(t.Context(), &authv1.ChangePasswordRequest{CurrentPassword: password, NewPassword: newPassword, Origin: p.origin})
			return err
		}},
	} {
		answered := 0
		for i, err := range together(people, func(i int) error { return test.call(known[i]) }) {
			if err == nil {
				answered++
			} else {
				t.Logf("%s, person %d: %v", test.name, i, err)
			}
		}
		if answered != people {
			t.Errorf("%s: %d of %d were answered during the flood, want all", test.name, answered, people)
		}
	}
	t.Logf("%d sign-ins of the flood were refused unlooked-at", end())
}

// A burst is no flood.
func TestTwentySignUpsAtOnceOnTwoCopiesSucceed(t *testing.T) {
	t.Parallel()
	h := newHarness(t, throttled)
	copies := []*harness{h, h.second(t)}
	for i, err := range together(20, func(i int) error {
		_, err := copies[i%2].accounts.CreateAccount(t.Context(), &authv1.CreateAccountRequest{
			AccountId: newID(t), Email: fmt.Sprintf("person%d@example.com", i), Password: password, SignIn: true,
			Origin: &authv1.Origin{IpAddress: "203.0.113.7"},
		})
		return err
	}) {
		if err != nil {
			t.Errorf("sign-up %d: %v (%v)", i, err, connect.CodeOf(err))
		}
	}
}
