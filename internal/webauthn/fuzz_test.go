package webauthn_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"testing"

	"gatehouse/internal/passkeytest"
	"gatehouse/internal/webauthn"
)

// Fuzzing finds no signature that a key did not make: whatever the input, it must be
// refused, and refused properly. scripts/fuzz.sh runs these for longer.

// parts are the binary members of a response.
type parts struct{ ClientDataJSON, AuthenticatorData, Signature, AttestationObject string }

func partsOf(response []byte) (found parts) {
	var whole struct{ Response parts }
	_ = json.Unmarshal(response, &whole)
	return whole.Response
}

func decoded(text string) []byte {
	raw, _ := base64.RawURLEncoding.DecodeString(text)
	return raw
}

func wantRefusal(t *testing.T, response []byte, err error) {
	t.Helper()
	if !errors.Is(err, webauthn.ErrRefused) {
		t.Errorf("%q: %v, want a refusal", response, err)
	}
}

func FuzzResponse(f *testing.F) {
	p := party(f)
	key := passkeytest.New(f, passkeytest.EdDSA)
	made := register(f, p, key)
	signIn, registration := begin(f)(p.BeginSignIn()), begin(f)(p.BeginRegistration(ada, nil))
	fresh := passkeytest.New(f, passkeytest.EdDSA)
	for _, c := range passkeytest.Hostile(rpID, origin) {
		f.Add(c.Apply(func(changes ...passkeytest.Change) []byte { return key.SignIn(f, signIn.Options, origin, changes...) }))
		f.Add(c.Apply(func(changes ...passkeytest.Change) []byte {
			return fresh.Register(f, registration.Options, origin, changes...)
		}))
	}
	signIn, registration = begin(f)(p.BeginSignIn()), begin(f)(p.BeginRegistration(ada, nil))
	f.Fuzz(func(t *testing.T, response []byte) {
		_, err := verify(p, signIn.State, response, made.Record)
		wantRefusal(t, response, err)
		_, err = p.FinishRegistration(ada.ID, registration.State, response)
		wantRefusal(t, response, err)
	})
}

func FuzzAssertion(f *testing.F) {
	p := party(f)
	key, other := passkeytest.New(f, passkeytest.ES256), passkeytest.New(f, passkeytest.EdDSA)
	made := register(f, p, key)
	begun := begin(f)(p.BeginSignIn())
	valid := key.SignIn(f, begun.Options, origin)
	for _, c := range append(passkeytest.Hostile(rpID, origin), passkeytest.HostileSignatures(other)...) {
		found := partsOf(c.Apply(func(changes ...passkeytest.Change) []byte { return key.SignIn(f, begun.Options, origin, changes...) }))
		f.Add(decoded(found.ClientDataJSON), decoded(found.AuthenticatorData), decoded(found.Signature))
	}
	signed := partsOf(valid)
	f.Fuzz(func(t *testing.T, clientData, data, signature []byte) {
		if string(clientData) == string(decoded(signed.ClientDataJSON)) && string(data) == string(decoded(signed.AuthenticatorData)) {
			return // ECDSA signatures of the right message may be found by negation
		}
		response := withParts(t, valid, map[string][]byte{"clientDataJSON": clientData, "authenticatorData": data, "signature": signature})
		_, err := verify(p, begun.State, response, made.Record)
		wantRefusal(t, response, err)
	})
}

func FuzzRegistration(f *testing.F) {
	p := party(f)
	begun := begin(f)(p.BeginRegistration(ada, nil))
	key := passkeytest.New(f, passkeytest.ES256)
	valid := key.Register(f, begun.Options, origin)
	for _, c := range append(passkeytest.Hostile(rpID, origin), passkeytest.HostileRegistrations(f)...) {
		found := partsOf(c.Apply(func(changes ...passkeytest.Change) []byte { return key.Register(f, begun.Options, origin, changes...) }))
		f.Add(decoded(found.ClientDataJSON), decoded(found.AttestationObject))
	}
	f.Fuzz(func(t *testing.T, clientData, attestation []byte) {
		response := withParts(t, valid, map[string][]byte{"clientDataJSON": clientData, "attestationObject": attestation})
		// An attestation of none is not signed: another valid key is accepted.
		if _, err := p.FinishRegistration(ada.ID, begun.State, response); err != nil {
			wantRefusal(t, response, err)
		}
	})
}

// withParts replaces binary members of a response.
func withParts(t *testing.T, response []byte, members map[string][]byte) []byte {
	t.Helper()
	var whole map[string]any
	if err := json.Unmarshal(response, &whole); err != nil {
		t.Fatal(err)
	}
	for name, value := range members {
		whole["response"].(map[string]any)[name] = base64.RawURLEncoding.EncodeToString(value)
	}
	encoded, err := json.Marshal(whole)
	if err != nil {
		t.Fatal(err)
	}
	return encoded
}
