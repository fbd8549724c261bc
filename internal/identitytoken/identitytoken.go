// Package identitytoken mints the tokens by which the gateway tells an upstream who is
// calling.
//
// An identity token is a JWT signed with Ed25519 (RFC 8037), of the type identity+jwt.
// Its audience is the name of one upstream, so that another one refuses it, and it is
// valid for [Life]. Its signing key is derived from a key that only gateways have.
// The public keys are a JWK set, so that an upstream needs no secret and can forge no
// token.
package identitytoken

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	// Life is how long a token is valid.
	Life = 60 * time.Second
	// reuse is how long a token is used for further calls. What is left of its life
	// is for the call, and for an upstream's clock that is ahead.
	reuse = Life / 2
	// MediaType is the type in a token's header.
	MediaType = "identity+jwt"
	// JWKSPath is where the public keys are published.
	JWKSPath = "/.well-known/identity-jwks.json"
	// maxTokens bounds the memory for tokens in use: twice as many, of about 1 KiB.
	maxTokens = 16 << 10
)

// Caller is who is calling, as an upstream gets to know it. The zero value is nobody:
// a call of a method that anyone may call.
type Caller struct {
	UserID    string
	SessionID string
	Roles     []string
	// ClientID is the OAuth client that the caller uses, and Scope what it may do.
	ClientID, Scope string
	// ACR, AMR and AuthTime say how and when the caller signed in (OpenID Connect
	// Core, section 2).
	ACR      string
	AMR      []string
	AuthTime time.Time
}

// Issuer mints tokens.
type Issuer struct {
	issuer string
	keys   []key
	now    func() time.Time

	mu sync.Mutex
	// Tokens in use, by upstream and caller. Those of the time before are looked up
	// too, and forgotten with the next turn, so that no token has to be removed.
	recent, earlier map[string]token
	turned          time.Time
}

type key struct {
	id      string
	private ed25519.PrivateKey
}

type token struct {
	text string
	made time.Time
}

// NewIssuer returns an issuer of tokens in the name of a URL. Tokens are signed with the
// key that is derived from the first secret; the public keys of all are published.
func NewIssuer(issuer string, secrets [][]byte) (*Issuer, error) {
	i := &Issuer{issuer: issuer, now: time.Now, recent: map[string]token{}}
	for _, secret := range secrets {
		seed, err := hkdf.Key(sha256.New, secret, nil, "gatehouse identity token v1", ed25519.SeedSize)
		if err != nil {
			return nil, fmt.Errorf("derive the key of identity tokens: %w", err)
		}
		private := ed25519.NewKeyFromSeed(seed)
		hash := sha256.Sum256(private.Public().(ed25519.PublicKey))
		i.keys = append(i.keys, key{id: base64.RawURLEncoding.EncodeToString(hash[:9]), private: private})
	}
	return i, nil
}

// ErrNoKey is the error of an issuer without a key.
var ErrNoKey = errors.New("no identity key: set GATEHOUSE_IDENTITY_KEY")

// Token returns a token that tells an upstream who is calling, valid for at least
// another half of [Life].
func (i *Issuer) Token(upstream string, who Caller) (string, error) {
	if len(i.keys) == 0 {
		return "", ErrNoKey
	}
	of := cacheKey(upstream, who)
	now := i.now().Round(0) // by the wall clock, as the upstream judges it
	if text, ok := i.inUse(of, now); ok {
		return text, nil
	}
	text, err := i.mint(upstream, who, now)
	if err != nil {
		return "", err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if now.Sub(i.turned) >= reuse || now.Before(i.turned) || len(i.recent) >= maxTokens {
		i.earlier, i.recent, i.turned = i.recent, map[string]token{}, now
	}
	i.recent[of] = token{text, now}
	return text, nil
}

func (i *Issuer) inUse(of string, now time.Time) (string, bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	known, ok := i.recent[of]
	if !ok {
		known, ok = i.earlier[of]
	}
	age := now.Sub(known.made)
	return known.text, ok && age >= 0 && age < reuse
}

// cacheKey is everything that a token says, besides its times.
func cacheKey(upstream string, who Caller) string {
	var text strings.Builder
	for _, part := range []string{upstream, who.UserID, who.SessionID, who.ClientID, who.Scope, who.ACR, strings.Join(who.Roles, "\x01"), strings.Join(who.AMR, "\x01")} {
		text.WriteString(part)
		text.WriteByte(0)
	}
	if !who.AuthTime.IsZero() {
		fmt.Fprint(&text, who.AuthTime.Unix())
	}
	return text.String()
}

// claims are those of an identity token. An anonymous caller has no subject.
type claims struct {
	jwt.RegisteredClaims
	SessionID string           `json:"sid,omitempty"`
	Roles     []string         `json:"roles,omitempty"`
	ClientID  string           `json:"client_id,omitempty"`
	Scope     string           `json:"scope,omitempty"`
	ACR       string           `json:"acr,omitempty"`
	AMR       []string         `json:"amr,omitempty"`
	AuthTime  *jwt.NumericDate `json:"auth_time,omitempty"`
}

func (i *Issuer) mint(upstream string, who Caller, now time.Time) (string, error) {
	said := claims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer: i.issuer, Subject: who.UserID,
			// One name, not a list of one: some libraries compare texts.
			IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(Life)),
		},
		SessionID: who.SessionID, Roles: who.Roles, ClientID: who.ClientID, Scope: who.Scope, ACR: who.ACR, AMR: who.AMR,
	}
	if !who.AuthTime.IsZero() {
		said.AuthTime = jwt.NewNumericDate(who.AuthTime)
	}
	made := jwt.NewWithClaims(jwt.SigningMethodEdDSA, struct {
		claims
		Audience string `json:"aud"`
	}{said, upstream})
	made.Header["typ"] = MediaType
	made.Header["kid"] = i.keys[0].id
	text, err := made.SignedString(i.keys[0].private)
	if err != nil {
		return "", fmt.Errorf("sign an identity token: %w", err)
	}
	return text, nil
}

// ServeHTTP publishes the public keys as a JWK set (RFC 7517, RFC 8037). Without an
// issuer there are none.
func (i *Issuer) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	type jwk struct {
		KeyType   string `json:"kty"`
		Curve     string `json:"crv"`
		Algorithm string `json:"alg"`
		Use       string `json:"use"`
		KeyID     string `json:"kid"`
		X         string `json:"x"`
	}
	set := struct {
		Keys []jwk `json:"keys"`
	}{Keys: []jwk{}}
	if i != nil {
		for _, key := range i.keys {
			public := key.private.Public().(ed25519.PublicKey)
			set.Keys = append(set.Keys, jwk{
				KeyType: "OKP", Curve: "Ed25519", Algorithm: "EdDSA", Use: "sig", KeyID: key.id, X: base64.RawURLEncoding.EncodeToString(public),
			})
		}
	}
	w.Header().Set("Content-Type", "application/jwk-set+json")
	w.Header().Set("Cache-Control", "public, max-age=60")
	_ = json.NewEncoder(w).Encode(set)
}
