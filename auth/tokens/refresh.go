// Package tokens makes and verifies the opaque tokens that clients hold: refresh
// tokens and device tokens. Both are a payload with a MAC under a key that is
// derived from a secret key.
package tokens

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/google/uuid"

	"gatehouse/auth/secretkey"
	"gatehouse/internal/opaque"
)

// Refresh is a refresh token: "ghr_" and base64url of the session's id (16 bytes), its
// generation (4 bytes, big-endian) and a MAC over both (HMAC-SHA-256, RFC
// 2104). It is a function of these and the secret key: the answer to a repeated
// refresh is computed again, while only its hash is kept.
type Refresh struct {
	Session    uuid.UUID
	Generation int32 // from 1
	// KeyAge is the place of its key among the secret keys, 0 for the newest; set
	// by Verify.
	KeyAge int
}

// Hash is a SHA-256 hash of a token, which is what the database stores.
type Hash [sha256.Size]byte

const (
	refreshPrefix  = "ghr_"
	refreshPayload = 16 + 4
	refreshLength  = refreshPayload + sha256.Size
)

// RefreshKeys are the MAC keys, newest first, with the ids of the secret keys
// that they come from.
type RefreshKeys []refreshKey

type refreshKey struct {
	id  string
	mac []byte
}

// NewRefreshKeys derives the keys from the secret keys, newest first.
func NewRefreshKeys(secrets [][]byte) (RefreshKeys, error) {
	var keys RefreshKeys
	for _, secret := range secrets {
		id, err := secretkey.ID(secret)
		if err != nil {
			return nil, err
		}
		mac, err := secretkey.Derive(secret, "refresh token v1")
		if err != nil {
			return nil, err
		}
		keys = append(keys, refreshKey{id: id, mac: mac})
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("no secret key")
	}
	return keys, nil
}

// Issue returns the token's text under the newest key, and that key's id.
func (k RefreshKeys) Issue(token Refresh) (text, keyID string) {
	return k[0].text(token), k[0].id
}

// Reissue returns the token's text under the key with the id, and whether that
// key is still there.
func (k RefreshKeys) Reissue(token Refresh, id string) (string, bool) {
	for _, key := range k {
		if key.id == id {
			return key.text(token), true
		}
	}
	return "", false
}

// Verify returns the token that the text says, if one of the keys made it. A
// text that is not a token's one spelling is no token.
func (k RefreshKeys) Verify(text string) (Refresh, bool) {
	raw, ok := opaque.Decode(refreshPrefix, text)
	if !ok || len(raw) != refreshLength {
		return Refresh{}, false
	}
	for i, key := range k {
		if hmac.Equal(key.sign(raw[:refreshPayload]), raw[refreshPayload:]) {
			token := Refresh{Generation: int32(binary.BigEndian.Uint32(raw[16:refreshPayload])), KeyAge: i}
			copy(token.Session[:], raw)
			return token, token.Generation >= 1
		}
	}
	return Refresh{}, false
}

// NotOlder reports whether a verified token was made with the key with the id or a
// newer one.
func (k RefreshKeys) NotOlder(token Refresh, id string) bool {
	for i, key := range k { // newest first
		if key.id == id {
			return token.KeyAge <= i
		}
	}
	return false
}

func (k refreshKey) text(token Refresh) string {
	raw := make([]byte, 0, refreshLength)
	raw = append(raw, token.Session[:]...)
	raw = binary.BigEndian.AppendUint32(raw, uint32(token.Generation))
	raw = append(raw, k.sign(raw)...)
	return opaque.Encode(refreshPrefix, raw)
}

func (k refreshKey) sign(payload []byte) []byte {
	return secretkey.MAC(k.mac, payload)
}

// HashOf returns the hash of a token.
func HashOf(text string) Hash { return sha256.Sum256([]byte(text)) }
