package auth

import (
	"encoding/binary"
	"fmt"
	"gatehouse/internal/page"
	"time"

	"github.com/google/uuid"
)

// token returns the page token of the page that begins after an event.
func (q auditQuery) token(last uuid.UUID) string { return q.pages().Token(last[:]) }

// parse returns the event that a page begins after, and whether the token is one of
// this query's.
func (q auditQuery) parse(token string) (uuid.UUID, bool) { return parseIDToken(q.pages(), token) }

func (q auditQuery) pages() page.Query {
	return func(position []byte) []byte {
		last, _ := uuid.FromBytes(position)
		return fmt.Appendf(nil, "auth audit page token 1: %q %q %q %q %s %s %s", q.account, q.actor, q.event, q.outcome, q.from, q.before, last)
	}
}

// parseIDToken returns the id in a page token whose position is one id, and whether
// the token is one of the query's.
func parseIDToken(query page.Query, token string) (uuid.UUID, bool) {
	position, ok := query.Parse(token)
	last, err := uuid.FromBytes(position)
	return last, ok && err == nil
}

// leastID is the least UUIDv7 that may be of a time or later: the time rounded up
// to milliseconds, and zeros (RFC 9562, 5.7).
func leastID(at time.Time) uuid.UUID {
	milliseconds := at.UnixMilli()
	if at.Nanosecond()%int(time.Millisecond) != 0 {
		milliseconds++
	}
	const most = 1<<48 - 1
	var id uuid.UUID
	binary.BigEndian.PutUint64(id[:8], uint64(min(max(milliseconds, 0), most))<<16)
	return id
}
