// Package identity verifies the tokens by which the gateway says to a service of the
// application who is calling, and access tokens for an API that callers reach without
// the gateway ([NewAccess]).
//
// The gateway replaces the caller's own token with an identity token for the one service
// that it calls: a JWT (RFC 7519) signed with Ed25519 (RFC 8037), of the type
// identity+jwt, valid for at most 60 s. A [Verifier] checks it with the gateway's public
// keys, so that a service needs no secret. [Verifier.Middleware] and
// [Verifier.Interceptor] do so for each call, and [FromContext] returns the caller.
package identity

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	// DefaultLeeway is how far the clocks of the gateway and the service may differ.
	DefaultLeeway = 30 * time.Second

	// maxToken bounds the work for a token that the gateway did not make.
	maxToken = 16 << 10
)

var (
	// ErrKeysUnavailable is the error of a token that cannot be judged, because the
	// gateway's keys have never been fetched. The token may be valid.
	ErrKeysUnavailable = errors.New("the gateway's keys are unavailable")
	// ErrAnonymous is the error of a valid token without a subject, where a signed-in
	// caller is required.
	ErrAnonymous = errors.New("the caller is not signed in")
)

// kind is a kind of token that the gateway makes.
type kind struct {
	name, mediaType, keysPath string
	maxLife                   time.Duration
	missing, invalid          string
}

var (
	identityToken = kind{
		name: "identity token", mediaType: "identity+jwt", keysPath: "/.well-known/identity-jwks.json", maxLife: 60 * time.Second,
		missing: "Identity token is missing. Call this service through the gateway.",
		invalid: "Identity token is not valid. Call this service through the gateway.",
	}
	// RFC 9068. The gateway's own tokens have the audience "gatehouse".
	accessToken = kind{
		name: "access token", mediaType: "at+jwt", keysPath: "/.well-known/jwks.json", maxLife: 330 * time.Second,
		missing: `Access token is missing. Sign in, and send it as "Authorization: Bearer …".`,
		invalid: "Access token is not valid. Refresh it, or sign in again.",
	}
)

// Claims says who is calling.
type Claims struct {
	// Subject is the user's id, a UUID in lower case. It is empty if the caller is not
	// signed in.
	Subject   string
	SessionID string
	Roles     []string
	// ACR, AMR and AuthTime say how and when the user signed in (OpenID Connect Core,
	// section 2).
	ACR      string
	AMR      []string
	AuthTime time.Time
	// ClientID is the OAuth client that the caller uses, and Scope what it may do.
	ClientID string
	Scope    []string
	// ExpireTime is when the token expires.
	ExpireTime time.Time
}

// Anonymous reports whether the caller is not signed in.
func (c *Claims) Anonymous() bool { return c.Subject == "" }

// HasRole reports whether the user has a role.
func (c *Claims) HasRole(role string) bool { return slices.Contains(c.Roles, role) }

// Config configures a [Verifier].
type Config struct {
	// Issuer is the gateway's public URL (GATEHOUSE_PUBLIC_URL), such as
	// "https://gatehouse.example.com".
	Issuer string
	// Audience is the name of this service, as the gateway's upstreams.yaml has it.
	Audience string
	// KeysURL is where the gateway's public keys are. The default is
	// /.well-known/identity-jwks.json below Issuer, or /.well-known/jwks.json for access
	// tokens; set it if the service reaches the
	// gateway at another address.
	KeysURL string
	// Leeway is how far clocks may differ. The default is DefaultLeeway.
	Leeway time.Duration
	// HTTPClient fetches the keys. The default is http.DefaultClient.
	HTTPClient *http.Client
	// AllowAnonymous also accepts callers who are not signed in. The service then
	// checks Claims.Anonymous where it matters.
	AllowAnonymous bool
}

// Verifier verifies tokens of one kind. It is safe for concurrent use.
type Verifier struct {
	kind           kind
	audience       string
	leeway         time.Duration
	allowAnonymous bool
	now            func() time.Time
	keys           *keySet
	parser         *jwt.Parser
}

// New returns a verifier of identity tokens. It fetches no keys yet, so a service may
// start before the gateway does.
func New(config Config) (*Verifier, error) { return newVerifier(identityToken, config) }

// NewAccess returns a verifier of access tokens, for an API that callers reach without
// the gateway. Config.Audience is "gatehouse" by default, as in the gateway's tokens. It
// learns of a sign-out or a change of roles only when the token expires, after at most
// five minutes.
func NewAccess(config Config) (*Verifier, error) {
	config.Audience = cmp.Or(config.Audience, "gatehouse")
	return newVerifier(accessToken, config)
}

