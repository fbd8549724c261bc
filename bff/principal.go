package bff

import (
	"encoding/binary"
	"slices"
	"strings"
	"time"
)

// principal is the authenticated caller, from an access token.
type principal struct {
	userID    string
	sessionID string
	roles     []string
	version   int64 // the account's authorisation version
	expire    time.Time
	epoch     int // of the keys that the token was checked with
}

func (p *principal) hasAny(roles []string) bool {
	return slices.ContainsFunc(roles, func(role string) bool { return slices.Contains(p.roles, role) })
}

// is reports whether an account's id is the principal's. A UUID is the same in
// upper case.
func (p *principal) is(accountID string) bool { return strings.EqualFold(accountID, p.userID) }

// CacheID implements [answercache.Caller].
func (p *principal) CacheID() string { return p.userID }

// AppendCacheKey implements [answercache.Caller]. Answers show which session is the
// caller's own, and roles and version decide what a caller may see.
func (p *principal) AppendCacheKey(key []byte) []byte {
	add := func(text string) {
		key = binary.AppendUvarint(key, uint64(len(text)))
		key = append(key, text...)
	}
	add(p.userID)
	add(p.sessionID)
	key = binary.AppendVarint(key, p.version)
	key = binary.AppendUvarint(key, uint64(len(p.roles)))
	for _, role := range p.roles {
		add(role)
	}
	return key
}
