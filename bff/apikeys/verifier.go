// Package apikeys verifies API keys and serves the public methods about them.
//
// A Verifier asks auth about a key once and remembers the answer by the key's hash, so
// that a call by a known key costs no query. The revocations of auth's stream apply to
// keys as they do to sessions. A key is not refreshed by its holder: when its owner's
// roles change, the verifier asks again.
package apikeys

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/maypok86/otter/v2"
	"golang.org/x/sync/singleflight"

	"gatehouse/bff/access"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/accesstoken"
	"gatehouse/internal/apikey"
	"gatehouse/internal/fault"
	"gatehouse/internal/rpc"
)

const (
	// rememberedKeys is how many keys that work are remembered, and refusedKeys how many
	// that don't.
	rememberedKeys = 20_000
	refusedKeys    = 10_000
	// refusalLife is how long a refusal is remembered: a loop of calls by a bad key costs
	// a query a second, and a key is accepted a second after a copy of auth knows it.
	refusalLife = time.Second
	// checkLimit bounds a question that outlives its call, because others share it.
	checkLimit = 2 * time.Second
)

var errNetwork = fault.New(connect.CodePermissionDenied, "KEY_NETWORK", "This API key may not be used from your address. Use it from one of its networks, or create another one.")

// Config is what a verifier needs.
type Config struct {
	// Check and Touch call auth. They set the time limit, and their errors are for the
	// gateway's caller.
	Check func(context.Context, *authv1.CheckKeyRequest) (*authv1.CheckKeyResponse, error)
	Touch func(context.Context, *authv1.TouchKeysRequest) error
	// Revoked are the revocations of sessions and keys.
	Revoked *access.Revocations
	// Granted returns those of an account's roles that count at a level.
	Granted func(roles []string, level int) []string
	// Limit counts the call against the rate of the caller's IP address.
	Limit func(context.Context) error
	// ClientInfo returns the caller's IP address and user agent.
	ClientInfo func(context.Context) *authv1.Origin
	// Address returns the caller's IP address.
	Address func(context.Context) string
}

// Verifier verifies API keys.
type Verifier struct {
	Config
	// Now is the clock.
	Now     func() time.Time
	known   *otter.Cache[apikey.Hash, *known]
	refused *otter.Cache[apikey.Hash, refusal]
	flight  singleflight.Group

	mu sync.Mutex
	// used are the keys that were used since the last report.
	used []*known
}

// refusal is auth's refusal of a key.
type refusal struct {
	err   error
	until time.Time
}

// known is a key that worked when auth was asked last.
type known struct {
	who      *access.Principal
	networks []netip.Prefix
	// expire is when the key expires; who.Expire is when auth is asked again.
	expire time.Time
	usage
}

// usage is the latest use of a key that was not reported yet.
type usage struct {
	at       atomic.Int64 // Unix nanoseconds
	reported atomic.Bool  // whether the key is in the list of used ones
	address  atomic.Pointer[string]
}

// NewVerifier returns a verifier that knows no key.
func NewVerifier(config Config) (*Verifier, error) {
	// Without an expiry of the cache's own, which needs a goroutine: entries say when they
	// expire, and the oldest make room.
	keys, err := otter.New(&otter.Options[apikey.Hash, *known]{MaximumSize: rememberedKeys})
	if err != nil {
		return nil, fmt.Errorf("create the cache of API keys: %w", err)
	}
	refused, err := otter.New(&otter.Options[apikey.Hash, refusal]{MaximumSize: refusedKeys})
	if err != nil {
		return nil, fmt.Errorf("create the cache of refused API keys: %w", err)
	}
	verifications.Add(context.Background(), 0, verified["valid"][0]) // export 0 before the first key
	return &Verifier{Config: config, Now: time.Now, known: keys, refused: refused}, nil
}

// Identify returns the principal of a key. Errors: unauthenticated KEY_INVALID or
// KEY_EXPIRED, permission_denied KEY_NETWORK, resource_exhausted TOO_MANY_REQUESTS,
// unavailable SERVICE_UNAVAILABLE.
func (v *Verifier) Identify(ctx context.Context, text string) (*access.Principal, error) {
	hash := apikey.HashOf(text)
	found, ok := v.known.GetIfPresent(hash)
	remembered := ok
	var err error
	if ok {
		remembered, err = v.current(found)
	}
	if err == nil && !remembered {
		found, err = v.ask(ctx, text, hash, ok)
	}
	if err == nil {
		err = v.use(ctx, found)
	}
	count(remembered, err)
	if err != nil {
		return nil, err
	}
	return found.who, nil
}