func newVerifier(kind kind, config Config) (*Verifier, error) {
	if config.Issuer == "" || config.Audience == "" {
		return nil, errors.New("identity: Issuer and Audience are required")
	}
	if config.KeysURL == "" {
		config.KeysURL = strings.TrimSuffix(config.Issuer, "/") + kind.keysPath
	}
	if parsed, err := url.Parse(config.KeysURL); err != nil || parsed.Host == "" || parsed.Scheme != "http" && parsed.Scheme != "https" {
		return nil, fmt.Errorf("identity: %q is not an http or https URL", config.KeysURL)
	}
	if config.Leeway == 0 {
		config.Leeway = DefaultLeeway
	}
	if config.HTTPClient == nil {
		config.HTTPClient = http.DefaultClient
	}
	v := &Verifier{
		kind: kind, audience: config.Audience, leeway: config.Leeway, allowAnonymous: config.AllowAnonymous, now: time.Now,
		keys: &keySet{url: config.KeysURL, client: config.HTTPClient, now: time.Now},
	}
	v.parser = jwt.NewParser(
		jwt.WithValidMethods([]string{jwt.SigningMethodEdDSA.Alg()}), jwt.WithIssuer(config.Issuer), jwt.WithAudience(config.Audience),
		jwt.WithExpirationRequired(), jwt.WithLeeway(config.Leeway), jwt.WithStrictDecoding(),
		jwt.WithTimeFunc(func() time.Time { return v.now() }),
	)
	return v, nil
}

// Verify checks a token and returns its claims. The error is [ErrKeysUnavailable],
// [ErrAnonymous], the context's, or says what is wrong with the token; only the service's
// log should have that.
func (v *Verifier) Verify(ctx context.Context, token string) (*Claims, error) {
	if len(token) > maxToken || strings.ContainsAny(token, "\r\n") { // the base64 decoder skips line breaks
		return nil, errors.New(v.kind.name + " is malformed")
	}
	var c claims
	_, err := v.parser.ParseWithClaims(token, &c, func(parsed *jwt.Token) (any, error) { return v.chooseKey(ctx, parsed) })
	if err != nil {
		return nil, fmt.Errorf("%s: %w", v.kind.name, err)
	}
	if err := c.check(v); err != nil {
		return nil, fmt.Errorf("%s: %w", v.kind.name, err)
	}
	if c.Subject == "" && !v.allowAnonymous {
		return nil, ErrAnonymous
	}
	verified := &Claims{
		Subject: c.Subject, SessionID: c.SessionID, Roles: c.Roles, ACR: c.ACR, AMR: c.AMR,
		ClientID: c.ClientID, Scope: strings.Fields(c.Scope), ExpireTime: c.ExpiresAt.Time,
	}
	if c.AuthTime != nil {
		verified.AuthTime = c.AuthTime.Time
	}
	return verified, nil
}

// chooseKey returns the key that the token's header names. A key that the token itself
// carries is never used.
func (v *Verifier) chooseKey(ctx context.Context, token *jwt.Token) (ed25519.PublicKey, error) {
	// A media type, in any case, with or without its tree (RFC 7515, section 4.1.9). It
	// tells an identity token from an access token, which has another audience too.
	typ, _ := token.Header["typ"].(string)
	if strings.TrimPrefix(strings.ToLower(typ), "application/") != v.kind.mediaType {
		return nil, fmt.Errorf("its type is %q, not %s", typ, v.kind.mediaType)
	}
	for _, name := range []string{"jwk", "jku", "x5u", "x5c", "crit"} {
		if _, ok := token.Header[name]; ok {
			return nil, fmt.Errorf("header %q is not allowed", name)
		}
	}
	id, _ := token.Header["kid"].(string)
	if id == "" {
		return nil, errors.New("it names no key")
	}
	return v.keys.find(ctx, id)
}

// claims are the claims of a token as it has them.
type claims struct {
	jwt.RegisteredClaims
	SessionID string           `json:"sid"`
	Roles     []string         `json:"roles"`
	ACR       string           `json:"acr"`
	AMR       []string         `json:"amr"`
	AuthTime  *jwt.NumericDate `json:"auth_time"`
	ClientID  string           `json:"client_id"`
	Scope     string           `json:"scope"`
}

// check checks what the JWT library does not.
func (c *claims) check(v *Verifier) error {
	// With two audiences, one of them could present the token to the other.
	if len(c.Audience) != 1 || c.Audience[0] != v.audience {
		return fmt.Errorf("its audience is %q, not %q alone", c.Audience, v.audience)
	}
	if c.IssuedAt == nil || c.IssuedAt.After(v.now().Add(v.leeway)) {
		return errors.New("it is from the future")
	}
	if life := c.ExpiresAt.Sub(c.IssuedAt.Time); life > v.kind.maxLife {
		return fmt.Errorf("it lives for %s, more than %s", life, v.kind.maxLife)
	}
	return nil
}
