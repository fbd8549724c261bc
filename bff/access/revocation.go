package access

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/accesstoken"
	"gatehouse/internal/follow"
)

const (
	// Silence is the longest time without a message after which the stream is still
	// current. After that, the gateway asks auth about each token.
	Silence = 5 * time.Second
	// pruneInterval is how often the gateway prunes revocations of expired tokens.
	pruneInterval = 30 * time.Second
)

// Revocations holds which unexpired access tokens are revoked. It follows auth's
// stream, and passes the signing keys from that stream to the verifier. While the
// stream is silent, or auth's clock differs too much from ours, it asks auth about
// each token; if it cannot reach auth, it refuses the call.
type Revocations struct {
	source  authv1.RevocationServiceClient
	keys    authv1.KeyServiceClient
	ask     func(context.Context, *authv1.CheckAccessRequest) error
	useKeys func([]*authv1.SigningKey) error
	logger  *slog.Logger
	// Now is the clock.
	Now func() time.Time
	// Taken, unless nil, is called after each message has been applied.
	Taken func(*authv1.WatchRevocationsResponse)

	mu       sync.RWMutex
	sessions map[string]time.Time // when the revocation expires, by session ID
	versions map[string]leastVersion
	heard    time.Time // when the last message arrived; zero before the first complete update
	clock    clockOffset
}

type leastVersion struct {
	version int64
	until   time.Time
}

// NewRevocations returns revocations that have received no message yet.
// useKeys receives the published signing keys. ask asks auth about one token; it sets
// the time limit, and its errors are for the gateway's caller.
func NewRevocations(source authv1.RevocationServiceClient, keys authv1.KeyServiceClient, useKeys func([]*authv1.SigningKey) error,
	ask func(context.Context, *authv1.CheckAccessRequest) error, logger *slog.Logger) *Revocations {
	return &Revocations{source: source, keys: keys, useKeys: useKeys, ask: ask, logger: logger, Now: time.Now, sessions: map[string]time.Time{}, versions: map[string]leastVersion{}}
}

// Check returns an error if the principal's token is revoked. Errors: unauthenticated
// SESSION_ENDED or TOKEN_STALE, unavailable SERVICE_UNAVAILABLE if the stream is not
// current and auth is unreachable.
func (r *Revocations) Check(ctx context.Context, who *Principal) error {
	if fresh, err := r.Known(who); fresh || err != nil {
		return err
	}
	return r.ask(ctx, &authv1.CheckAccessRequest{AccountId: who.UserID, SessionId: who.SessionID, AuthzVersion: who.Version})
}

// Known returns an error if the principal is known to be revoked, without asking auth.
// Unless the revocations are fresh, it may be revoked nevertheless. Errors:
// unauthenticated SESSION_ENDED or TOKEN_STALE.
func (r *Revocations) Known(who *Principal) (fresh bool, err error) {
	r.mu.RLock()
	fresh = r.speaks() && !r.clock.wrong
	_, ended := r.sessions[who.SessionID]
	stale := who.Version < r.versions[who.UserID].version
	r.mu.RUnlock()
	switch {
	case ended:
		return fresh, accesstoken.ErrSessionEnded
	case stale:
		return fresh, accesstoken.ErrStale
	}
	return fresh, nil
}

// IsStale reports whether the principal's token has an older version than the latest
// known one of its account. Refreshing the token fixes that.
func (r *Revocations) IsStale(who *Principal) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return who.Version < r.versions[who.UserID].version
}

// speaks reports whether the stream is current. The caller holds the lock.
func (r *Revocations) speaks() bool { return !r.heard.IsZero() && r.Now().Sub(r.heard) <= Silence }

// Fresh reports whether the stream is current.
func (r *Revocations) Fresh() bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.speaks()
}

// Ready reports whether the stream has sent all revocations.
func (r *Revocations) Ready() bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return !r.heard.IsZero()
}

