package identitytoken

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const issuerURL = "https://gatehouse.example"

func newIssuer(t *testing.T, secrets ...byte) *Issuer {
	t.Helper()
	var keys [][]byte
	for _, secret := range secrets {
		keys = append(keys, bytes.Repeat([]byte{secret}, 32))
	}
	issuer, err := NewIssuer(issuerURL, keys)
	if err != nil {
		t.Fatal(err)
	}
	return issuer
}

// published returns the public keys as an upstream fetches them.
func published(t *testing.T, issuer *Issuer) map[string]ed25519.PublicKey {
	t.Helper()
	recorder := httptest.NewRecorder()
	issuer.ServeHTTP(recorder, nil)
	var set struct {
		Keys []struct{ Kty, Crv, Alg, Use, Kid, X string }
	}
	if err := json.Unmarshal(recorder.Body.Bytes(), &set); err != nil {
		t.Fatal(err)
	}
	keys := map[string]ed25519.PublicKey{}
	for _, key := range set.Keys {
		public, err := base64.RawURLEncoding.DecodeString(key.X)
		if err != nil || key.Kty != "OKP" || key.Crv != "Ed25519" || key.Alg != "EdDSA" || key.Use != "sig" {
			t.Fatalf("got the key %+v, %v", key, err)
		}
		keys[key.Kid] = public
	}
	return keys
}

// verify verifies a token as an upstream of that name does.
func verify(t *testing.T, issuer *Issuer, upstream, text string, at time.Time) (jwt.MapClaims, error) {
	t.Helper()
	keys := published(t, issuer)
	token, err := jwt.Parse(text, func(token *jwt.Token) (any, error) {
		if id, _ := token.Header["kid"].(string); keys[id] != nil {
			return keys[id], nil
		}
		return nil, jwt.ErrTokenUnverifiable
	}, jwt.WithValidMethods([]string{"EdDSA"}), jwt.WithAudience(upstream), jwt.WithIssuer(issuerURL), jwt.WithExpirationRequired(), jwt.WithTimeFunc(func() time.Time { return at }))
	if err != nil {
		return nil, err
	}
	claims, _ := token.Claims.(jwt.MapClaims)
	return claims, nil
}

var alice = Caller{UserID: "a11ce", SessionID: "5e55", Roles: []string{"admin"}, ClientID: "gatehouse"}

