// Package passkeytest is an authenticator for tests: it answers the options of
// passkey ceremonies as a browser would, and every part of its answers can be
// falsified.
package passkeytest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"maps"
	"testing"

	"github.com/fxamacker/cbor/v2"
)

// Algorithms of COSE keys (RFC 9053, RFC 8812).
const (
	ES256 = -7
	EdDSA = -8
	RS256 = -257
	RS384 = -258
)

// Flags of authenticator data (Web Authentication Level 3, section 6.1).
const (
	UserPresent    = 1 << 0
	UserVerified   = 1 << 2
	BackupEligible = 1 << 3
	BackedUp       = 1 << 4
	attested       = 1 << 6
	extended       = 1 << 7
)

// Key is one passkey of an authenticator.
type Key struct {
	ID        []byte
	Algorithm int
	// UserHandle is the user.id of the registration.
	UserHandle []byte
	// Counter is what the next answer states.
	Counter uint32
	AAGUID  [16]byte
	// Flags are set in each answer.
	Flags byte

	private crypto.Signer
}

// New returns a key of a synchronised passkey, which verifies its user and counts no
// signatures.
func New(t testing.TB, algorithm int) *Key {
	t.Helper()
	key := &Key{ID: make([]byte, 32), Algorithm: algorithm, Flags: UserPresent | UserVerified | BackupEligible | BackedUp}
	_, _ = rand.Read(key.ID)
	var err error
	switch algorithm {
	case EdDSA:
		_, key.private, err = ed25519.GenerateKey(rand.Reader)
	case ES256:
		key.private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	default:
		key.private, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// Answer is the parts of an answer before they are signed and encoded. A test changes
// what it wants to falsify.
type Answer struct {
	// ClientData is encoded as JSON.
	ClientData map[string]any
	// RPIDHash, Flags, Counter and Rest are the authenticator data, in this order.
	RPIDHash []byte
	Flags    byte
	Counter  uint32
	Rest     []byte
	// Data replaces the authenticator data.
	Data []byte
	// Extensions are the client's extension outputs.
	Extensions map[string]any
	// Response is added to the member "response"; Outer, beside it.
	Response, Outer map[string]any
	// Signer signs instead of the key.
	Signer *Key
	// Signature changes the signature.
	Signature func([]byte) []byte
}

// Change falsifies an answer.
type Change func(*Answer)

// Options are what the tests read of options for a browser.
type Options struct {
	Challenge string `json:"challenge"`
	RPID      string `json:"rpId"`
	RP        struct {
		ID string `json:"id"`
	} `json:"rp"`
	User struct {
		ID          string `json:"id"`
		Name        string `json:"name"`
		DisplayName string `json:"displayName"`
	} `json:"user"`
	Excluded []Descriptor `json:"excludeCredentials"`
	Allowed  []Descriptor `json:"allowCredentials"`
}

// Descriptor names a passkey.
type Descriptor struct {
	ID string `json:"id"`
}

// Parse decodes options.
func Parse(t testing.TB, options []byte) Options {
	t.Helper()
	var found Options
	if err := json.Unmarshal(options, &found); err != nil {
		t.Fatalf("options %s: %v", options, err)
	}
	return found
}

// Names reports whether the descriptors name the key.
func (k *Key) Names(descriptors []Descriptor) bool {
	for _, descriptor := range descriptors {
		if descriptor.ID == encode(k.ID) {
			return true
		}
	}
	return false
}

// Register answers creation options, without attestation, at an origin.
func (k *Key) Register(t testing.TB, options []byte, origin string, changes ...Change) []byte {
	t.Helper()
	asked := Parse(t, options)
	k.UserHandle = decode(t, asked.User.ID)
	answer := k.answer("webauthn.create", asked.Challenge, asked.RP.ID, origin)
	answer.Flags |= attested
	answer.Rest = k.credentialData(t)
	answer.Extensions = map[string]any{"credProps": map[string]any{"rk": true}}
	for _, change := range changes {
		change(answer)
	}
	clientData, data := answer.encode(t)
	attestation := encodeCBOR(t, map[string]any{"fmt": "none", "attStmt": map[string]any{}, "authData": data})
	return k.result(t, answer, map[string]any{
		"clientDataJSON": encode(clientData), "attestationObject": encode(attestation), "transports": []string{"internal"},
	})
}

// SignIn answers request options at an origin.
func (k *Key) SignIn(t testing.TB, options []byte, origin string, changes ...Change) []byte {
	t.Helper()
	asked := Parse(t, options)
	answer := k.answer("webauthn.get", asked.Challenge, asked.RPID, origin)
	for _, change := range changes {
		change(answer)
	}
	clientData, data := answer.encode(t)
	hash := sha256.Sum256(clientData)
	signer := k
	if answer.Signer != nil {
		signer = answer.Signer
	}
	signature := signer.sign(t, append(append([]byte{}, data...), hash[:]...))
	if answer.Signature != nil {
		signature = answer.Signature(signature)
	}
	return k.result(t, answer, map[string]any{
		"clientDataJSON": encode(clientData), "authenticatorData": encode(data), "signature": encode(signature), "userHandle": encode(k.UserHandle),
	})
}

func (k *Key) answer(kind, challenge, rpID, origin string) *Answer {
	hash := sha256.Sum256([]byte(rpID))
	return &Answer{
		ClientData: map[string]any{"type": kind, "challenge": challenge, "origin": origin, "crossOrigin": false},
		RPIDHash:   hash[:], Flags: k.Flags, Counter: k.Counter, Extensions: map[string]any{}, Response: map[string]any{}, Outer: map[string]any{},
	}
}

func (a *Answer) encode(t testing.TB) (clientData, data []byte) {
	t.Helper()
	clientData = encodeJSON(t, a.ClientData)
	if a.Data != nil {
		return clientData, a.Data
	}
	data = append(append([]byte{}, a.RPIDHash...), a.Flags)
	data = binary.BigEndian.AppendUint32(data, a.Counter)
	return clientData, append(data, a.Rest...)
}

func (k *Key) result(t testing.TB, answer *Answer, response map[string]any) []byte {
	t.Helper()
	maps.Copy(response, answer.Response)
	result := map[string]any{
		"id": encode(k.ID), "rawId": encode(k.ID), "type": "public-key", "response": response, "clientExtensionResults": answer.Extensions,
	}
	maps.Copy(result, answer.Outer)
	for name, value := range result {
		if value == nil {
			delete(result, name)
		}
	}
	return encodeJSON(t, result)
}

// WithExtensionData adds extension outputs to the authenticator data.
func WithExtensionData(t testing.TB, outputs any) Change {
	return func(a *Answer) {
		a.Flags |= extended
		a.Rest = append(append([]byte{}, a.Rest...), encodeCBOR(t, outputs)...)
	}
}

func (k *Key) credentialData(t testing.TB) []byte {
	t.Helper()
	data := append([]byte{}, k.AAGUID[:]...)
	data = binary.BigEndian.AppendUint16(data, uint16(len(k.ID)))
	data = append(data, k.ID...)
	return append(data, k.PublicKey(t)...)
}

// PublicKey is the COSE key (RFC 9052, section 7).
func (k *Key) PublicKey(t testing.TB) []byte {
	t.Helper()
	key := map[int]any{3: k.Algorithm}
	switch public := k.private.Public().(type) {
	case ed25519.PublicKey:
		key[1], key[-1], key[-2] = 1, 6, []byte(public)
	case *ecdsa.PublicKey:
		point, err := public.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		key[1], key[-1], key[-2], key[-3] = 2, 1, point[1:33], point[33:]
	case *rsa.PublicKey:
		key[1], key[-1], key[-2] = 3, public.N.Bytes(), []byte{1, 0, 1}
	}
	return encodeCBOR(t, key)
}

func (k *Key) sign(t testing.TB, message []byte) []byte {
	t.Helper()
	var signature []byte
	var err error
	switch digest := sha256.Sum256(message); k.Algorithm {
	case EdDSA:
		signature, err = k.private.Sign(rand.Reader, message, crypto.Hash(0))
	case RS384:
		long := sha512.Sum384(message)
		signature, err = k.private.Sign(rand.Reader, long[:], crypto.SHA384)
	default:
		signature, err = k.private.Sign(rand.Reader, digest[:], crypto.SHA256)
	}
	if err != nil {
		t.Fatal(err)
	}
	return signature
}

func encodeJSON(t testing.TB, value any) []byte {
	t.Helper()
	encoded, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return encoded
}

func encodeCBOR(t testing.TB, value any) []byte {
	t.Helper()
	mode, err := cbor.CTAP2EncOptions().EncMode()
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := mode.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return encoded
}

func encode(raw []byte) string { return base64.RawURLEncoding.EncodeToString(raw) }

func decode(t testing.TB, text string) []byte {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
