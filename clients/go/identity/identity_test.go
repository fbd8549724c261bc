package identity_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"gatehouse.example/client/identity"
)

func TestAnIdentityTokenIsVerified(t *testing.T) {
	t.Parallel()
	g := newGateway(t)
	at := time.Now().Truncate(time.Second)
	got, err := g.verifier(t).Verify(t.Context(), g.sign(t, adaAt(at), "k1", nil))
	want := &identity.Claims{
		Subject: "0198c0de-aaaa-7000-8000-00000000a11c", SessionID: "0198c0de-cccc-7000-8000-00000000beef",
		Roles: []string{"admin", "user"}, ACR: "urn:gatehouse:password", AMR: []string{"pwd"}, AuthTime: at.Add(-time.Hour),
		ClientID: "gatehouse", Scope: []string{"read", "write"}, ExpireTime: at.Add(time.Minute),
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v, %v; want %+v", got, err, want)
	}
	if got.Anonymous() || !got.HasRole("admin") || got.HasRole("adm") {
		t.Errorf("got anonymous %t, admin %t, adm %t", got.Anonymous(), got.HasRole("admin"), got.HasRole("adm"))
	}
}

// Clocks may differ by the leeway, in both directions.
func TestClocksMayDifferByTheLeeway(t *testing.T) {
	t.Parallel()
	g := newGateway(t)
	v := g.verifier(t)
	for _, ahead := range []time.Duration{identity.DefaultLeeway - 5*time.Second, -time.Minute - identity.DefaultLeeway + 5*time.Second} {
		if _, err := v.Verify(t.Context(), g.sign(t, adaAt(time.Now().Add(ahead)), "k1", nil)); err != nil {
			t.Errorf("minted %s from now: got %v, want no error", ahead, err)
		}
	}
}

