package watch

import (
	"maps"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"

	"gatehouse/bff/access"
	"gatehouse/internal/policy"
)

// parts is a set of parts.
type parts uint8

// partKinds are the kinds of the cache tags of parts, each with the slash before the
// account's ID. The number of a part is its place.
var partKinds = [...]string{"account/", "profile/", "sessions/"}

const (
	accountPart parts = 1 << iota
	profilePart
	sessionsPart
	factorsPart
)

var allParts = []string{"account", "factors", "profile", "sessions"}

// implied adds the parts that change without a tag of their own: the second factors with
// the account, and remembered devices with the sessions.
func (p parts) implied() parts {
	if p&(accountPart|sessionsPart) != 0 {
		return p | factorsPart
	}
	return p
}

// partOf returns the parts that a change of a tag may concern, and their account; none
// for a tag that is not of an account.
func partOf(tag string) (part parts, account string) {
	for i, kind := range partKinds {
		if account, ok := strings.CutPrefix(tag, kind); ok && account != "" {
			return (parts(1) << i).implied(), account
		}
	}
	return 0, ""
}

func (p parts) names() []string {
	var names []string
	for _, one := range []struct {
		part parts
		name string
	}{{accountPart, "account"}, {factorsPart, "factors"}, {profilePart, "profile"}, {sessionsPart, "sessions"}} {
		if p&one.part != 0 {
			names = append(names, one.name)
		}
	}
	return names
}

// stream is an open stream. The lock of its hub guards it.
type stream struct {
	who    *access.Principal
	method *policy.Method // nil if it is not known
	all    bool           // of all accounts, rather than the caller's own
	wake   chan struct{}  // holds one signal

	// Of a stream that may continue after its method has returned, and of one that has.
	message func(Event) proto.Message
	send    func() // sends what is due, on a goroutine of its own
	busy    bool   // it runs
	lost    bool   // the client has gone

	// What is to be sent.
	parts      parts
	accounts   map[string]struct{} // of a stream of all, at most maxAccounts
	complete   bool
	refreshDue bool
	alive      bool
	ended      *connect.Error

	begun     time.Time
	merged    int       // changes since the last event
	asked     bool      // refreshDue has been set
	quiet     time.Time // when the last event was sent
	sending   time.Time // since when an event is sent; zero if none is
	interrupt func()
}

func (s *stream) signal() {
	if s.send != nil {
		if !s.busy {
			s.busy = true
			s.send()
		}
		return
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// resume adds what has changed since a position in a feed.
func (s *stream) resume(f *feed, from position) {
	if s.all {
		for tag := range f.changes {
			if part, account := partOf(tag); part != 0 && f.changed(tag, from) {
				s.add(account)
			}
		}
		return
	}
	for part, kind := range partKinds {
		if f.changed(kind+s.who.UserID, from) {
			s.parts |= (parts(1) << part).implied()
		}
	}
}

// note adds changed parts to those to be sent.
func (s *stream) note(changed parts) {
	s.parts |= changed
	s.merge()
}

// noteAccounts adds the changed accounts of one update to those to be sent.
func (s *stream) noteAccounts(changed []string) {
	for _, account := range changed {
		s.add(account)
	}
	s.merge()
}

// add adds an account to those to be sent, or sends that anything may have changed
// instead of too many.
func (s *stream) add(account string) {
	if s.complete {
		return
	}
	if s.accounts == nil {
		s.accounts = map[string]struct{}{}
	}
	if s.accounts[account] = struct{}{}; len(s.accounts) > maxAccounts {
		s.setComplete()
	}
}

func (s *stream) setComplete() { s.complete, s.accounts = true, nil }

// changed reports whether there are changes to be sent.
func (s *stream) changed() bool { return s.complete || s.parts != 0 || len(s.accounts) > 0 }

// takeChanges moves the changes into an event.
func (s *stream) takeChanges(event *Event) {
	event.Complete, event.Parts, event.Accounts = s.complete, s.parts.names(), slices.Sorted(maps.Keys(s.accounts))
	if s.complete && !s.all {
		event.Parts = allParts
	}
	s.complete, s.parts, s.accounts, s.merged = false, 0, nil, 0
}

// merge counts a change that waits with others, and ends the stream after too many.
func (s *stream) merge() {
	if s.merged++; s.merged > maxMerged {
		s.end(errTooSlow)
		s.interruptWrite()
	}
	s.signal()
}

// end ends the stream, for the first reason that it is given.
func (s *stream) end(reason *connect.Error) {
	if s.ended == nil {
		s.ended = reason
		s.signal()
	}
}

// interruptWrite ends a write that waits for the reader. A stream that has not continued is
// in its handler while it sends.
func (s *stream) interruptWrite() {
	if !s.sending.IsZero() {
		s.interrupt()
	}
}

// sweep does what the time of a stream asks.
func (s *stream) sweep(now time.Time) {
	left := s.who.Expire.Sub(now)
	switch {
	case left <= 0:
		s.end(access.ErrTokenExpired)
	case left <= refreshAhead && !s.asked && !s.who.Limited: // the holder of an API key has nothing to refresh
		s.asked, s.refreshDue = true, true
		s.signal()
	}
	switch since := now.Sub(s.sending); {
	case s.sending.IsZero():
		if now.Sub(s.quiet) >= aliveInterval {
			s.alive = true
			s.signal()
		}
	case since > writeTimeout:
		s.end(errTooSlow)
		s.interrupt()
	case since > endTimeout && s.ended != nil:
		s.interrupt()
	}
}
