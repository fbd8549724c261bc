package emailcode

import (
	"crypto/rand"
	"crypto/subtle"
	"strings"
)

const (
	// letters are those that are not mistaken for each other, without vowels, so that
	// no code is a word.
	letters = "BCDFGHJKMNPQRSTVWXYZ23456789"
	length  = 8
)

// New returns a random code of 38 bits, which nobody guesses in five tries.
func New() string {
	var code strings.Builder
	for code.Len() < length {
		var one [1]byte
		_, _ = rand.Read(one[:]) // never fails
		if int(one[0]) < 256-256%len(letters) {
			code.WriteByte(letters[int(one[0])%len(letters)])
		}
	}
	return code.String()
}

// Normal returns a code as New does, from what somebody typed: in any case, with spaces
// and dashes.
func Normal(typed string) string {
	return strings.ToUpper(strings.Join(strings.FieldsFunc(typed, func(r rune) bool { return r == ' ' || r == '-' || r == '\t' || r == '\n' || r == '\r' }), ""))
}

// Same compares a code with what somebody typed.
func Same(code, typed string) bool {
	return subtle.ConstantTimeCompare([]byte(code), []byte(Normal(typed))) == 1
}
