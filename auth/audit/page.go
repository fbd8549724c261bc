package audit

import (
	"encoding/binary"
	"fmt"
	"gatehouse/internal/page"
	"time"

	"github.com/google/uuid"
)

// Token returns the page token of the page that begins after an event.
func (q Query) Token(last uuid.UUID) string { return q.pages().Token(last[:]) }

// Parse returns the event that a page begins after, and whether the token is one of
// this query's.
func (q Query) Parse(token string) (uuid.UUID, bool) { return q.pages().ParseID(token) }

func (q Query) pages() page.Query {
	return func(position []byte) []byte {
		last, _ := uuid.FromBytes(position)
		return fmt.Appendf(nil, "auth audit page token 1: %q %q %q %q %s %s %s", q.Account, q.Actor, q.Event, q.Outcome, q.From, q.Before, last)
	}
}

// LeastID is the least UUIDv7 of a time or later: the time rounded up
// to milliseconds, and zeros (RFC 9562, 5.7).
func LeastID(at time.Time) uuid.UUID {
	milliseconds := at.UnixMilli()
	if at.Nanosecond()%int(time.Millisecond) != 0 {
		milliseconds++
	}
	const most = 1<<48 - 1
	var id uuid.UUID
	binary.BigEndian.PutUint64(id[:8], uint64(min(max(milliseconds, 0), most))<<16)
	return id
}
