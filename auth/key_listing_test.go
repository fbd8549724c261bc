package auth_test

import (
	"testing"
	"time"

	authv1 "gatehouse/gen/auth/v1"
)

// The key that signs, the one that follows and the one that is retired are each told apart,
// with their times on Postgres' clock.
func TestSigningKeysAreListedWithTheirStates(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.run(t)
	list := func() map[string]*authv1.SigningKey {
		answer, err := authv1.NewKeyServiceClient(h.client).ListSigningKeys(t.Context(), &authv1.ListSigningKeysRequest{})
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]*authv1.SigningKey{}
		for _, key := range answer.GetKeys() {
			found[key.GetKid()] = key
		}
		return found
	}
	first := h.kid(t)
	if got := list()[first]; got.GetState() != authv1.SigningKeyState_SIGNING_KEY_STATE_SIGNING || got.GetReplaceTime().AsTime().Sub(got.GetSignTime().AsTime()) != 30*24*time.Hour {
		t.Errorf("the only key is %v, want one that signs for 30 days", got)
	}

	h.exec(t, "UPDATE auth.signing_keys SET sign_time = now() - interval '30 days' + interval '10 minutes'")
	next := h.untilKeys(t, 2)[0].KID
	h.pollTwice(t)
	keys := list()
	if got := keys[first].GetState(); got != authv1.SigningKeyState_SIGNING_KEY_STATE_SIGNING {
		t.Errorf("the first key is %v before the turn of the next", got)
	}
	if got := keys[next]; got.GetState() != authv1.SigningKeyState_SIGNING_KEY_STATE_NEXT || !got.GetSignTime().AsTime().After(time.Now()) {
		t.Errorf("the second key is %v, want the next with its time", got)
	}

	h.exec(t, "UPDATE auth.signing_keys SET sign_time = now() WHERE kid = $1", next)
	h.untilSigns(t, next)
	keys = list()
	if got := keys[first].GetState(); got != authv1.SigningKeyState_SIGNING_KEY_STATE_RETIRED {
		t.Errorf("the first key is %v after the turn of the next", got)
	}
	if got := keys[next].GetState(); got != authv1.SigningKeyState_SIGNING_KEY_STATE_SIGNING {
		t.Errorf("the second key is %v after its turn", got)
	}
}
