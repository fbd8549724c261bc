package bff

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
	"github.com/maypok86/otter/v2"

	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/rpc"
)

const (
	keysInterval  = 5 * time.Second
	keysRetry     = 250 * time.Millisecond
	keysLimit     = 2 * time.Second
	clockSkew     = 30 * time.Second
	tokenAudience = "gatehouse"
	tokenClient   = "gatehouse"
	tokenType     = "at+jwt"
	// A verified token is remembered, for one Ed25519 check costs as much as
	// the rest of a call.
	rememberedTokens = 20_000
)

var (
	errTokenMissing = rpc.NewError(connect.CodeUnauthenticated, "TOKEN_MISSING", "Sign in, and send the access token as \"Authorization: Bearer …\".")
	errTokenInvalid = rpc.NewError(connect.CodeUnauthenticated, "TOKEN_INVALID", "This is not a valid access token. Sign in again.")
	errTokenExpired = rpc.NewError(connect.CodeUnauthenticated, "TOKEN_EXPIRED", "The access token has expired. Refresh it.")
)

// principal is who is calling, as an access token says.
type principal struct {
	userID    string
	sessionID string
	roles     []string
	expire    time.Time
}

// verifier checks access tokens against the keys that auth publishes. It asks
// auth for keys at intervals of its own and never because of a token.
type verifier struct {
	source authv1.KeyServiceClient
	issuer string
	logger *slog.Logger
	now    func() time.Time
	keys   atomic.Pointer[keySet]
	seen   *otter.Cache[string, *principal]
}

// keySet is the published keys, newest first, and by id.
type keySet struct {
	published []*authv1.SigningKey
	byID      map[string]ed25519.PublicKey
}

func newVerifier(source authv1.KeyServiceClient, issuer string, logger *slog.Logger) (*verifier, error) {
	seen, err := otter.New(&otter.Options[string, *principal]{
		MaximumSize:      rememberedTokens,
		ExpiryCalculator: otter.ExpiryWriting[string, *principal](5 * time.Minute),
	})
	if err != nil {
		return nil, fmt.Errorf("make the memory of tokens: %w", err)
	}
	return &verifier{source: source, issuer: issuer, logger: logger, now: time.Now, seen: seen}, nil
}

// run fetches the keys until ctx ends.
func (v *verifier) run(ctx context.Context) {
	failing := false
	for {
		wait := keysInterval
		err := v.fetch(ctx)
		if err != nil {
			wait = keysRetry
		}
		if ctx.Err() != nil {
			return
		}
		if away := err != nil; away != failing {
			failing = away
			if away {
				v.logger.LogAttrs(ctx, slog.LevelWarn, "signing keys don't come", slog.String("cause", err.Error()))
			} else {
				v.logger.LogAttrs(ctx, slog.LevelInfo, "signing keys come again")
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

func (v *verifier) fetch(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, keysLimit)
	defer cancel()
	response, err := v.source.ListSigningKeys(ctx, &authv1.ListSigningKeysRequest{})
	if err != nil {
		return fmt.Errorf("fetch the signing keys: %w", err)
	}
	set := &keySet{published: response.GetKeys(), byID: map[string]ed25519.PublicKey{}}
	for _, key := range response.GetKeys() {
		if len(key.GetPublicKey()) != ed25519.PublicKeySize {
			return fmt.Errorf("signing key %s has %d bytes", key.GetKid(), len(key.GetPublicKey()))
		}
		set.byID[key.GetKid()] = ed25519.PublicKey(key.GetPublicKey())
	}
	if before := v.keys.Swap(set); before != nil && retired(before, set) {
		v.seen.InvalidateAll()
	}
	return nil
}

// retired reports whether a key is gone.
func retired(before, after *keySet) bool {
	for kid := range before.byID {
		if _, ok := after.byID[kid]; !ok {
			return true
		}
	}
	return false
}

func (v *verifier) hasKeys() bool { return v.keys.Load() != nil }

// accessClaims are the claims that we rely on (RFC 9068).
type accessClaims struct {
	jwt.RegisteredClaims
	ClientID  string   `json:"client_id"`
	SessionID string   `json:"sid"`
	Roles     []string `json:"roles"`
	Version   int64    `json:"ver"`
}

// verify returns whose token it is. Errors: unauthenticated TOKEN_INVALID or
// TOKEN_EXPIRED, unavailable SERVICE_UNAVAILABLE while there are no keys.
func (v *verifier) verify(token string) (*principal, error) {
	if known, ok := v.seen.GetIfPresent(token); ok {
		if v.now().Before(known.expire) {
			return known, nil
		}
		return nil, errTokenExpired
	}
	keys := v.keys.Load()
	if keys == nil {
		return nil, rpc.Unavailable()
	}
	var claims accessClaims
	_, err := jwt.ParseWithClaims(token, &claims, keys.choose,
		jwt.WithValidMethods([]string{jwt.SigningMethodEdDSA.Alg()}),
		jwt.WithIssuer(v.issuer), jwt.WithAudience(tokenAudience),
		jwt.WithExpirationRequired(), jwt.WithTimeFunc(v.now), jwt.WithStrictDecoding(),
	)
	if errors.Is(err, jwt.ErrTokenExpired) && !errors.Is(err, jwt.ErrTokenSignatureInvalid) {
		return nil, errTokenExpired.WithCause(err)
	}
	if err != nil {
		return nil, errTokenInvalid.WithCause(err)
	}
	if err := claims.check(v.now()); err != nil {
		return nil, errTokenInvalid.WithCause(err)
	}
	found := &principal{userID: claims.Subject, sessionID: claims.SessionID, roles: claims.Roles, expire: claims.ExpiresAt.Time}
	v.seen.Set(token, found)
	return found, nil
}

// choose returns the key that the token's header names, if the header is one
// that auth writes. A key that comes with the token is never looked at.
func (k *keySet) choose(token *jwt.Token) (any, error) {
	if typ, _ := token.Header["typ"].(string); typ != tokenType {
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
		return nil, errors.New("no such key")
	}
	return key, nil
}

// check looks at what the JWT library does not.
func (c *accessClaims) check(now time.Time) error {
	if c.ClientID != tokenClient {
		return errors.New("token of another client")
	}
	if c.IssuedAt == nil || c.IssuedAt.After(now.Add(clockSkew)) {
		return errors.New("token from the future")
	}
	for _, id := range []string{c.Subject, c.SessionID} {
		if _, err := uuid.Parse(id); err != nil {
			return fmt.Errorf("subject or session: %w", err)
		}
	}
	return nil
}

func (p *principal) hasAny(roles []string) bool {
	return slices.ContainsFunc(roles, func(role string) bool { return slices.Contains(p.roles, role) })
}
