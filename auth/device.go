package auth

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"strings"

	"github.com/google/uuid"
)

// A device token is "ghd_" and base64url of the device's id (16 bytes), the
// account's (16 bytes) and a MAC over both (HMAC-SHA-256, RFC 2104). A device
// gets one when an account signs in on it. Shown at the next sign-in, it lets
// failures count for the device instead of the account, and nothing else.
const (
	devicePrefix  = "ghd_"
	devicePayload = 16 + 16
	deviceLength  = devicePayload + sha256.Size
)

// deviceKeys are the MAC keys, newest first.
type deviceKeys [][]byte

// issue returns the token of the account's device under the newest key.
func (k deviceKeys) issue(device, account uuid.UUID) string {
	raw := make([]byte, 0, deviceLength)
	raw = append(raw, device[:]...)
	raw = append(raw, account[:]...)
	raw = append(raw, macOf(k[0], raw)...)
	return devicePrefix + base64.RawURLEncoding.EncodeToString(raw)
}

// device returns which of the account's devices the token names, if one of the
// keys made it for this very account.
func (k deviceKeys) device(text, account string) (uuid.UUID, bool) {
	encoded, ok := strings.CutPrefix(text, devicePrefix)
	if !ok {
		return uuid.UUID{}, false
	}
	// Strict: one token has one spelling.
	raw, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	if err != nil || len(raw) != deviceLength {
		return uuid.UUID{}, false
	}
	for _, key := range k {
		if hmac.Equal(macOf(key, raw[:devicePayload]), raw[devicePayload:]) {
			return uuid.UUID(raw[:16]), uuid.UUID(raw[16:devicePayload]).String() == account
		}
	}
	return uuid.UUID{}, false
}
