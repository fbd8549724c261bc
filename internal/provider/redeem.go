package provider

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	"golang.org/x/oauth2"
)

// Request is one visit to a provider.
type Request struct {
	// RedirectURI is where the provider sends the browser back to.
	RedirectURI string
	// State, Nonce and Verifier are random, 32 bytes each in base64url.
	State, Nonce, Verifier string
	// Fresh asks the provider to let the person sign in again.
	Fresh bool
}

// Answer is what comes back from a provider.
type Answer struct {
	Code string
	// Issuer is the response's iss (RFC 9207); "" without one.
	Issuer string
	// IDToken is that of an app that signed in with the provider's own library,
	// instead of a code.
	IDToken string
	// User is what Apple sends once, as JSON.
	User string
}

// Authorize returns the address to send a browser to. Errors: ErrUnavailable.
func (p *Provider) Authorize(ctx context.Context, r Request) (address string, err error) {
	ctx = context.WithoutCancel(ctx) // see guarded
	err = p.guarded(func() error {
		found, err := p.discover(ctx)
		if err != nil {
			return err
		}
		options := []oauth2.AuthCodeOption{oauth2.S256ChallengeOption(r.Verifier)}
		if p.Kind != GitHub {
			options = append(options, oidc.Nonce(r.Nonce))
		}
		if p.Kind == Apple {
			options = append(options, oauth2.SetAuthURLParam("response_mode", "form_post"))
		}
		if r.Fresh {
			options = append(options, oauth2.SetAuthURLParam("max_age", "0"), oauth2.SetAuthURLParam("prompt", "login"))
		}
		address = p.oauth(found, r.RedirectURI, "").AuthCodeURL(r.State, options...)
		return nil
	})
	return address, err
}

func (p *Provider) oauth(found *metadata, redirectURI, secret string) *oauth2.Config {
	style := oauth2.AuthStyleInParams
	if secret != "" && p.Kind != Apple && !slices.Contains(found.AuthMethods, "client_secret_post") {
		style = oauth2.AuthStyleInHeader
	}
	return &oauth2.Config{
		ClientID: p.ClientID, ClientSecret: secret, RedirectURL: redirectURI, Scopes: p.scopes(),
		Endpoint: oauth2.Endpoint{AuthURL: found.AuthorizationEndpoint, TokenURL: found.TokenEndpoint, AuthStyle: style},
	}
}

func (p *Provider) scopes() []string {
	scopes := []string{"openid", "email", "profile"}
	switch p.Kind {
	case Apple:
		scopes = []string{"openid", "email", "name"}
	case GitHub:
		scopes = []string{"read:user", "user:email"}
	}
	for _, scope := range p.Scopes {
		if !slices.Contains(scopes, scope) {
			scopes = append(scopes, scope)
		}
	}
	return scopes
}

// Redeem exchanges an answer to the request for an identity. Errors: ErrUnavailable,
// ErrRefused.
func (p *Provider) Redeem(ctx context.Context, r Request, a Answer) (found Identity, err error) {
	ctx = context.WithoutCancel(ctx) // see guarded
	err = p.guarded(func() error {
		found, err = p.redeem(ctx, r, a)
		return err
	})
	if err != nil {
		return Identity{}, err
	}
	return found, nil
}

func (p *Provider) redeem(ctx context.Context, r Request, a Answer) (Identity, error) {
	described, err := p.discover(ctx)
	if err != nil {
		return Identity{}, err
	}
	if a.IDToken != "" && p.Kind != GitHub { // it names its issuer itself
		verified, err := p.verify(ctx, described, a.IDToken, r.Nonce, p.ClientIDs...)
		if err != nil {
			return Identity{}, err
		}
		return p.identity(verified, a.User)
	}
	if err := p.checkResponseIssuer(described, a.Issuer); err != nil {
		return Identity{}, err
	}
	token, err := p.exchange(ctx, described, r, a.Code)
	if err != nil {
		return Identity{}, err
	}
	if p.Kind == GitHub {
		return p.githubIdentity(ctx, token.AccessToken)
	}
	raw, _ := token.Extra("id_token").(string)
	verified, err := p.verify(ctx, described, raw, r.Nonce)
	if err != nil {
		return Identity{}, err
	}
	if verified.AtHash != "" {
		if err := checkAtHash(verified.AtHash, verified.algorithm, token.AccessToken); err != nil {
			return Identity{}, err
		}
	}
	if verified.Email == "" && described.UserinfoEndpoint != "" && p.Kind == OIDC {
		if err := p.addUserinfo(ctx, described, token.AccessToken, verified); err != nil {
			return Identity{}, err
		}
	}
	return p.identity(verified, a.User)
}

