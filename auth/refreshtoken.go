package auth

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/google/uuid"

	"gatehouse/internal/opaque"
)

// A refresh token is "ghr_" and base64url of the session's id (16 bytes), its
// generation (4 bytes, big-endian) and a MAC over both (HMAC-SHA-256, RFC
// 2104). It is a function of these and the secret key: the answer to a repeated
// refresh is computed again, while only its hash is kept.
type refreshToken struct {
	session    uuid.UUID
	generation int32 // from 1
	// keyAge is the place of its key among the secret keys, 0 for the newest; set
	// by authentic.
	keyAge int
}

type tokenHash [sha256.Size]byte

const (
	refreshPrefix  = "ghr_"
	refreshPayload = 16 + 4
	refreshLength  = refreshPayload + sha256.Size
)

// refreshKeys are the MAC keys, newest first, with the ids of the secret keys
// that they come from.
type refreshKeys []refreshKey

type refreshKey struct {
	id  string
	mac []byte
}

func newRefreshKeys(secrets [][]byte) (refreshKeys, error) {
	var keys refreshKeys
	for _, secret := range secrets {
		id, err := keyID(secret)
		if err != nil {
			return nil, err
		}
		mac, err := derive(secret, "refresh token v1")
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

// issue returns the token's text under the newest key, and that key's id.
func (k refreshKeys) issue(token refreshToken) (text, keyID string) {
	return k[0].text(token), k[0].id
}

// again returns the token's text under the key with the id, and whether that
// key is still there.
func (k refreshKeys) again(token refreshToken, id string) (string, bool) {
	for _, key := range k {
		if key.id == id {
			return key.text(token), true
		}
	}
	return "", false
}

// authentic returns the token that the text says, if one of the keys made it. A
// text that is not a token's one spelling is no token.
func (k refreshKeys) authentic(text string) (refreshToken, bool) {
	raw, ok := opaque.Decode(refreshPrefix, text)
	if !ok || len(raw) != refreshLength {
		return refreshToken{}, false
	}
	for i, key := range k {
		if hmac.Equal(key.sign(raw[:refreshPayload]), raw[refreshPayload:]) {
			token := refreshToken{generation: int32(binary.BigEndian.Uint32(raw[16:refreshPayload])), keyAge: i}
			copy(token.session[:], raw)
			return token, token.generation >= 1
		}
	}
	return refreshToken{}, false
}

func (k refreshKey) text(token refreshToken) string {
	raw := make([]byte, 0, refreshLength)
	raw = append(raw, token.session[:]...)
	raw = binary.BigEndian.AppendUint32(raw, uint32(token.generation))
	raw = append(raw, k.sign(raw)...)
	return opaque.Encode(refreshPrefix, raw)
}

func (k refreshKey) sign(payload []byte) []byte {
	return macOf(k.mac, payload)
}

func hashOf(text string) tokenHash { return sha256.Sum256([]byte(text)) }
