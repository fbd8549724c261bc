package auth_test

import (
	"crypto/rand"
	"fmt"
	mathrand "math/rand/v2"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/fault"
	"gatehouse/internal/passkeytest"
)

// A passkey that was deleted and one that never existed get the same answer in the same
// time, so that nobody learns from a credential id whether somebody used it here.
func TestNobodyLearnsWhichPasskeysExisted(t *testing.T) {
	t.Parallel()
	h := newPasskeyHarness(t)
	ada := h.newOwner(t, "ada@example.com")
	deleted, made := ada.register(t, passkeytest.EdDSA)
	ada.register(t, passkeytest.EdDSA)
	if _, err := h.passkeys.DeletePasskey(t.Context(), &authv1.DeletePasskeyRequest{PasskeyId: made.GetPasskey().GetPasskeyId(), Origin: ada.origin}); err != nil {
		t.Fatal(err)
	}
	random := make([]*passkeytest.Key, 100)
	for i := range random {
		random[i] = passkeytest.New(t, passkeytest.EdDSA)
		random[i].ID, random[i].UserHandle = make([]byte, 16+mathrand.N(48)), deleted.UserHandle
		_, _ = rand.Read(random[i].ID)
	}
	var first string
	send := func(key *passkeytest.Key) time.Duration {
		owed := h.begin(t)
		response := key.SignIn(t, toJSON(t, owed.GetPasskeyOptions()), passkeyOrigin)
		start := time.Now()
		_, err := h.send(t, owed, response)
		took := time.Since(start)
		answer := fmt.Sprint(connect.CodeOf(err), err, fault.Reason(err))
		if first == "" {
			first = answer
		}
		if answer != first || fault.Reason(err) != "PASSKEY_UNKNOWN" {
			t.Fatalf("got %q after %q, want PASSKEY_UNKNOWN every time", answer, first)
		}
		return took
	}
	// See TestNobodyLearnsWhoHasAnAccount for the number of samples and of tries.
	var seen []float64
	for range 2 {
		var existed, never []time.Duration
		for _, i := range mathrand.Perm(2 * samples) {
			if i < samples {
				existed = append(existed, send(deleted))
			} else {
				never = append(never, send(random[i%len(random)]))
			}
		}
		area := areaUnderCurve(existed, never)
		t.Logf("area %.3f; medians %v of a deleted passkey, %v of %d random ids", area, median(existed), median(never), len(random))
		if area > 0.45 && area < 0.55 {
			return
		}
		seen = append(seen, area)
	}
	t.Errorf("the time of %d calls a side tells which passkeys existed: areas %.3f, want 0.45 to 0.55", samples, seen)
}
