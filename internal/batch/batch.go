// Package batch lets goroutines that start together send their first request to the
// same destination in one batch.
//
// The goroutines are the members of a [Round]. A member that has a request for a
// destination waits in [Member.Do] until each member has a request or has left. Then
// one member of each destination sends the requests of all members that wait for it.
// A member that sends no request leaves at the latest when it ends, so nobody waits for
// it for ever.
//
// A request waits no longer than the other members work before their first request:
// members should not block before that.
package batch

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Round is a set of members that start together. The zero value has no members.
type Round struct {
	mu      sync.Mutex
	pending int // members that have neither a request nor left
	over    bool
	groups  []*group
}

// group is the requests of a round that have the same destination.
type group struct {
	destination any
	limit       time.Duration
	members     []*Member
	leader      *Member // sends the requests; set when the round is over
}

// Member is a goroutine of a round, and the context of its work: it has the deadline,
// the end and the values of the context given to [Round.Add].
type Member struct {
	parent  context.Context //nolint:containedctx // it is one
	round   *Round
	limit   time.Duration
	settled bool // it has a request or has left
	request any
	wake    chan verdict
}

type verdict int

const (
	sendAlone verdict = iota
	sendAll
	sent
)

type memberKey struct{}

// From returns the member that ctx belongs to; nil, whose methods do nothing, if there
// is none.
func From(ctx context.Context) *Member {
	m, _ := ctx.Value(memberKey{}).(*Member)
	return m
}

// Add makes m a member, before any member of the round has started. Requests are sent
// together only if their members have the same limit, the time in which the member has
// to end.
func (r *Round) Add(m *Member, ctx context.Context, limit time.Duration) { //nolint:revive // ctx becomes the member's
	m.parent, m.round, m.limit = ctx, r, limit
	r.pending++
}

// Deadline implements [context.Context].
func (m *Member) Deadline() (time.Time, bool) { return m.parent.Deadline() }

// Done implements [context.Context].
func (m *Member) Done() <-chan struct{} { return m.parent.Done() }

// Err implements [context.Context].
func (m *Member) Err() error { return m.parent.Err() }

// Value implements [context.Context].
func (m *Member) Value(key any) any {
	if key == (memberKey{}) {
		return m
	}
	return m.parent.Value(key)
}

// Leave says that the member sends no request that could wait for others'.
func (m *Member) Leave() {
	if m == nil {
		return
	}
	m.round.mu.Lock()
	defer m.round.mu.Unlock()
	if !m.settled {
		m.settled = true
		m.round.settle(nil)
	}
}

// Do waits for the other members and sends the requests of those that have the same
// destination, a comparable value, with one call of send. It reports false when the
// caller has to send the request itself: nobody else has the same destination, or the
// member had a request before. send runs on one member's goroutine and must not keep
// the slice. Errors: that of ctx when it ended first.
func (m *Member) Do(ctx context.Context, destination, request any, send func(requests []any)) (bool, error) {
	if m == nil {
		return false, nil
	}
	g := m.join(destination, request)
	if g == nil {
		return false, nil
	}
	var then verdict
	select {
	case then = <-m.wake:
	case <-ctx.Done():
		if !m.withdraw(g) {
			return false, ctx.Err()
		}
		then = <-m.wake // the others wait for this one
	}
	switch then {
	case sendAlone:
		return false, nil
	case sendAll:
		requests := make([]any, len(g.members))
		for i, one := range g.members {
			requests[i] = one.request
		}
		defer func() {
			for _, one := range g.members {
				if one != m {
					one.wake <- sent
				}
			}
		}()
		send(requests)
	}
	return true, nil
}

// join adds the request to the group of its destination; nil when it is too late.
func (m *Member) join(destination, request any) *group {
	r := m.round
	r.mu.Lock()
	defer r.mu.Unlock()
	if m.settled {
		return nil
	}
	m.settled, m.request, m.wake = true, request, make(chan verdict, 2)
	i := slices.IndexFunc(r.groups, func(g *group) bool { return g.destination == destination && g.limit == m.limit })
	if i < 0 {
		i = len(r.groups)
		r.groups = append(r.groups, &group{destination: destination, limit: m.limit})
	}
	g := r.groups[i]
	g.members = append(g.members, m)
	r.settle(m)
	return g
}

// withdraw takes the request of a member back whose context ended. It reports whether
// the member has to send those of its group all the same.
func (m *Member) withdraw(g *group) bool {
	m.round.mu.Lock()
	defer m.round.mu.Unlock()
	if !m.round.over {
		g.members = slices.DeleteFunc(g.members, func(one *Member) bool { return one == m })
	}
	return g.leader == m
}

// settle counts a member that has a request or has left. The last one wakes a member of
// each group: itself if it is one, so that it needs no other goroutine.
func (r *Round) settle(last *Member) {
	if r.pending--; r.pending > 0 {
		return
	}
	r.over = true
	for _, g := range r.groups {
		switch len(g.members) {
		case 0:
		case 1:
			g.members[0].wake <- sendAlone
		default:
			g.leader = g.members[len(g.members)-1]
			if slices.Contains(g.members, last) {
				g.leader = last
			}
			g.leader.wake <- sendAll
		}
	}
}

// GrowStack grows a new goroutine's stack once, to what a call needs, while there is
// next to nothing on it to copy. Doubling it step by step below a call took a seventh of
// GetMe's time. (CockroachDB's growstack.)
func GrowStack() { growStack(0) }

//go:noinline
func growStack(at int) byte {
	var stack [stackSize]byte
	return stack[at]
}

const stackSize = 20 << 10
