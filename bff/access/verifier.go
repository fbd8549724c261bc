// Package access validates access tokens. A Verifier checks the signature with the keys
// that auth publishes, and caches the result. Revocations holds the revocations of
// unexpired tokens, which it receives in a stream from auth. Neither calls auth for a
// token while the stream is current.
package access

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"

	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/accesstoken"
	"gatehouse/internal/fault"
)

// rememberedTokens is how many verified tokens are cached. Verifying one Ed25519
// signature costs as much as the rest of a call.
const rememberedTokens = 20_000

// Verifier verifies access tokens with the keys that auth publishes in its stream of
// revocations. A token never causes a request for a key.
type Verifier struct {
	issuer string
	// secondFactorRoles are dropped from a principal of level 1: a version of auth
	// older than schema number 8 issues them.
	secondFactorRoles []string

	Now  func() time.Time
	keys atomic.Pointer[keySet]
	seen *otter.Cache[string, *Principal]

	issuerWarning *issuerWarning
}

// keySet is the published keys, newest first, and by id. Its epoch grows when a
// key is retired, which invalidates the verified tokens of earlier epochs.
type keySet struct {
	published []*authv1.SigningKey
	byID      map[string]ed25519.PublicKey
	epoch     int
}

// NewVerifier returns a verifier that has no keys yet, for the tokens of an issuer.
// secondFactorRoles do not count in a token of level 1.
func NewVerifier(issuer string, secondFactorRoles []string, logger *slog.Logger) (*Verifier, error) {
	seen, err := otter.New(&otter.Options[string, *Principal]{
		MaximumSize:      rememberedTokens,
		ExpiryCalculator: otter.ExpiryWriting[string, *Principal](5 * time.Minute),
	})
	if err != nil {
		return nil, fmt.Errorf("create the token cache: %w", err)
	}
	return &Verifier{issuer: issuer, secondFactorRoles: secondFactorRoles, Now: time.Now, seen: seen, issuerWarning: &issuerWarning{logger: logger}}, nil
}

// Stop stops the goroutines of the token cache.
func (v *Verifier) Stop() { v.seen.StopAllGoroutines() }

// Take replaces the keys with the published ones. It must not be called concurrently.
// If the published keys are invalid, the current keys remain.
func (v *Verifier) Take(published []*authv1.SigningKey) error {
	set, err := newKeySet(published)
	if err != nil {
		return err
	}
	before := v.keys.Load()
	if before == nil {
		v.keys.Store(set)
		return nil
	}
	set.epoch = before.epoch
	retired := before.retiredIn(set)
	if retired {
		set.epoch++
	}
	v.keys.Store(set)
	if retired {
		v.seen.InvalidateAll()
	}
	return nil
}

// newKeySet returns an error for keys that auth never publishes: without a key, or with
// a wrong one, the gateway would refuse every token.
func newKeySet(published []*authv1.SigningKey) (*keySet, error) {
	if len(published) == 0 {
		return nil, errors.New("auth publishes no signing key")
	}
	set := &keySet{published: published, byID: map[string]ed25519.PublicKey{}}
	for _, key := range published {
		kid := key.GetKid()
		if len(key.GetPublicKey()) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("signing key %q has %d bytes", kid, len(key.GetPublicKey()))
		}
		if _, ok := set.byID[kid]; ok || kid == "" {
			return nil, fmt.Errorf("signing key %q: its ID is empty or not unique", kid)
		}
		set.byID[kid] = key.GetPublicKey()
	}
	return set, nil
}

// retiredIn reports whether the set after lacks a key of k.
func (k *keySet) retiredIn(after *keySet) bool {
	for kid, key := range k.byID {
		if !bytes.Equal(key, after.byID[kid]) {
			return true
		}
	}
	return false
}

// HasKeys reports whether the keys have arrived.
func (v *Verifier) HasKeys() bool { return v.keys.Load() != nil }

// Verify returns the principal of a token. Errors: unauthenticated TOKEN_INVALID or
// TOKEN_EXPIRED, unavailable SERVICE_UNAVAILABLE while there are no keys.
func (v *Verifier) Verify(token string) (*Principal, error) {
	if who, known, err := v.Recall(token); known {
		return who, err
	}
	return v.Check(token)
}

// Recall is Verify for a token that needs no signature check, because it is cached or
// there are no keys. For any other token known is false.
func (v *Verifier) Recall(token string) (who *Principal, known bool, err error) {
	keys := v.keys.Load()
	if keys == nil {
		countVerification(false, fault.Unavailable())
		return nil, true, fault.Unavailable()
	}
	who, ok := v.seen.GetIfPresent(token)
	if !ok || who.epoch != keys.epoch {
		return nil, false, nil
	}
	if !v.Now().Before(who.Expire) {
		who, err = nil, ErrTokenExpired
	}
	countVerification(true, err)
	return who, true, err
}

// Remembered returns the principal of a cached token that is still valid, else nil. It
// does not count a verification.
func (v *Verifier) Remembered(token string) *Principal {
	keys := v.keys.Load()
	who, ok := v.seen.GetIfPresent(token)
	if !ok || keys == nil || who.epoch != keys.epoch || !v.Now().Before(who.Expire) {
		return nil
	}
	return who
}

// Check is Verify for a token that is not cached, and caches it. After an error whose
// cause is [accesstoken.ErrUnknownKey], the token may become valid when a key arrives.
func (v *Verifier) Check(token string) (who *Principal, err error) {
	defer func() { countVerification(false, err) }()
	keys := v.keys.Load()
	if keys == nil {
		return nil, fault.Unavailable()
	}
	subject, expire, err := accesstoken.Verify(token, accesstoken.Verification{
		Issuer: v.issuer, Now: v.Now,
		PublicKey: func(id string) ed25519.PublicKey { return keys.byID[id] },
	})
	if errors.Is(err, accesstoken.ErrExpired) {
		return nil, ErrTokenExpired.WithCause(err)
	}
	if other, ok := errors.AsType[*accesstoken.IssuerError](err); ok {
		v.issuerWarning.note(v.Now(), v.issuer, other.Issuer)
	}
	if err != nil {
		return nil, ErrTokenInvalid.WithCause(err)
	}
	found := &Principal{
		UserID: subject.AccountID, SessionID: subject.SessionID, Roles: v.Granted(subject.Roles, subject.Level),
		Version: subject.Version, SignIn: subject.SignIn, Expire: expire, epoch: keys.epoch,
	}
	v.seen.Set(token, found)
	return found, nil
}

// Granted returns those of the roles that count at the level.
func (v *Verifier) Granted(roles []string, level int) []string {
	if level >= 2 || len(v.secondFactorRoles) == 0 {
		return roles
	}
	return slices.DeleteFunc(slices.Clone(roles), func(role string) bool { return slices.Contains(v.secondFactorRoles, role) })
}

// Withheld returns those of an account's roles that a session of the level lacks, because
// they need level 2.
func (v *Verifier) Withheld(roles []string, level int) []string {
	if level >= 2 {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(roles), func(role string) bool { return !slices.Contains(v.secondFactorRoles, role) })
}
