// Package recovery makes recovery codes and reads them as people type them.
//
// A code is 80 random bits in Crockford's base32 (https://www.crockford.com/base32.html),
// such as 3K7M-Q2XW-09AB-HJ5T. With so many bits, a plain hash is enough to store, and
// a change of the secret key ends no code.
package recovery

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"strings"
)

const (
	// Count is how many codes an account gets at once.
	Count = 10
	// size is that of a code, in bytes.
	size = 10
	// group is how many characters stand between dashes.
	group = 4
)

var encoding = base32.NewEncoding("0123456789ABCDEFGHJKMNPQRSTVWXYZ").WithPadding(base32.NoPadding)

// Hash is what is stored of a code.
type Hash [sha256.Size]byte

// New returns new codes, and the hash of each.
func New() (codes []string, hashes []Hash) {
	for range Count {
		var raw [size]byte
		_, _ = rand.Read(raw[:]) // never fails
		codes, hashes = append(codes, spell(raw[:])), append(hashes, sha256.Sum256(raw[:]))
	}
	return codes, hashes
}

func spell(raw []byte) string {
	text := encoding.EncodeToString(raw)
	var groups []string
	for ; text != ""; text = text[group:] {
		groups = append(groups, text[:group])
	}
	return strings.Join(groups, "-")
}

// unambiguous replaces what people read into the digits 0 and 1, and removes what
// separates groups.
var unambiguous = strings.NewReplacer("O", "0", "I", "1", "L", "1", "-", "", " ", "", "\t", "", "\r", "", "\n", "")

// Parse returns the hash of a code in any case, with or without dashes and spaces, and
// whether the text has the form of a code.
func Parse(text string) (Hash, bool) {
	text = unambiguous.Replace(strings.ToUpper(text))
	raw, err := encoding.DecodeString(text)
	if err != nil || len(text) != encoding.EncodedLen(size) {
		return Hash{}, false
	}
	return sha256.Sum256(raw), true
}