// checkResponseIssuer refuses an answer of another provider (RFC 9207, section 2.4).
func (p *Provider) checkResponseIssuer(described *metadata, got string) error {
	if got == "" && !described.IssInResponse {
		return nil
	}
	if p.Kind == Microsoft && got != "" && !described.IssInResponse {
		return nil // with a tenant; the ID token's is checked
	}
	if got != described.Issuer {
		return fmt.Errorf("%w: the response's iss is %q, want %q", ErrRefused, got, described.Issuer)
	}
	return nil
}

func (p *Provider) exchange(ctx context.Context, described *metadata, r Request, code string) (*oauth2.Token, error) {
	secret := p.ClientSecret
	if p.Kind == Apple {
		signed, err := p.appleSecret()
		if err != nil {
			return nil, err
		}
		secret = signed
	}
	ctx = context.WithValue(ctx, oauth2.HTTPClient, p.http)
	token, err := p.oauth(described, r.RedirectURI, secret).Exchange(ctx, code, oauth2.VerifierOption(r.Verifier))
	if refusal, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
		status := http.StatusOK
		if refusal.Response != nil {
			status = refusal.Response.StatusCode
		}
		if status >= http.StatusInternalServerError || status == http.StatusTooManyRequests {
			return nil, fmt.Errorf("%w: exchange the code: %s", ErrUnavailable, refusal.Response.Status)
		}
		// Not the body: it is the provider's text.
		return nil, fmt.Errorf("%w: exchange the code: status %d, error %q", ErrRefused, status, refusal.ErrorCode)
	}
	if _, ok := errors.AsType[*url.Error](err); ok {
		return nil, fmt.Errorf("%w: exchange the code: %w", ErrUnavailable, err)
	}
	if errors.Is(err, errTooLarge) {
		return nil, fmt.Errorf("%w: exchange the code: %w", ErrUnavailable, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: exchange the code: %w", ErrRefused, err)
	}
	return token, nil
}

// algorithms are those that are accepted, if the provider uses them: none that is
// symmetric, and not "none".
var algorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

// clockSkew is how far the provider's clock may be ahead.
const clockSkew = 2 * time.Minute

// maxSubject is the longest subject (OpenID Connect Core 1.0, section 2).
const maxSubject = 255

// keysAt verifies by the keys at an address. It is an [oidc.KeySet].
type keysAt struct {
	keys       *keySet
	address    string
	algorithms []jose.SignatureAlgorithm
	// failure is why the keys could not be fetched: go-oidc does not wrap it.
	failure error
}

func (k *keysAt) VerifySignature(ctx context.Context, token string) ([]byte, error) {
	parsed, err := jose.ParseSignedCompact(token, k.algorithms)
	if err != nil {
		return nil, err
	}
	payload, err := k.keys.verify(ctx, k.address, parsed)
	if errors.Is(err, ErrUnavailable) {
		k.failure = err
	}
	return payload, err
}

