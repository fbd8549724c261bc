package users

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/google/uuid"

	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/fault"
	"gatehouse/internal/opaque"
)

var errPageToken = fault.Invalid("PAGE_TOKEN_INVALID", "page_token", "is damaged or of another query: repeat the query that it came from, or begin again without a token")

// position is the last profile of a page: the next page begins after it.
type position struct {
	id          uuid.UUID
	createTime  time.Time // set unless the order is by email
	foldedEmail string    // set if the order is by email
}

// A page token is base64url of a checksum, the position's id, and the order's value:
// the email, or the time in microseconds, Postgres' resolution. The checksum also
// covers the listing. It is not secret: a forged token returns a page that the caller
// may read anyway.
const (
	pageSumLength = 16
	pageIDLength  = len(uuid.UUID{})
)

// token returns the page token of the page that begins after p.
func (l listing) token(p position) string {
	place := bytes.Clone(p.id[:])
	if l.order == usersv1.ProfileOrder_PROFILE_ORDER_EMAIL {
		place = append(place, p.foldedEmail...)
	} else {
		place = binary.BigEndian.AppendUint64(place, uint64(p.createTime.UnixMicro()))
	}
	return opaque.Encode("", append(l.sum(place), place...))
}

// parse returns the position in a page token, and whether the token is one of
// this listing's.
func (l listing) parse(token string) (position, bool) {
	raw, ok := opaque.Decode("", token)
	if !ok || len(raw) < pageSumLength+pageIDLength {
		return position{}, false
	}
	place := raw[pageSumLength:]
	p := position{id: uuid.UUID(place[:pageIDLength])}
	if by := place[pageIDLength:]; l.order == usersv1.ProfileOrder_PROFILE_ORDER_EMAIL {
		p.foldedEmail = string(by)
	} else if len(by) == 8 {
		p.createTime = time.UnixMicro(int64(binary.BigEndian.Uint64(by)))
	}
	// A valid token is the encoding of its position.
	return p, l.token(p) == token
}

func (l listing) sum(place []byte) []byte {
	sum := sha256.Sum256(fmt.Appendf(nil, "users page token 1: %q %q %d %x", l.query, l.status, l.order, place))
	return sum[:pageSumLength]
}
