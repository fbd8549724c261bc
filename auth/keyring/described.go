package keyring

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	authv1 "gatehouse/gen/auth/v1"
)

// Described returns the public keys with what each is used for, the time from which it signs
// and the time at which it is due to be replaced, the latest to sign first.
func (r *Keyring) Described() []*authv1.SigningKey {
	r.mu.RLock()
	defer r.mu.RUnlock()
	now := time.Now()
	keys := make([]*authv1.SigningKey, len(r.keys))
	past := authv1.SigningKeyState_SIGNING_KEY_STATE_SIGNING // the latest of those that have begun to sign
	for i, key := range r.keys {
		state := authv1.SigningKeyState_SIGNING_KEY_STATE_NEXT
		if !key.signs.After(now) {
			state, past = past, authv1.SigningKeyState_SIGNING_KEY_STATE_RETIRED
		}
		keys[i] = &authv1.SigningKey{
			Kid: key.kid, PublicKey: key.public, State: state,
			SignTime: timestamppb.New(key.signs), ReplaceTime: timestamppb.New(key.signs.Add(r.life)),
		}
	}
	return keys
}
