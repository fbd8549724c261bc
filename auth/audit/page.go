package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/google/uuid"

	"gatehouse/internal/opaque"
)

// A page token is base64url of a checksum and the id of the page's last event.
// The checksum covers the query too, but is no secret: one who forges a token
// gets a page that they could have walked to.
const auditSumLength = 16

// Token returns the page token of the page that begins after an event.
func (q Query) Token(last uuid.UUID) string {
	return opaque.Encode("", append(q.sum(last), last[:]...))
}

// Parse returns the event that a page begins after, and whether the token is one
// of this query's.
func (q Query) Parse(token string) (uuid.UUID, bool) {
	raw, ok := opaque.Decode("", token)
	if !ok || len(raw) != auditSumLength+len(uuid.UUID{}) {
		return uuid.Nil, false
	}
	last := uuid.UUID(raw[auditSumLength:])
	return last, bytes.Equal(raw[:auditSumLength], q.sum(last))
}

func (q Query) sum(last uuid.UUID) []byte {
	sum := sha256.Sum256(fmt.Appendf(nil, "auth audit page token 1: %q %q %q %q %s %s %s", q.Account, q.Actor, q.Event, q.Outcome, q.From, q.Before, last))
	return sum[:auditSumLength]
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
