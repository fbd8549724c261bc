package check

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const ada = "0198c0de-aaaa-7000-8000-00000000a11c"

// gateway signs identity tokens and publishes its key, as a gateway does.
type gateway struct {
	*httptest.Server
	key  ed25519.PrivateKey
	down atomic.Bool
	// accounts answers the calls of AccountFeedService; nil to answer none.
	accounts http.Handler
}

func newGateway(t *testing.T) *gateway { return newGatewayWith(t, nil) }

func newGatewayWith(t *testing.T, accounts http.Handler) *gateway {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	g := &gateway{key: key, accounts: accounts}
	g.Server = httptest.NewServer(g)
	t.Cleanup(g.Close)
	return g
}

func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, accountFeed) && g.accounts != nil {
		g.accounts.ServeHTTP(w, r)
		return
	}
	if r.URL.Path != "/.well-known/identity-jwks.json" || g.down.Load() {
		http.Error(w, "there is nothing here now", http.StatusServiceUnavailable)
		return
	}
	x := base64.RawURLEncoding.EncodeToString(g.key.Public().(ed25519.PublicKey))
	_ = json.NewEncoder(w).Encode(map[string]any{"keys": []map[string]string{
		{"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": "k1", "x": x},
	}})
}

// claims returns those of a token for an upstream.
func (g *gateway) claims(audience string, roles ...string) jwt.MapClaims {
	now := time.Now()
	return jwt.MapClaims{
		"iss": g.URL, "aud": audience, "sub": ada, "sid": "0198c0de-cccc-7000-8000-00000000beef", "roles": roles,
		"client_id": "gatehouse", "iat": now.Unix(), "exp": now.Add(time.Minute).Unix(),
	}
}

// with returns claims with one that is different, or missing if the value is nil.
func with(claims jwt.MapClaims, name string, value any) jwt.MapClaims {
	if claims[name] = value; value == nil {
		delete(claims, name)
	}
	return claims
}

func (g *gateway) sign(t *testing.T, claims jwt.MapClaims) string {
	return signWith(t, jwt.SigningMethodEdDSA, g.key, claims, "identity+jwt", "k1")
}

func signWith(t *testing.T, method jwt.SigningMethod, key any, claims jwt.MapClaims, typ, kid string) string {
	t.Helper()
	token := jwt.NewWithClaims(method, claims)
	token.Header["typ"], token.Header["kid"] = typ, kid
	text, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// invalidTokens returns tokens that each differ in one thing from a valid one for an
// upstream.
func invalidTokens(t *testing.T, g *gateway, audience string, roles ...string) map[string]string {
	t.Helper()
	claims := func() jwt.MapClaims { return g.claims(audience, roles...) }
	public := g.key.Public().(ed25519.PublicKey)
	_, stranger, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	past, now := time.Now().Add(-100*time.Second), time.Now()
	return map[string]string{
		"none at all":               "",
		"garbage":                   "garbage",
		"expired":                   g.sign(t, with(with(claims(), "iat", past.Unix()), "exp", past.Add(time.Minute).Unix())),
		"without an end":            g.sign(t, with(claims(), "exp", nil)),
		"valid for too long":        g.sign(t, with(claims(), "exp", now.Add(time.Hour).Unix())),
		"for another upstream":      g.sign(t, with(claims(), "aud", "other")),
		"for two upstreams":         g.sign(t, with(claims(), "aud", []string{audience, "other"})),
		"of another issuer":         g.sign(t, with(claims(), "iss", "https://other.example.com")),
		"algorithm none":            signWith(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, claims(), "identity+jwt", "k1"),
		"HS256 with the public key": signWith(t, jwt.SigningMethodHS256, []byte(public), claims(), "identity+jwt", "k1"),
		"an access token":           signWith(t, jwt.SigningMethodEdDSA, g.key, claims(), "at+jwt", "k1"),
		"of an unknown key":         signWith(t, jwt.SigningMethodEdDSA, g.key, claims(), "identity+jwt", "k2"),
		"signed by a stranger":      signWith(t, jwt.SigningMethodEdDSA, stranger, claims(), "identity+jwt", "k1"),
	}
}
