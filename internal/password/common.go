package password

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"sort"

	"golang.org/x/text/cases"
)

//go:generate go run ./gen common.bin

// common holds the first bytes of the SHA-256 of each common password, folded,
// sorted. It is made by gen from the list of @zxcvbn-ts/language-common (MIT),
// which comes from leaks of many sites.
//
//go:embed common.bin
var common []byte

// prefixLength is the length of the stored hash prefixes. The probability of a false positive
// is about one in ten million.
const prefixLength = 5

// Common reports whether the password is among the most common ones, in any
// case.
func Common(password string) bool {
	sum := sha256.Sum256([]byte(Fold(password)))
	prefix := sum[:prefixLength]
	count := len(common) / prefixLength
	at := func(i int) []byte { return common[i*prefixLength : (i+1)*prefixLength] }
	i := sort.Search(count, func(i int) bool { return bytes.Compare(at(i), prefix) >= 0 })
	return i < count && bytes.Equal(at(i), prefix)
}

// Fold returns the password as it compares without regard to case.
func Fold(password string) string { return cases.Fold().String(Normal(password)) }
