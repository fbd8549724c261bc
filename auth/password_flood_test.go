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

// burstDelay is how long a password check may wait in a burst, as in internal/password.
const burstDelay = 3 * time.Second

// unlessStarved makes a call, and repeats it if it was refused because the machine computed
// fewer than some hashes while it waited for as long as a burst may: other programs take the
// processor then. A queue that refuses a burst early, or lets others overtake, still fails.
func (h *harness) unlessStarved(t *testing.T, hashes int64, call func(ctx context.Context) error) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for starved := false; ; {
		begin, before := time.Now(), h.service.HashesForTest()
		err := call(ctx)
		starved = starved || time.Since(begin) >= burstDelay
		computed := h.service.HashesForTest() - before
		if fault.Reason(err) != "TOO_MANY_PASSWORD_CHECKS" || !starved || computed >= hashes {
			return err
		}
		delay, _ := fault.RetryDelay(err)
		t.Logf("refused after %d hashes, repeated: %v", computed, err)
		select {
		case <-ctx.Done():
			return err
		case <-time.After(delay):
		}
	}
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
		call func(ctx context.Context, p person) error
	}{
		{"sign-in on a known device", func(ctx context.Context, p person) error {
			_, err := h.try(ctx, p.account.GetEmail(), password, "203.0.113.1", p.device)
			return err
		}},
		{"reauthentication", func(ctx context.Context, p person) error {
			_, err := h.sessions.Reauthenticate(ctx, &authv1.ReauthenticateRequest{Password: password, Origin: p.origin})
			return err
		}},
		{"account made by an administrator", func(ctx context.Context, p person) error {
			_, err := h.accounts.CreateAccount(ctx, &authv1.CreateAccountRequest{
				AccountId: newID(t), Email: "new." + p.account.GetEmail(), Password: newPassword, Origin: p.origin,
			})
			return err
		}},
		{"change of a password", func(ctx context.Context, p person) error {
			_, err := h.accounts.ChangePassword(ctx, &authv1.ChangePasswordRequest{CurrentPassword: password, NewPassword: newPassword, Origin: p.origin})
			return err
		}},
	} {
		answered := 0
		for i, err := range together(people, func(i int) error {
			return h.unlessStarved(t, 4*people, func(ctx context.Context) error { return test.call(ctx, known[i]) })
		}) {
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
		return copies[i%2].unlessStarved(t, 10, func(ctx context.Context) error {
			_, err := copies[i%2].accounts.CreateAccount(ctx, &authv1.CreateAccountRequest{
				AccountId: newID(t), Email: fmt.Sprintf("person%d@example.com", i), Password: password, SignIn: true,
				Origin: &authv1.Origin{IpAddress: "203.0.113.7"},
			})
			return err
		})
	}) {
		if err != nil {
			t.Errorf("sign-up %d: %v (%v)", i, err, connect.CodeOf(err))
		}
	}
}
