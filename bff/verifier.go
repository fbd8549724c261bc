package bff

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
	"github.com/maypok86/otter/v2"

	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/fault"
	"gatehouse/internal/rpc"
)

const (
	// accessTokenLife is how long auth makes access tokens good.
	accessTokenLife = 5 * time.Minute
	tokenAudience   = "gatehouse"
	tokenClient     = "gatehouse"
	tokenType       = "at+jwt"
	// A verified token is remembered, for one Ed25519 check costs as much as
	// the rest of a call.
	rememberedTokens = 20_000
)

var (
	errTokenMissing = fault.New(connect.CodeUnauthenticated, "TOKEN_MISSING", "Sign in, and send the access token as \"Authorization: Bearer …\".")
	errTokenInvalid = fault.New(connect.CodeUnauthenticated, "TOKEN_INVALID", "This is not a valid access token. Sign in again.")
	// errKeyUnknown is the cause of a refusal that a key to come could undo.
	errKeyUnknown   = errors.New("no such key")
	errTokenExpired = fault.New(connect.CodeUnauthenticated, "TOKEN_EXPIRED", "The access token has expired. Refresh it.")
)

// principal is who is calling, as an access token says.
type principal struct {
	userID    string
	sessionID string
	roles     []string
	version   int64 // the account's authorisation version
	expire    time.Time
	epoch     int // of the keys that the token was checked with
}

// verifier checks access tokens against the keys that auth publishes, which
// come with its stream of revocations: never is a key asked for because of a
// token.
type verifier struct {
	issuer string
	now    func() time.Time
	keys   atomic.Pointer[keySet]
	seen   *otter.Cache[string, *principal]

	issuerWarning *issuerWarning
}

// keySet is the published keys, newest first, and by id. Its epoch grows when a
// key is retired: what was remembered before counts no more.
type keySet struct {
	published []*authv1.SigningKey
	byID      map[string]ed25519.PublicKey
	epoch     int
}

func newVerifier(issuer string, logger *slog.Logger) (*verifier, error) {
	seen, err := otter.New(&otter.Options[string, *principal]{
		MaximumSize:      rememberedTokens,
		ExpiryCalculator: otter.ExpiryWriting[string, *principal](5 * time.Minute),
	})
	if err != nil {
		return nil, fmt.Errorf("make the memory of tokens: %w", err)
	}
	return &verifier{issuer: issuer, now: time.Now, seen: seen, issuerWarning: &issuerWarning{logger: logger, now: time.Now}}, nil
}

// stop ends what the memory of tokens does beside.
func (v *verifier) stop() { v.seen.StopAllGoroutines() }

// take takes over the published keys. Only one may do so at a time. Keys that
// can't be right leave those that were there in force.
func (v *verifier) take(published []*authv1.SigningKey) error {
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

// newKeySet refuses what auth never publishes: with no key, or with the wrong
// one, every token would be refused.
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
			return nil, fmt.Errorf("signing key %q: its id is empty or another's too", kid)
		}
		set.byID[kid] = key.GetPublicKey()
	}
	return set, nil
}

// retiredIn reports whether a key is gone in the set after.
func (k *keySet) retiredIn(after *keySet) bool {
	for kid, key := range k.byID {
		if !bytes.Equal(key, after.byID[kid]) {
			return true
		}
	}
	return false
}

func (v *verifier) hasKeys() bool { return v.keys.Load() != nil }

// accessClaims are the claims that we rely on (RFC 9068).
type accessClaims struct {
	jwt.RegisteredClaims
	ClientID  string
	SessionID string
	Roles     []string
	Version   int64
}

// UnmarshalJSON takes a claim by its exact name, once, and a time as a number
// (RFC 7519, sections 2 and 4). Left to itself, encoding/json would take "SUB"
// for "sub", the last of two, and a time in quotes.
func (c *accessClaims) UnmarshalJSON(data []byte) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	if start, err := decoder.Token(); err != nil || start != json.Delim('{') {
		return errors.New("the claims are no object")
	}
	seen := map[string]bool{}
	for decoder.More() {
		token, err := decoder.Token()
		if err != nil {
			return err
		}
		name, _ := token.(string)
		if seen[name] {
			return fmt.Errorf("claim %q comes twice", name)
		}
		seen[name] = true
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			return err
		}
		field := c.field(name)
		if _, ok := field.(**jwt.NumericDate); ok {
			if err := rpc.CheckNumericDate(value); err != nil {
				return fmt.Errorf("claim %q: %w", name, err)
			}
		}
		if err := json.Unmarshal(value, field); err != nil {
			return fmt.Errorf("claim %q: %w", name, err)
		}
	}
	return nil
}

// field returns where a claim goes; one that we don't know goes nowhere.
func (c *accessClaims) field(name string) any {
	switch name {
	case "iss":
		return &c.Issuer
	case "sub":
		return &c.Subject
	case "aud":
		return &c.Audience
	case "exp":
		return &c.ExpiresAt
	case "nbf":
		return &c.NotBefore
	case "iat":
		return &c.IssuedAt
	case "client_id":
		return &c.ClientID
	case "sid":
		return &c.SessionID
	case "roles":
		return &c.Roles
	case "ver":
		return &c.Version
	default:
		return new(json.RawMessage)
	}
}

