package access

import (
	"encoding/binary"
	"slices"
	"strings"
	"time"

	"gatehouse/internal/accesstoken"
)

// Principal is the authenticated caller, from an access token or an API key.
type Principal struct {
	UserID    string
	SessionID string
	Roles     []string
	Version   int64 // the account's authorisation version
	SignIn    accesstoken.SignIn
	Expire    time.Time
	// Limited says that the credential is not a session of Gatehouse's own, but an API
	// key, whose id is the SessionID. It may call methods that have one of its Scopes.
	Limited bool
	Scopes  []string
	epoch   int // of the keys that the token was checked with
}

// HasAny reports whether the principal has one of the roles.
func (p *Principal) HasAny(roles []string) bool {
	return slices.ContainsFunc(roles, func(role string) bool { return slices.Contains(p.Roles, role) })
}

// Is reports whether an account's id is the principal's. A UUID is the same in
// upper case.
func (p *Principal) Is(accountID string) bool { return strings.EqualFold(accountID, p.UserID) }

// CacheID implements [answercache.Caller].
func (p *Principal) CacheID() string { return p.UserID }

// AppendCacheKey implements [answercache.Caller]. Answers show which session is the
// caller's own, and roles, version and level decide what a caller may see.
func (p *Principal) AppendCacheKey(key []byte) []byte {
	add := func(text string) {
		key = binary.AppendUvarint(key, uint64(len(text)))
		key = append(key, text...)
	}
	add(p.UserID)
	add(p.SessionID)
	key = binary.AppendVarint(key, p.Version)
	key = binary.AppendVarint(key, int64(p.SignIn.Level))
	key = binary.AppendUvarint(key, uint64(len(p.Roles)))
	for _, role := range p.Roles {
		add(role)
	}
	return key
}
