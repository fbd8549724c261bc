// Package flowtoken derives what a provider sees of a visit from what only the client
// that began it knows.
package flowtoken

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
)

// State is the OAuth state of the visit with a token. It does not reveal the token.
func State(token string) string {
	sum := sha256.Sum256([]byte("state v1:" + token))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// Matches reports whether a state is that of the token's visit.
func Matches(token, state string) bool {
	return token != "" && subtle.ConstantTimeCompare([]byte(State(token)), []byte(state)) == 1
}
