// Package apikey owns the format of API keys: auth makes them, and the gateway reads
// them.
//
// A key is "ghk_", the key's id, "_", 256 random bits and a checksum. The checksum
// lets a scanner of source code recognise keys without false alarms, and the gateway
// refuse a typing error without a query.
package apikey

import (
	"crypto/sha256"
	"encoding/base64"
	"hash/crc32"
	"strings"

	"github.com/google/uuid"
)

const (
	// Prefix begins every key.
	Prefix = "ghk_"
	// Pattern is a regular expression that matches keys (RE2 syntax).
	Pattern = `ghk_[0-9A-Za-z_-]{22}_[0-9A-Za-z_-]{43}[0-9A-Za-z]{6}`

	idLength       = 22
	secretLength   = 43
	checksumLength = 6
	length         = len(Prefix) + idLength + 1 + secretLength + checksumLength
)

// Hash is the SHA-256 of a key's text. A key has 256 random bits, so that a slow hash
// would add nothing.
type Hash [sha256.Size]byte

// HashOf returns the hash of a text.
func HashOf(text string) Hash { return sha256.Sum256([]byte(text)) }

// Format returns the text of a key.
func Format(id uuid.UUID, secret [32]byte) string {
	text := Prefix + base64.RawURLEncoding.EncodeToString(id[:]) + "_" + base64.RawURLEncoding.EncodeToString(secret[:])
	return text + checksum(text)
}

// IsKey reports whether a credential claims to be an API key.
func IsKey(text string) bool { return strings.HasPrefix(text, Prefix) }

// Parse returns the id in a key's text. ok is false for a text that is no key.
func Parse(text string) (id uuid.UUID, ok bool) {
	if len(text) != length || !IsKey(text) || text[len(Prefix)+idLength] != '_' {
		return uuid.UUID{}, false
	}
	body := text[:length-checksumLength]
	if text[len(body):] != checksum(body) {
		return uuid.UUID{}, false
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text[len(Prefix) : len(Prefix)+idLength])
	if err != nil || len(raw) != len(id) {
		return uuid.UUID{}, false
	}
	return uuid.UUID(raw), true
}

const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// checksum returns the CRC-32 (IEEE) of a text in base62, with leading zeros.
func checksum(text string) string {
	sum := crc32.ChecksumIEEE([]byte(text))
	var digits [checksumLength]byte
	for i := range digits {
		digits[checksumLength-1-i] = base62[sum%62]
		sum /= 62
	}
	return string(digits[:])
}
