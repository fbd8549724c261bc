// Package totp computes and checks time-based one-time passwords (RFC 6238) of 20-byte
// secrets: SHA-1, 6 digits, steps of 30 s, which is what authenticator apps support.
//
// Match returns the step of a code, so that its caller can accept each step once
// (RFC 6238, section 5.2).
package totp

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"net/url"
	"strings"

	"gatehouse/auth/secretkey"
)

const (
	secretSize = 20 // bytes, the length of the HMAC (RFC 4226, section 4, R6)
	digits     = 6
	modulus    = 1_000_000
	// Period is the length of a step, in seconds.
	Period = 30
	// tolerance is how many steps a code may be early or late.
	tolerance = 1
)

// Secret is what an authenticator app and the server share.
type Secret [secretSize]byte

// NewSecret returns a random secret.
func NewSecret() (s Secret) {
	_, _ = rand.Read(s[:]) // never fails
	return s
}

var encoding = base32.StdEncoding.WithPadding(base32.NoPadding)

// String returns the secret in base32, as people type it into an app.
func (s Secret) String() string { return encoding.EncodeToString(s[:]) }

// URI returns the otpauth URI of the secret, which apps read from a QR code. The
// issuer is the name of the site, the account that of the person there.
func (s Secret) URI(issuer, account string) string {
	// The colon separates the issuer from the account. Apps show a plus as it is, so
	// that a space has to be %20.
	issuer = strings.ReplaceAll(issuer, ":", " ")
	values := url.Values{
		"secret": {s.String()}, "issuer": {issuer}, "algorithm": {"SHA1"},
		"digits": {fmt.Sprint(digits)}, "period": {fmt.Sprint(Period)},
	}
	return "otpauth://totp/" + url.PathEscape(issuer) + ":" + url.PathEscape(account) + "?" +
		strings.ReplaceAll(values.Encode(), "+", "%20")
}

// Code returns the code of a step: HOTP (RFC 4226) of the step's number.
func (s Secret) Code(step int64) string {
	mac := hmac.New(sha1.New, s[:])
	var counter [8]byte
	binary.BigEndian.PutUint64(counter[:], uint64(step))
	mac.Write(counter[:])
	sum := mac.Sum(nil)
	offset := sum[len(sum)-1] & 0x0f
	number := binary.BigEndian.Uint32(sum[offset:]) & 0x7fffffff
	return fmt.Sprintf("%0*d", digits, number%modulus)
}

// Match returns which step around the current one the code belongs to, and whether
// there is one. If there are several, it is the latest: a caller that then refuses
// this step and all before it accepts the code once.
func (s Secret) Match(code string, current int64) (step int64, ok bool) {
	code = strings.Join(strings.Fields(code), "") // apps show it in groups
	for candidate := current - tolerance; candidate <= current+tolerance; candidate++ {
		if subtle.ConstantTimeCompare([]byte(s.Code(candidate)), []byte(code)) == 1 {
			step, ok = candidate, true
		}
	}
	return step, ok
}

// sealPurpose is the purpose of sealing; the label is the account's id.
const sealPurpose = "totp v1"

// Seal encrypts the account's secret with a secret key of the system.
func (s Secret) Seal(key []byte, account string) ([]byte, error) {
	return secretkey.Seal(key, sealPurpose, account, s[:])
}

// Open decrypts an account's secret, which one of the keys has sealed. Errors:
// [secretkey.ErrSealed].
func Open(keys [][]byte, account string, sealed []byte) (Secret, error) {
	plain, err := secretkey.Open(keys, sealPurpose, account, sealed)
	if err != nil {
		return Secret{}, err
	}
	if len(plain) != secretSize {
		return Secret{}, fmt.Errorf("a TOTP secret has %d bytes, got %d", secretSize, len(plain))
	}
	return Secret(plain), nil
}
