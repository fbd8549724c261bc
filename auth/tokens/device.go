package tokens

import (
	"crypto/hmac"
	"crypto/sha256"

	"github.com/google/uuid"

	"gatehouse/auth/secretkey"
	"gatehouse/internal/opaque"
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

// DeviceKeys are the MAC keys, newest first.
type DeviceKeys [][]byte

// NewDeviceKeys derives the keys from the secret keys, newest first.
func NewDeviceKeys(secrets [][]byte) (DeviceKeys, error) {
	return secretkey.DeriveEach(secrets, "device token v1")
}

// Issue returns the token of the account's device under the newest key.
func (k DeviceKeys) Issue(device, account uuid.UUID) string {
	raw := make([]byte, 0, deviceLength)
	raw = append(raw, device[:]...)
	raw = append(raw, account[:]...)
	raw = append(raw, secretkey.MAC(k[0], raw)...)
	return opaque.Encode(devicePrefix, raw)
}

// Verify returns which of the account's devices the token names, if one of the
// keys made it for this very account.
func (k DeviceKeys) Verify(text, account string) (uuid.UUID, bool) {
	raw, ok := opaque.Decode(devicePrefix, text)
	if !ok || len(raw) != deviceLength {
		return uuid.UUID{}, false
	}
	for _, key := range k {
		if hmac.Equal(secretkey.MAC(key, raw[:devicePayload]), raw[devicePayload:]) {
			return uuid.UUID(raw[:16]), uuid.UUID(raw[16:devicePayload]).String() == account
		}
	}
	return uuid.UUID{}, false
}
