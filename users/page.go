package users

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/google/uuid"

	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/page"
)

// position is the last profile of a page: the next page begins after it.
type position struct {
	id          uuid.UUID
	createTime  time.Time // set unless the order is by email
	foldedEmail string    // set if the order is by email
}

// A page token contains the position's id and its sort key: the email, or the time in
// microseconds, the resolution of Postgres.
const positionIDLength = len(uuid.UUID{})

// token returns the page token of the page that begins after p.
func (l listing) token(p position) string {
	place := bytes.Clone(p.id[:])
	if l.order == usersv1.ProfileOrder_PROFILE_ORDER_EMAIL {
		place = append(place, p.foldedEmail...)
	} else {
		place = binary.BigEndian.AppendUint64(place, uint64(p.createTime.UnixMicro()))
	}
	return l.pages().Token(place)
}

// parse returns the position in a page token, and whether the token is one of this
// listing's.
func (l listing) parse(token string) (position, bool) {
	place, ok := l.pages().Parse(token)
	if !ok || len(place) < positionIDLength {
		return position{}, false
	}
	p := position{id: uuid.UUID(place[:positionIDLength])}
	if by := place[positionIDLength:]; l.order == usersv1.ProfileOrder_PROFILE_ORDER_EMAIL {
		p.foldedEmail = string(by)
	} else if len(by) == 8 {
		p.createTime = time.UnixMicro(int64(binary.BigEndian.Uint64(by)))
	}
	// A token is valid only in the form that token returns for its position.
	return p, l.token(p) == token
}

func (l listing) pages() page.Query {
	return func(place []byte) []byte {
		return fmt.Appendf(nil, "users page token 1: %q %q %d %x", l.query, l.status, l.order, place)
	}
}