// current reports whether a remembered answer is still true. It is not while the
// revocations are not, nor if the owner's roles or status changed since.
func (v *Verifier) current(found *known) (bool, error) {
	now := v.Now()
	if !now.Before(found.expire) {
		return false, apikey.ErrExpired
	}
	fresh, err := v.Revoked.Known(found.who)
	if errors.Is(err, accesstoken.ErrSessionEnded) {
		return false, apikey.ErrInvalid
	}
	return fresh && err == nil && now.Before(found.who.Expire), nil
}

// use checks the caller's address and notes the use.
func (v *Verifier) use(ctx context.Context, found *known) error {
	if len(found.networks) > 0 && !within(v.Address(ctx), found.networks) {
		return errNetwork
	}
	found.at.Store(v.Now().UnixNano())
	if !found.reported.Load() && found.reported.CompareAndSwap(false, true) {
		address := v.Address(ctx)
		found.address.Store(&address)
		v.mu.Lock()
		defer v.mu.Unlock()
		if len(v.used) < rememberedKeys {
			v.used = append(v.used, found)
		}
	}
	return nil
}

func within(text string, networks []netip.Prefix) bool {
	address, err := netip.ParseAddr(text)
	if err != nil {
		return false
	}
	for _, network := range networks {
		if network.Contains(address) {
			return true
		}
	}
	return false
}

// ask asks auth about a key, once for all concurrent calls that have it. A key that was
// accepted before is not held against the rate of the IP address.
func (v *Verifier) ask(ctx context.Context, text string, hash apikey.Hash, accepted bool) (*known, error) {
	id, ok := apikey.Parse(text)
	if !ok {
		return nil, apikey.ErrInvalid
	}
	if !accepted {
		if err := v.Limit(ctx); err != nil {
			return nil, err
		}
	}
	if no, ok := v.refused.GetIfPresent(hash); ok && v.Now().Before(no.until) {
		return nil, no.err
	}
	origin, flight := v.ClientInfo(ctx), string(hash[:])
	if accepted {
		v.flight.Forget(flight) // it may have been asked before the change
	}
	result := v.flight.DoChan(flight, func() (any, error) {
		ctx, cancel := rpc.Detached(ctx, checkLimit)
		defer cancel()
		asked := v.Now()
		answer, err := v.Check(ctx, &authv1.CheckKeyRequest{KeyId: id.String(), SecretHash: hash[:], Origin: origin})
		if err != nil {
			return nil, err
		}
		return newKnown(id.String(), answer, asked, v.Granted)
	})
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case done := <-result:
		return v.take(hash, done)
	}
}

// take remembers an answer of auth.
func (v *Verifier) take(hash apikey.Hash, done singleflight.Result) (*known, error) {
	if done.Err != nil {
		if connect.CodeOf(done.Err) == connect.CodeUnauthenticated {
			v.known.Invalidate(hash)
			v.refused.Set(hash, refusal{done.Err, v.Now().Add(refusalLife)})
		}
		return nil, done.Err
	}
	found := done.Val.(*known)
	switch _, err := v.Revoked.Known(found.who); {
	case errors.Is(err, accesstoken.ErrSessionEnded):
		return nil, apikey.ErrInvalid
	case err != nil: // a copy of auth that reads an older state
		return nil, fault.Unavailable().WithCause(err)
	}
	v.known.Set(hash, found)
	return found, nil
}

func newKnown(id string, answer *authv1.CheckKeyResponse, asked time.Time, granted func([]string, int) []string) (*known, error) {
	level := int(answer.GetLevel())
	found := &known{expire: asked.Add(time.Duration(answer.GetExpiresIn() * float64(time.Second)))}
	for _, text := range answer.GetNetworks() {
		network, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fault.ErrInternal.WithCause(fmt.Errorf("network of the API key %s: %w", id, err))
		}
		found.networks = append(found.networks, network.Masked())
	}
	found.who = &access.Principal{
		UserID: answer.GetAccountId(), SessionID: id, Roles: granted(answer.GetRoles(), level), Version: answer.GetAuthzVersion(),
		SignIn: accesstoken.SignIn{Level: level}, Limited: true, Scopes: answer.GetScopes(),
		Expire: asked.Add(accesstoken.Life),
	}
	if found.expire.Before(found.who.Expire) {
		found.who.Expire = found.expire
	}
	return found, nil
}

// Remembered returns the principal of a key that is remembered, else nil. It does not
// count a use.
func (v *Verifier) Remembered(text string) *access.Principal {
	if found, ok := v.known.GetIfPresent(apikey.HashOf(text)); ok && v.Now().Before(found.who.Expire) {
		return found.who
	}
	return nil
}