// verify verifies an ID token (OpenID Connect Core 1.0, section 3.1.3.7), which may also
// be issued to one of the apps.
func (p *Provider) verify(ctx context.Context, described *metadata, raw, nonce string, apps ...string) (*claims, error) {
	if raw == "" {
		return nil, fmt.Errorf("%w: no ID token", ErrRefused)
	}
	offered := []string{"RS256"}
	if len(described.Algorithms) > 0 {
		offered = described.Algorithms
	}
	offered = slices.DeleteFunc(slices.Clone(offered), func(name string) bool { return !slices.Contains(algorithms, name) })
	var allowed []jose.SignatureAlgorithm
	for _, name := range offered {
		allowed = append(allowed, jose.SignatureAlgorithm(name))
	}
	keys := &keysAt{keys: p.keys, address: described.JWKSURI, algorithms: allowed}
	verifier := oidc.NewVerifier(described.Issuer, keys, &oidc.Config{
		SkipClientIDCheck: true, SupportedSigningAlgs: offered, Now: p.now, SkipIssuerCheck: p.Kind == Microsoft,
	})
	token, err := verifier.Verify(ctx, raw)
	if err != nil && keys.failure != nil {
		return nil, keys.failure
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	var found claims
	if err := token.Claims(&found); err != nil {
		return nil, fmt.Errorf("%w: decode the claims: %w", ErrRefused, err)
	}
	found.algorithm = algorithmOf(raw)
	switch {
	case token.Subject == "" || len(token.Subject) > maxSubject:
		return nil, fmt.Errorf("%w: a subject of %d bytes", ErrRefused, len(token.Subject))
	case nonce == "" || token.Nonce != nonce:
		return nil, fmt.Errorf("%w: another nonce", ErrRefused)
	case !p.mayRead(token.Audience, found.AZP, apps):
		return nil, fmt.Errorf("%w: issued to another client", ErrRefused)
	case token.IssuedAt.IsZero() || token.IssuedAt.After(p.now().Add(clockSkew)):
		return nil, fmt.Errorf("%w: issued in the future", ErrRefused)
	case p.Kind == Microsoft && token.Issuer != strings.Replace(p.issuer(), "{tenantid}", found.TID, 1):
		return nil, fmt.Errorf("%w: the issuer is not the tenant's", ErrRefused)
	case p.Kind == Microsoft && !isUUID(found.TID):
		return nil, fmt.Errorf("%w: the tenant is not a UUID", ErrRefused)
	}
	found.issuer, found.subject = token.Issuer, token.Subject
	if p.Kind == Google {
		found.issuer = p.issuer() // Google also sends it without https://
	}
	return &found, nil
}

// mayRead reports whether a token is for this client or one of the apps, and was asked
// for by one of them.
func (p *Provider) mayRead(audience []string, authorized string, apps []string) bool {
	ours := func(id string) bool { return id != "" && (id == p.ClientID || slices.Contains(apps, id)) }
	return slices.ContainsFunc(audience, ours) && (authorized == "" && len(audience) == 1 || ours(authorized))
}

// addUserinfo adds the claims of the userinfo endpoint. They have to be about the same
// person (OpenID Connect Core 1.0, section 5.3.2).
func (p *Provider) addUserinfo(ctx context.Context, described *metadata, token string, into *claims) error {
	parsed, err := url.Parse(described.UserinfoEndpoint)
	if err != nil || parsed.Host == "" || !isSecure(parsed) || !p.mayName(parsed) {
		return fmt.Errorf("%w: its userinfo_endpoint is not an https URL", ErrUnavailable)
	}
	var more struct {
		Subject string `json:"sub"`
		claims
	}
	if err := p.fetch(ctx, described.UserinfoEndpoint, token, &more); err != nil {
		return err
	}
	if more.Subject != into.subject {
		return fmt.Errorf("%w: the userinfo is about another subject", ErrRefused)
	}
	into.Email, into.EmailVerified = more.Email, more.EmailVerified
	into.GivenName, into.FamilyName = more.GivenName, more.FamilyName
	return nil
}

func algorithmOf(raw string) string {
	var header struct {
		Algorithm string `json:"alg"`
	}
	encoded, _, _ := strings.Cut(raw, ".")
	if text, err := decode(encoded); err == nil {
		_ = json.Unmarshal(text, &header)
	}
	return header.Algorithm
}