// Each token differs from a valid one in one thing, and is refused.
func TestOtherTokensAreRefused(t *testing.T) {
	t.Parallel()
	g := newGateway(t)
	v := g.verifier(t, allowAnonymous)
	now := time.Now()
	with := func(name string, value any) jwt.MapClaims {
		claims := adaAt(now)
		if claims[name] = value; value == nil {
			delete(claims, name)
		}
		return claims
	}
	header := func(name string, value any) string {
		return g.sign(t, adaAt(now), "k1", map[string]any{name: value})
	}
	public := g.keys["k1"].Public().(ed25519.PublicKey)
	by := func(method jwt.SigningMethod, key any) string {
		token := jwt.NewWithClaims(method, adaAt(now))
		token.Header["typ"], token.Header["kid"] = "identity+jwt", "k1"
		text, err := token.SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	_, stranger, _ := ed25519.GenerateKey(nil)
	valid := g.sign(t, adaAt(now), "k1", nil)
	parts := strings.Split(valid, ".")
	forged := base64.RawURLEncoding.EncodeToString([]byte(`{"iss":"` + issuer + `","aud":"shop","sub":"x","iat":1,"exp":9999999999}`))

	for name, c := range map[string]struct{ token, want string }{
		"expired":                           {g.sign(t, adaAt(now.Add(-time.Minute-identity.DefaultLeeway-5*time.Second)), "k1", nil), "expired"},
		"from the future":                   {g.sign(t, adaAt(now.Add(identity.DefaultLeeway+10*time.Second)), "k1", nil), "future"},
		"not valid yet":                     {g.sign(t, with("nbf", now.Add(time.Hour).Unix()), "k1", nil), "not valid yet"},
		"with an end in quotes":             {g.sign(t, with("exp", strconv.FormatInt(now.Add(time.Minute).Unix(), 10)), "k1", nil), "no number"},
		"without an end":                    {g.sign(t, with("exp", nil), "k1", nil), "exp claim is required"},
		"without a beginning":               {g.sign(t, with("iat", nil), "k1", nil), "future"},
		"valid for too long":                {g.sign(t, with("exp", now.Add(2*time.Minute).Unix()), "k1", nil), "lives for"},
		"for another upstream":              {g.sign(t, with("aud", "stock"), "k1", nil), "aud"},
		"for two upstreams":                 {g.sign(t, with("aud", []string{"shop", "stock"}), "k1", nil), "audience"},
		"for nobody":                        {g.sign(t, with("aud", nil), "k1", nil), "aud"},
		"of another issuer":                 {g.sign(t, with("iss", "https://other.example.com"), "k1", nil), "iss"},
		"of an issuer with a slash":         {g.sign(t, with("iss", issuer+"/"), "k1", nil), "iss"},
		"of no issuer":                      {g.sign(t, with("iss", nil), "k1", nil), "iss"},
		"algorithm none":                    {by(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType), "signing method"},
		"HS256 with the public key":         {by(jwt.SigningMethodHS256, []byte(public)), "signing method"},
		"HS256 with the public key in text": {by(jwt.SigningMethodHS256, []byte(base64.RawURLEncoding.EncodeToString(public))), "signing method"},
		"an access token by its type":       {header("typ", "at+jwt"), "type"},
		"a plain JWT by its type":           {header("typ", "JWT"), "type"},
		"without a type":                    {header("typ", nil), "type"},
		"of an unknown key":                 {header("kid", "k2"), `key "k2" is unknown`},
		"of a key of another kind":          {header("kid", "other"), `key "other" is unknown`},
		"without a key's name":              {header("kid", nil), "names no key"},
		"signed by a stranger":              {by(jwt.SigningMethodEdDSA, stranger), "signature is invalid"},
		"with a key of its own":             {header("jwk", map[string]string{"kty": "OKP"}), "not allowed"},
		"with the URL of a key":             {header("jku", "https://evil.example.com"), "not allowed"},
		"with a critical extension":         {header("crit", []string{"exp"}), "not allowed"},
		"with other claims":                 {parts[0] + "." + forged + "." + parts[2], "signature is invalid"},
		"without its signature":             {parts[0] + "." + parts[1] + ".", "signature is invalid"},
		"with a line break":                 {parts[0] + "." + parts[1] + "." + parts[2][:9] + "\n" + parts[2][9:], "malformed"},
		"empty":                             {"", "malformed"},
		"endless":                           {strings.Repeat("a", 1<<20), "malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := v.Verify(t.Context(), c.token)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %+v, %v; want an error with %q", got, err, c.want)
			}
		})
	}
	if _, err := v.Verify(t.Context(), valid); err != nil {
		t.Errorf("the valid one: %v", err)
	}
}

// A caller who is not signed in is refused unless the service allows it.
func TestAnAnonymousCallerIsAnOption(t *testing.T) {
	t.Parallel()
	g := newGateway(t)
	at := time.Now()
	token := g.sign(t, jwt.MapClaims{"iss": issuer, "aud": "shop", "iat": at.Unix(), "exp": at.Add(time.Minute).Unix()}, "k1", nil)
	if _, err := g.verifier(t).Verify(t.Context(), token); !errors.Is(err, identity.ErrAnonymous) {
		t.Errorf("by default: got %v, want ErrAnonymous", err)
	}
	claims, err := g.verifier(t, allowAnonymous).Verify(t.Context(), token)
	if err != nil || !claims.Anonymous() || claims.SessionID != "" || claims.Roles != nil {
		t.Errorf("if allowed: got %+v, %v; want an anonymous caller", claims, err)
	}
}

func TestAWrongConfigurationIsRefused(t *testing.T) {
	t.Parallel()
	for name, config := range map[string]identity.Config{
		"no issuer":           {Audience: "shop"},
		"no audience":         {Issuer: issuer},
		"issuer is no URL":    {Issuer: "gatehouse", Audience: "shop"},
		"keys are at no URL":  {Issuer: issuer, Audience: "shop", KeysURL: "/.well-known/identity-jwks.json"},
		"keys are in a file":  {Issuer: issuer, Audience: "shop", KeysURL: "file:///keys.json"},
		"keys have no server": {Issuer: issuer, Audience: "shop", KeysURL: "http://"},
	} {
		if v, err := identity.New(config); err == nil {
			t.Errorf("%s: got %v, want an error", name, v)
		}
	}
}