// verify returns whose token it is. Errors: unauthenticated TOKEN_INVALID or
// TOKEN_EXPIRED, unavailable SERVICE_UNAVAILABLE while there are no keys.
func (v *verifier) verify(token string) (*principal, error) {
	if who, known, err := v.recall(token); known {
		return who, err
	}
	return v.check(token)
}

// recall is verify for a token that needs no check: it is remembered, or there is
// nothing to check it with. Of any other it reports that it isn't known.
func (v *verifier) recall(token string) (who *principal, known bool, err error) {
	keys := v.keys.Load()
	if keys == nil {
		countVerification(false, fault.Unavailable())
		return nil, true, fault.Unavailable()
	}
	who, ok := v.seen.GetIfPresent(token)
	if !ok || who.epoch != keys.epoch {
		return nil, false, nil
	}
	if !v.now().Before(who.expire) {
		who, err = nil, errTokenExpired
	}
	countVerification(true, err)
	return who, true, err
}

// remembered returns whose token it is if it was verified before and still holds,
// else nil. It counts nothing.
func (v *verifier) remembered(token string) *principal {
	keys := v.keys.Load()
	who, ok := v.seen.GetIfPresent(token)
	if !ok || keys == nil || who.epoch != keys.epoch || !v.now().Before(who.expire) {
		return nil
	}
	return who
}

// check is verify for a token that isn't remembered, and remembers it.
func (v *verifier) check(token string) (who *principal, err error) {
	defer func() { countVerification(false, err) }()
	keys := v.keys.Load()
	if keys == nil {
		return nil, fault.Unavailable()
	}
	var claims accessClaims
	if strings.ContainsAny(token, "\r\n") { // which the base64 decoder skips, even a strict one
		return nil, errTokenInvalid.WithCause(errors.New("token with a line break"))
	}
	_, err = jwt.ParseWithClaims(token, &claims, keys.choose,
		jwt.WithValidMethods([]string{jwt.SigningMethodEdDSA.Alg()}),
		jwt.WithIssuer(v.issuer), jwt.WithAudience(tokenAudience),
		jwt.WithExpirationRequired(), jwt.WithTimeFunc(v.now), jwt.WithStrictDecoding(),
	)
	if errors.Is(err, jwt.ErrTokenExpired) && !errors.Is(err, jwt.ErrTokenSignatureInvalid) {
		return nil, errTokenExpired.WithCause(err)
	}
	if errors.Is(err, jwt.ErrTokenInvalidIssuer) { // looked at only after the signature was found right
		v.issuerWarning.note(v.issuer, claims.Issuer)
	}
	if err != nil {
		return nil, errTokenInvalid.WithCause(err)
	}
	if err := claims.check(v.now()); err != nil {
		return nil, errTokenInvalid.WithCause(err)
	}
	found := &principal{
		userID: claims.Subject, sessionID: claims.SessionID, roles: claims.Roles,
		version: claims.Version, expire: claims.ExpiresAt.Time, epoch: keys.epoch,
	}
	v.seen.Set(token, found)
	return found, nil
}

// choose returns the key that the token's header names, if the header is one
// that auth writes. A key that comes with the token is never looked at.
func (k *keySet) choose(token *jwt.Token) (any, error) {
	// A media type, in any case, with or without its tree (RFC 9068, section 4;
	// RFC 7515, section 4.1.9).
	typ, _ := token.Header["typ"].(string)
	if strings.TrimPrefix(strings.ToLower(typ), "application/") != tokenType {
		return nil, errors.New("not an access token by its type")
	}
	for _, name := range []string{"jwk", "jku", "x5u", "x5c", "crit"} {
		if _, ok := token.Header[name]; ok {
			return nil, fmt.Errorf("header %q is not allowed", name)
		}
	}
	kid, _ := token.Header["kid"].(string)
	key, ok := k.byID[kid]
	if !ok {
		return nil, errKeyUnknown
	}
	return key, nil
}

// check looks at what the JWT library does not.
func (c *accessClaims) check(now time.Time) error {
	if c.ClientID != tokenClient {
		return errors.New("token of another client")
	}
	if c.Version < 1 {
		return errors.New("token of no version")
	}
	// auth's clock may be ahead of ours: its newest tokens count at once.
	if c.IssuedAt == nil || c.IssuedAt.After(now.Add(rpc.ClockSkew)) {
		return errors.New("token from the future")
	}
	if life := c.ExpiresAt.Sub(c.IssuedAt.Time); life > accessTokenLife+rpc.ClockSkew {
		return fmt.Errorf("token lives for %s", life)
	}
	for _, id := range []string{c.Subject, c.SessionID} {
		// In the one form that others compare with.
		if parsed, err := uuid.Parse(id); err != nil || parsed.String() != id {
			return fmt.Errorf("subject or session %q is no UUID", id)
		}
	}
	return nil
}

func (p *principal) hasAny(roles []string) bool {
	return slices.ContainsFunc(roles, func(role string) bool { return slices.Contains(p.roles, role) })
}