func mint(t *testing.T, issuer *Issuer, upstream string, who Caller) string {
	t.Helper()
	text, err := issuer.Token(upstream, who)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// The token of one upstream is refused by another, and after a minute by every one.
func TestATokenIsForOneUpstreamAndOneMinute(t *testing.T) {
	t.Parallel()
	issuer := newIssuer(t, 1)
	text := mint(t, issuer, "shop", alice)
	now := time.Now()
	if claims, err := verify(t, issuer, "shop", text, now); err != nil || claims["sub"] != "a11ce" || claims["sid"] != "5e55" || claims["aud"] != "shop" {
		t.Errorf("for its upstream: got %v, %v", claims, err)
	}
	if _, err := verify(t, issuer, "bank", text, now); err == nil {
		t.Error("another upstream accepts it")
	}
	if _, err := verify(t, issuer, "shop", mint(t, issuer, "bank", alice), now); err == nil {
		t.Error("an upstream accepts the token of another")
	}
	if _, err := verify(t, issuer, "shop", text, now.Add(Life)); err == nil {
		t.Error("it is accepted after its life")
	}
	if _, err := verify(t, newIssuer(t, 2), "shop", text, now); err == nil {
		t.Error("it is accepted with another system's keys")
	}
}

// An anonymous caller has a token without a subject.
func TestAnAnonymousCallerHasNoSubject(t *testing.T) {
	t.Parallel()
	issuer := newIssuer(t, 1)
	claims, err := verify(t, issuer, "shop", mint(t, issuer, "shop", Caller{}), time.Now())
	for _, name := range []string{"sub", "sid", "roles", "client_id", "auth_time"} {
		if _, has := claims[name]; has || err != nil {
			t.Errorf("it has %s: %v, %v", name, claims[name], err)
		}
	}
}

// A token is used again for the same caller and upstream, for half of its life.
func TestATokenIsReusedWhileItIsFresh(t *testing.T) {
	t.Parallel()
	issuer := newIssuer(t, 1)
	now := time.Now()
	issuer.now = func() time.Time { return now }
	first := mint(t, issuer, "shop", alice)
	now = now.Add(reuse - time.Second)
	if mint(t, issuer, "shop", alice) != first {
		t.Error("it was minted again within half of its life")
	}
	promoted, other := alice, alice
	promoted.Roles, other.SessionID = nil, "other"
	for name, text := range map[string]string{"another upstream": mint(t, issuer, "bank", alice), "other roles": mint(t, issuer, "shop", promoted), "another session": mint(t, issuer, "shop", other), "nobody": mint(t, issuer, "shop", Caller{})} {
		if text == first {
			t.Errorf("%s got the token of another", name)
		}
	}
	now = now.Add(time.Second)
	if mint(t, issuer, "shop", alice) == first {
		t.Error("it was used after half of its life")
	}
	now = now.Add(-time.Hour) // a clock that was set back
	if text := mint(t, issuer, "shop", alice); text == first {
		t.Error("a token from the future was used")
	} else if _, err := verify(t, issuer, "shop", text, now); err != nil {
		t.Error(err)
	}
}

// Tokens in use take bounded memory.
func TestTokensInUseAreForgotten(t *testing.T) {
	t.Parallel()
	issuer := newIssuer(t, 1)
	now := time.Now()
	issuer.now = func() time.Time { return now }
	for range 4 {
		for _, user := range []string{"a", "b", "c"} {
			mint(t, issuer, "shop", Caller{UserID: user + now.String()})
		}
		now = now.Add(reuse)
	}
	if kept := len(issuer.recent) + len(issuer.earlier); kept > 6 {
		t.Errorf("%d tokens are kept, want 6 at most", kept)
	}
}

// During a change of the key, tokens of both are accepted, and the first one signs.
func TestTwoKeysDuringAChange(t *testing.T) {
	t.Parallel()
	before, during, after := newIssuer(t, 1), newIssuer(t, 2, 1), newIssuer(t, 2)
	now := time.Now()
	if _, err := verify(t, during, "shop", mint(t, before, "shop", alice), now); err != nil {
		t.Errorf("the old key's token during the change: %v", err)
	}
	if _, err := verify(t, after, "shop", mint(t, during, "shop", alice), now); err != nil {
		t.Errorf("the new key's token after the change: %v", err)
	}
	if _, err := verify(t, before, "shop", mint(t, during, "shop", alice), now); err == nil {
		t.Error("a token of the new key is accepted with the old one")
	}
}

// Forged tokens are refused: without a signature, or signed with the public key as if it
// were a shared secret.
func TestForgedTokensAreRefused(t *testing.T) {
	t.Parallel()
	issuer := newIssuer(t, 1)
	forged := jwt.MapClaims{"iss": issuerURL, "aud": "shop", "sub": "eve", "exp": time.Now().Add(time.Minute).Unix()}
	for id, public := range published(t, issuer) {
		none := jwt.NewWithClaims(jwt.SigningMethodNone, forged)
		shared := jwt.NewWithClaims(jwt.SigningMethodHS256, forged)
		none.Header["kid"], shared.Header["kid"] = id, id
		unsigned, err1 := none.SignedString(jwt.UnsafeAllowNoneSignatureType)
		symmetric, err2 := shared.SignedString([]byte(public))
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		for name, text := range map[string]string{"none": unsigned, "HS256": symmetric} {
			if _, err := verify(t, issuer, "shop", text, time.Now()); err == nil {
				t.Errorf("%s: it is accepted", name)
			}
		}
	}
}

// Without a key there are no tokens and no published keys.
func TestWithoutAKey(t *testing.T) {
	t.Parallel()
	if _, err := newIssuer(t).Token("shop", alice); err == nil {
		t.Error("it mints without a key")
	}
	if keys := published(t, nil); len(keys) != 0 {
		t.Errorf("it publishes %v", keys)
	}
}
