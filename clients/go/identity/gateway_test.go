package identity_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"gatehouse.example/client/identity"
)

const issuer = "https://gatehouse.example.com"

// gateway publishes keys over HTTP and signs tokens, as a gateway does. Its handler can
// be replaced, and it counts the fetches.
type gateway struct {
	*httptest.Server

	mu      sync.Mutex
	keys    map[string]ed25519.PrivateKey
	down    bool
	fetches int
	hold    chan struct{} // a fetch waits until it is closed
}

func newGateway(t *testing.T) *gateway {
	t.Helper()
	g := &gateway{keys: map[string]ed25519.PrivateKey{}}
	g.addKey(t, "k1")
	g.Server = httptest.NewServer(g)
	t.Cleanup(g.Close)
	return g
}

func (g *gateway) addKey(t *testing.T, id string) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.keys[id] = private
}

func (g *gateway) removeKey(id string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.keys, id)
}

func (g *gateway) setDown(down bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.down = down
}

func (g *gateway) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.fetches
}

func (g *gateway) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	g.mu.Lock()
	g.fetches++
	hold := g.hold
	g.mu.Unlock()
	if hold != nil {
		<-hold
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.down {
		http.Error(w, "down", http.StatusBadGateway)
		return
	}
	keys := []map[string]string{
		{"kty": "RSA", "kid": "k1", "n": "AQAB", "e": "AQAB"}, // of another kind: ignored
		{"kty": "OKP", "crv": "X25519", "kid": "other", "x": base64.RawURLEncoding.EncodeToString(make([]byte, 32))},
	}
	for id, key := range g.keys {
		x := base64.RawURLEncoding.EncodeToString(key.Public().(ed25519.PublicKey))
		keys = append(keys, map[string]string{"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": id, "x": x})
	}
	w.Header().Set("Content-Type", "application/jwk-set+json")
	_ = json.NewEncoder(w).Encode(map[string]any{"keys": keys})
}

// verifier returns one for the upstream shop.
func (g *gateway) verifier(t *testing.T, edit ...func(*identity.Config)) *identity.Verifier {
	t.Helper()
	config := identity.Config{Issuer: issuer, Audience: "shop", KeysURL: g.URL + "/.well-known/identity-jwks.json"}
	for _, e := range edit {
		e(&config)
	}
	v, err := identity.New(config)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func allowAnonymous(c *identity.Config) { c.AllowAnonymous = true }

// adaAt returns the claims of a token for a signed-in user that is minted at a moment.
func adaAt(at time.Time) jwt.MapClaims {
	return jwt.MapClaims{
		"iss": issuer, "aud": "shop", "sub": "0198c0de-aaaa-7000-8000-00000000a11c", "sid": "0198c0de-cccc-7000-8000-00000000beef",
		"roles": []string{"admin", "user"}, "acr": "urn:gatehouse:password", "amr": []string{"pwd"},
		"auth_time": at.Add(-time.Hour).Unix(), "client_id": "gatehouse", "scope": "read write",
		"iat": at.Unix(), "exp": at.Add(time.Minute).Unix(),
	}
}

// sign signs claims with a key of the gateway, under a header.
func (g *gateway) sign(t *testing.T, claims jwt.MapClaims, kid string, header map[string]any) string {
	t.Helper()
	g.mu.Lock()
	key := g.keys[kid]
	g.mu.Unlock()
	token := jwt.NewWithClaims(jwt.SigningMethodEdDSA, claims)
	token.Header["typ"], token.Header["kid"] = "identity+jwt", kid
	for name, value := range header {
		if token.Header[name] = value; value == nil {
			delete(token.Header, name)
		}
	}
	text, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