// Run follows the stream until ctx ends.
func (r *Revocations) Run(ctx context.Context) {
	pruned := r.Now()
	follower := follow.Follower[*authv1.WatchRevocationsResponse]{
		Name: "revocations of auth", Logger: r.logger, Receive: receiveRevocations,
		Open: func(ctx context.Context, cursor string) (follow.Stream[*authv1.WatchRevocationsResponse], error) {
			return r.source.WatchRevocations(ctx, &authv1.WatchRevocationsRequest{Cursor: cursor})
		},
		Apply: func(ctx context.Context, message *authv1.WatchRevocationsResponse, first bool, _ time.Time) (bool, error) {
			if err := r.takeKeys(ctx, message, first); err != nil {
				return false, err
			}
			r.Take(message)
			if now := r.Now(); now.Sub(pruned) > pruneInterval {
				pruned = now
				r.prune(now)
			}
			return true, nil
		},
	}
	follower.Run(ctx)
}

// receiveRevocations receives an update; a large one comes in several messages. It
// calls alive for each.
func receiveRevocations(stream follow.Stream[*authv1.WatchRevocationsResponse], alive func()) (*authv1.WatchRevocationsResponse, error) {
	update, err := stream.Receive()
	for more := update.GetMore(); err == nil && more; {
		alive()
		var next *authv1.WatchRevocationsResponse
		if next, err = stream.Receive(); err == nil {
			proto.Merge(update, next)
			more = next.GetMore()
		}
	}
	alive()
	return update, err
}

// takeKeys applies the signing keys of a message. An older version of auth sends none in
// its stream, and its keys do not change while it runs: fetch them once for a stream.
func (r *Revocations) takeKeys(ctx context.Context, message *authv1.WatchRevocationsResponse, first bool) error {
	keys := message.GetSigningKeys().GetKeys()
	switch {
	case message.GetSigningKeys() != nil:
	case !first:
		return nil
	default:
		response, err := r.keys.ListSigningKeys(ctx, &authv1.ListSigningKeysRequest{})
		if err != nil {
			return fmt.Errorf("fetch the signing keys: %w", err)
		}
		keys = response.GetKeys()
	}
	if err := r.useKeys(keys); err != nil {
		return fmt.Errorf("take the signing keys: %w", err)
	}
	return nil
}

// Take applies the revocations of a message.
func (r *Revocations) Take(message *authv1.WatchRevocationsResponse) {
	r.apply(message)
	if r.Taken != nil {
		r.Taken(message)
	}
}

func (r *Revocations) apply(message *authv1.WatchRevocationsResponse) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.Now()
	r.clock.note(message, now, r.logger)
	if message.GetComplete() {
		clear(r.sessions)
		clear(r.versions)
	}
	for _, one := range message.GetRevocations() {
		until := now.Add(time.Duration(one.GetExpiresIn()) * time.Second)
		switch of := one.GetOf().(type) {
		case *authv1.Revocation_SessionId:
			r.sessions[of.SessionId] = until
		case *authv1.Revocation_LeastVersion:
			id := of.LeastVersion.GetAccountId()
			if known := r.versions[id]; of.LeastVersion.GetVersion() >= known.version {
				r.versions[id] = leastVersion{version: of.LeastVersion.GetVersion(), until: until}
			}
		}
	}
	r.heard = now
}

// prune deletes revocations whose tokens have all expired.
func (r *Revocations) prune(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, until := range r.sessions {
		if now.After(until) {
			delete(r.sessions, id)
		}
	}
	for id, least := range r.versions {
		if now.After(least.until) {
			delete(r.versions, id)
		}
	}
}

// State is the state of the stream of revocations.
type State struct {
	// Ready reports that the stream has sent all revocations, and Fresh that it is
	// current.
	Ready, Fresh bool
	// Age is the time since the last message.
	Age time.Duration
	// Sessions and accounts count the revocations.
	Sessions, Accounts int
	// ClockAhead is the offset of auth's clock to ours, if ClockKnown.
	ClockAhead time.Duration
	ClockKnown bool
}

// State returns the state of the stream, for the metrics.
func (r *Revocations) State() State {
	r.mu.RLock()
	defer r.mu.RUnlock()
	age, ready := r.Now().Sub(r.heard), !r.heard.IsZero()
	return State{
		Ready: ready, Fresh: ready && age <= Silence, Age: age, Sessions: len(r.sessions), Accounts: len(r.versions),
		ClockAhead: r.clock.ahead, ClockKnown: r.clock.known,
	}
}
