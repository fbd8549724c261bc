// Package opaque spells tokens that only their maker can read: a prefix that
// says what kind it is, and base64url of some bytes.
//
// A token has exactly one spelling. A MAC covers the bytes and a stored hash the
// text, so with two spellings of the same bytes the two checks would disagree
// about whether a token is genuine. [base64.Encoding.Strict] alone does not give
// that: it skips carriage returns and line feeds.
package opaque

import (
	"encoding/base64"
	"strings"
)

// Encode returns the token of the bytes.
func Encode(prefix string, raw []byte) string {
	return prefix + base64.RawURLEncoding.EncodeToString(raw)
}

// Decode returns the token's bytes, and whether the text is the spelling that
// [Encode] gives them.
func Decode(prefix, text string) ([]byte, bool) {
	encoded, ok := strings.CutPrefix(text, prefix)
	if !ok {
		return nil, false
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	if err != nil || Encode(prefix, raw) != text {
		return nil, false
	}
	return raw, true
}
