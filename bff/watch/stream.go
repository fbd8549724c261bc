package watch

import (
	"slices"
	"time"

	"connectrpc.com/connect/v2"

	"gatehouse/bff/access"
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

// partOf returns the parts that a change of a tag's kind may concern; none for a kind
// that is not of an account.
func partOf(kind string) parts {
	if i := slices.Index(partKinds[:], kind+"/"); i >= 0 {
		return (parts(1) << i).implied()
	}
	return 0
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
	who  *access.Principal
	wake chan struct{} // holds one signal

	// What is to be sent.
	parts      parts
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
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// note adds changed parts to those to be sent.
func (s *stream) note(changed parts) {
	s.parts |= changed
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

// interruptWrite ends a write that waits for the reader. The handler of the stream cannot
// have returned while it sends.
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
	case left <= refreshAhead && !s.asked:
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
