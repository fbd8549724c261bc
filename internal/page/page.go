// Package page owns page tokens: what a listing gives its caller to continue after a
// position.
//
// A token is base64url of a checksum and the position. The checksum covers the query
// as well, so that a token of another query is refused. It is no secret: a caller who
// forges a token gets a page that they could have walked to.
package page

import (
	"bytes"
	"crypto/sha256"

	"gatehouse/internal/fault"
	"gatehouse/internal/opaque"

	"github.com/google/uuid"
)

// ErrToken is the error for a token that is damaged, or of another query.
var ErrToken = fault.Invalid("PAGE_TOKEN_INVALID", "page_token", "is damaged or of another query: repeat the query that it came from, or begin again without a token")

const sumLength = 16

// Query returns the text that the checksum of a position covers: what the listing
// filters and orders by, and the position.
type Query func(position []byte) []byte

// Token returns the token of the page that begins after a position.
func (q Query) Token(position []byte) string {
	return opaque.Encode("", append(q.sum(position), position...))
}

// Parse returns the position in a token, and whether the token is one of this query.
// The position may have any length.
func (q Query) Parse(token string) (position []byte, ok bool) {
	raw, ok := opaque.Decode("", token)
	if !ok || len(raw) < sumLength {
		return nil, false
	}
	position = raw[sumLength:]
	return position, bytes.Equal(raw[:sumLength], q.sum(position))
}

func (q Query) sum(position []byte) []byte {
	sum := sha256.Sum256(q(position))
	return sum[:sumLength:sumLength]
}

// ParseID returns the id in a page token whose position is one id, and whether the
// token is one of this query's.
func (q Query) ParseID(token string) (uuid.UUID, bool) {
	position, ok := q.Parse(token)
	id, err := uuid.FromBytes(position)
	return id, ok && err == nil
}
