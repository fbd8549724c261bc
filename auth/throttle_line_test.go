package auth_test

import (
	"fmt"
	"sync"
	"testing"

	"connectrpc.com/connect/v2"

	authv1 "gatehouse/gen/auth/v1"
)

// together makes calls at once and returns their errors.
func together(calls int, call func(i int) error) []error {
	errs := make([]error, calls)
	start := make(chan struct{})
	var group sync.WaitGroup
	for i := range calls {
		group.Go(func() { <-start; errs[i] = call(i) })
	}
	close(start)
	group.Wait()
	return errs
}

func (h *harness) second(t *testing.T) *harness {
	t.Helper()
	other := &harness{owner: h.owner}
	other.open(t, h.config)
	return other
}

func (h *harness) wantNoFailures(t *testing.T) {
	t.Helper()
	if n := h.count(t, "SELECT coalesce(max(failures + pending), 0) FROM auth.throttles"); n != 0 {
		t.Errorf("%d failures are counted for those who all succeeded", n)
	}
}

// Failures are counted, not attempts in flight.
func TestSixCorrectSignInsAtOnceForOneAccountSucceed(t *testing.T) {
	t.Parallel()
	h := newHarness(t, throttled)
	h.signUp(t, "ada@example.com")
	copies := []*harness{h, h.second(t)}
	for round := range 3 {
		for i, err := range together(6, func(i int) error {
			_, err := copies[i%2].try(t.Context(), "ada@example.com", password, "", "")
			return err
		}) {
			if err != nil {
				t.Errorf("round %d, sign-in %d: %v", round, i, err)
			}
		}
	}
	h.wantNoFailures(t)
}

func TestPeopleBehindOneAddressSignInAtOnce(t *testing.T) {
	t.Parallel()
	h := newHarness(t, throttled)
	const people = 12
	for i := range people {
		h.signUp(t, fmt.Sprintf("person%d@example.com", i))
	}
	copies := []*harness{h, h.second(t)}
	for i, err := range together(people, func(i int) error {
		_, err := copies[i%2].try(t.Context(), fmt.Sprintf("person%d@example.com", i), password, "203.0.113.7", "")
		return err
	}) {
		if err != nil {
			t.Errorf("person %d: %v", i, err)
		}
	}
	h.wantNoFailures(t)
}

// A known device's attempts wait for each other too.
func TestCorrectPasswordsAtOnceOnOneDeviceSucceed(t *testing.T) {
	t.Parallel()
	h := newHarness(t, throttled)
	account, _ := h.signUp(t, "ada@example.com")
	origin := h.origin(t, account)
	for i, err := range together(8, func(int) error {
		_, err := h.sessions.Reauthenticate(t.Context(), &authv1.ReauthenticateRequest{Password: password, Origin: origin})
		return err
	}) {
		if err != nil {
			t.Errorf("call %d: %v", i, err)
		}
	}
	h.wantNoFailures(t)
}

// An attempt whose process was killed stays a failure and holds up nobody else.
func TestAnAttemptThatNobodySettlesIsAFailure(t *testing.T) {
	t.Parallel()
	h := newHarness(t, throttled)
	h.signUp(t, "ada@example.com")
	for range 5 {
		_, err := h.try(t.Context(), "ada@example.com", "wrong password", "", "")
		wantReason(t, err, connect.CodeUnauthenticated, "CREDENTIALS_INVALID")
	}
	h.exec(t, `UPDATE auth.throttles SET pending = 1, update_time = now() - interval '1 minute', wait_until = now() + interval '1 hour'`)
	_, err := h.try(t.Context(), "ada@example.com", password, "", "")
	wantReason(t, err, connect.CodeResourceExhausted, "TOO_MANY_ATTEMPTS")
	h.passWaits(t)
	if _, err := h.try(t.Context(), "ada@example.com", password, "", ""); err != nil {
		t.Errorf("once the wait is over: %v", err)
	}
}
