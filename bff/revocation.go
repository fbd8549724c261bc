package bff

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/follow"
)

const (
	// silence is the longest time without a message after which the stream is still
	// current. After that, the gateway asks auth about each token.
	silence = 5 * time.Second
	// pruneInterval is how often the gateway prunes revocations of expired tokens.
	pruneInterval = 30 * time.Second
)

// revocations holds which unexpired access tokens are revoked. It follows auth's
// stream, and passes the signing keys from that stream to the verifier. While the
// stream is silent, or auth's clock differs too much from ours, it asks auth about
// each token; if it cannot reach auth, it refuses the call.
type revocations struct {
	source authv1.RevocationServiceClient
	keys   authv1.KeyServiceClient
	// ask asks auth about one token. It sets the time limit, and its errors are for the
	// gateway's caller.
	ask func(context.Context, *authv1.CheckAccessRequest) error
	// useKeys receives the published signing keys.
	useKeys func([]*authv1.SigningKey) error
	logger  *slog.Logger
	now     func() time.Time

	mu       sync.RWMutex
	sessions map[string]time.Time // when the revocation expires, by session ID
	versions map[string]leastVersion
	heard    time.Time // when the last message came; zero before the first complete one
	clock    clockOffset
}

type leastVersion struct {
	version int64
	until   time.Time
}

func newRevocations(source authv1.RevocationServiceClient, keys authv1.KeyServiceClient, useKeys func([]*authv1.SigningKey) error,
	ask func(context.Context, *authv1.CheckAccessRequest) error, logger *slog.Logger) *revocations {
	return &revocations{source: source, keys: keys, useKeys: useKeys, ask: ask, logger: logger, now: time.Now, sessions: map[string]time.Time{}, versions: map[string]leastVersion{}}
}

// check returns an error if the principal's token is revoked. Errors: unauthenticated
// SESSION_ENDED or TOKEN_STALE, unavailable SERVICE_UNAVAILABLE if the stream is not
// current and auth is unreachable.
func (r *revocations) check(ctx context.Context, who *principal) error {
	r.mu.RLock()
	fresh := r.speaks() && !r.clock.wrong
	_, ended := r.sessions[who.sessionID]
	stale := who.version < r.versions[who.userID].version
	r.mu.RUnlock()
	switch {
	case ended:
		return errSessionEnded
	case stale:
		return errTokenStale
	case fresh:
		return nil
	}
	return r.ask(ctx, &authv1.CheckAccessRequest{AccountId: who.userID, SessionId: who.sessionID, AuthzVersion: who.version})
}

// isStale reports whether the principal's token has an older version than the latest
// known one of its account. Refreshing the token fixes that.
func (r *revocations) isStale(who *principal) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return who.version < r.versions[who.userID].version
}

// speaks reports whether the stream is current. The caller holds the lock.
func (r *revocations) speaks() bool { return !r.heard.IsZero() && r.now().Sub(r.heard) <= silence }

// fresh reports whether the stream is current.
func (r *revocations) fresh() bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.speaks()
}

// ready reports whether the stream has sent all revocations.
func (r *revocations) ready() bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return !r.heard.IsZero()
}

// run follows the stream until ctx ends.
func (r *revocations) run(ctx context.Context) {
	pruned := r.now()
	follower := follow.Follower[*authv1.WatchRevocationsResponse]{
		Name: "revocations of auth", Logger: r.logger, Receive: receiveRevocations,
		Open: func(ctx context.Context, cursor string) (follow.Stream[*authv1.WatchRevocationsResponse], error) {
			return r.source.WatchRevocations(ctx, &authv1.WatchRevocationsRequest{Cursor: cursor})
		},
		Apply: func(ctx context.Context, message *authv1.WatchRevocationsResponse, first bool, _ time.Time) (bool, error) {
			if err := r.takeKeys(ctx, message, first); err != nil {
				return false, err
			}
			r.take(message)
			if now := r.now(); now.Sub(pruned) > pruneInterval {
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
func (r *revocations) takeKeys(ctx context.Context, message *authv1.WatchRevocationsResponse, first bool) error {
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

// take applies the revocations of a message.
func (r *revocations) take(message *authv1.WatchRevocationsResponse) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
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

// prune deletes revocations of which all tokens have expired.
func (r *revocations) prune(now time.Time) {
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

// feedState is the state of the stream of revocations.
type feedState struct {
	// ready reports that the stream has sent all revocations, and fresh that it is
	// current.
	ready, fresh bool
	// age is the time since the last message.
	age time.Duration
	// sessions and accounts count the revocations.
	sessions, accounts int
	// clockAhead is by how much auth's clock is ahead of ours, if clockKnown.
	clockAhead time.Duration
	clockKnown bool
}

// state returns the state of the stream, for the metrics.
func (r *revocations) state() feedState {
	r.mu.RLock()
	defer r.mu.RUnlock()
	age, ready := r.now().Sub(r.heard), !r.heard.IsZero()
	return feedState{
		ready: ready, fresh: ready && age <= silence, age: age, sessions: len(r.sessions), accounts: len(r.versions),
		clockAhead: r.clock.ahead, clockKnown: r.clock.known,
	}
}
