// Package providertest is another provider for tests: a real HTTP server with the
// endpoints of OpenID Connect, whose answers a test can spoil.
package providertest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Provider is a provider with one key, which it signs ID tokens with.
type Provider struct {
	URL string
	// Prefix is the path of the issuer, such as "/tenant/v2.0".
	Prefix string
	Key    *rsa.PrivateKey

	mu sync.Mutex
	// Claims are added to ID tokens, and replace those of the provider; nil removes one.
	claims jwt.MapClaims
	// Spoil changes the answer of an endpoint; false leaves it as it is.
	spoil map[string]func(w http.ResponseWriter, r *http.Request) bool
	sign  func(claims jwt.MapClaims) string
	codes map[string]visit
	calls map[string]int
}

type visit struct {
	nonce, challenge, redirectURI, client string
	claims                                jwt.MapClaims
}

// New starts a provider.
func New(t testing.TB) *Provider {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p := &Provider{Key: key, codes: map[string]visit{}, calls: map[string]int{}}
	p.Reset()
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	p.URL = server.URL
	return p
}

// Reset makes the provider behave.
func (p *Provider) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.claims, p.spoil = jwt.MapClaims{}, map[string]func(http.ResponseWriter, *http.Request) bool{}
	p.sign = func(claims jwt.MapClaims) string { return Sign(jwt.SigningMethodRS256, p.Key, "one", claims) }
}

// Issuer is the provider's issuer.
func (p *Provider) Issuer() string { return p.URL + p.Prefix }

// SetClaims sets what ID tokens say.
func (p *Provider) SetClaims(claims jwt.MapClaims) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.claims = claims
}

// SetSign replaces how ID tokens are signed.
func (p *Provider) SetSign(sign func(claims jwt.MapClaims) string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sign = sign
}

// Spoil replaces the answer at a path.
func (p *Provider) Spoil(path string, answer func(w http.ResponseWriter, r *http.Request)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.spoil[path] = func(w http.ResponseWriter, r *http.Request) bool { answer(w, r); return true }
}

// Before calls a function before each answer at a path.
func (p *Provider) Before(path string, call func(r *http.Request)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.spoil[path] = func(_ http.ResponseWriter, r *http.Request) bool { call(r); return false }
}

// Calls returns how often a path was requested.
func (p *Provider) Calls(path string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls[path]
}

// Sign signs claims.
func Sign(method jwt.SigningMethod, key any, kid string, claims jwt.MapClaims) string {
	token := jwt.NewWithClaims(method, claims)
	token.Header["kid"] = kid
	signed, err := token.SignedString(key)
	if err != nil {
		panic(err)
	}
	return signed
}

// Visit is a person who signs in at the address that a browser was sent to. It returns
// the query of the callback.
func (p *Provider) Visit(t testing.TB, address string) url.Values {
	t.Helper()
	return p.VisitAs(t, address, nil)
}

// VisitAs is Visit by a person of whom the provider says these claims besides its own.
func (p *Provider) VisitAs(t testing.TB, address string, claims jwt.MapClaims) url.Values {
	t.Helper()
	parsed, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	q := parsed.Query()
	if q.Get("code_challenge_method") != "S256" || q.Get("state") == "" || q.Get("response_type") != "code" {
		t.Fatalf("the browser was sent to %s: want PKCE, a state and a code", address)
	}
	raw := make([]byte, 16)
	_, _ = rand.Read(raw)
	code := base64.RawURLEncoding.EncodeToString(raw)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.codes[code] = visit{q.Get("nonce"), q.Get("code_challenge"), q.Get("redirect_uri"), q.Get("client_id"), claims}
	return url.Values{"code": {code}, "state": {q.Get("state")}}
}

// JWKS are the provider's keys.
func (p *Provider) JWKS() map[string]any {
	e := base64.RawURLEncoding.EncodeToString(big.NewInt(int64(p.Key.E)).Bytes())
	return map[string]any{"keys": []any{
		map[string]any{"kty": "RSA", "kid": "one", "use": "sig", "alg": "RS256", "n": base64.RawURLEncoding.EncodeToString(p.Key.N.Bytes()), "e": e},
	}}
}

// Metadata are the provider's.
func (p *Provider) Metadata() map[string]any {
	return map[string]any{
		"issuer": p.Issuer(), "authorization_endpoint": p.URL + "/authorize", "token_endpoint": p.URL + "/token", "jwks_uri": p.URL + "/keys",
		"userinfo_endpoint": p.URL + "/userinfo", "id_token_signing_alg_values_supported": []string{"RS256"},
	}
}

// ServeHTTP implements [http.Handler].
func (p *Provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.calls[r.URL.Path]++
	spoil := p.spoil[r.URL.Path]
	p.mu.Unlock()
	if spoil != nil && spoil(w, r) {
		return
	}
	switch r.URL.Path {
	case p.Prefix + "/.well-known/openid-configuration":
		JSON(w, p.Metadata())
	case "/keys":
		JSON(w, p.JWKS())
	case "/userinfo":
		JSON(w, map[string]any{"sub": p.subject()})
	case "/token", "/login/oauth/access_token":
		p.token(w, r)
	default:
		http.NotFound(w, r)
	}
}

func (p *Provider) subject() any {
	p.mu.Lock()
	defer p.mu.Unlock()
	if replaced, ok := p.claims["sub"]; ok {
		return replaced
	}
	return "ada"
}

// JSON writes an answer.
func JSON(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(value)
}

func (p *Provider) token(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	code := r.FormValue("code")
	found, ok := p.codes[code]
	delete(p.codes, code)
	sum := sha256.Sum256([]byte(r.FormValue("code_verifier")))
	if !ok || r.FormValue("redirect_uri") != found.redirectURI || base64.RawURLEncoding.EncodeToString(sum[:]) != found.challenge {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"error":"invalid_grant"}`)
		return
	}
	claims := jwt.MapClaims{
		"iss": p.Issuer(), "aud": found.client, "sub": "ada", "nonce": found.nonce,
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(), "auth_time": time.Now().Unix(),
		"email": "ada@example.com", "email_verified": true, "given_name": "Ada", "family_name": "Lovelace",
	}
	for name, value := range merged(p.claims, found.claims) {
		if value == nil {
			delete(claims, name)
		} else {
			claims[name] = value
		}
	}
	JSON(w, map[string]any{"access_token": "access", "token_type": "Bearer", "expires_in": 60, "id_token": p.sign(claims)})
}

func merged(all, own jwt.MapClaims) jwt.MapClaims {
	claims := maps.Clone(all)
	maps.Copy(claims, own)
	return claims
}

// NewECKey returns a P-256 key.
func NewECKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
