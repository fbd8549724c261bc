package identity_test

import (
	"strings"
	"testing"
	"time"

	"gatehouse.example/client/identity"
)

func TestAccessTokensAreToldFromOtherTokens(t *testing.T) {
	t.Parallel()
	g := newGateway(t)
	v, err := identity.NewAccess(identity.Config{Issuer: issuer, KeysURL: g.URL + "/.well-known/jwks.json"})
	if err != nil {
		t.Fatal(err)
	}
	token := func(typ, audience string, life time.Duration) string {
		now := time.Now()
		claims := adaAt(now)
		claims["aud"], claims["exp"] = audience, now.Add(life).Unix()
		return g.sign(t, claims, "k1", map[string]any{"typ": typ})
	}
	valid := token("at+jwt", "gatehouse", 5*time.Minute)
	if claims, err := v.Verify(t.Context(), valid); err != nil || claims.Subject == "" {
		t.Errorf("an access token: got %v, %v", claims, err)
	}
	for name, c := range map[string]struct{ token, why string }{
		"an identity token":      {token("identity+jwt", "gatehouse", time.Minute), "not at+jwt"},
		"for another audience":   {token("at+jwt", "shop", time.Minute), "aud"},
		"one that lives for 6 m": {token("at+jwt", "gatehouse", 6*time.Minute), "lives for"},
	} {
		if _, err := v.Verify(t.Context(), c.token); err == nil || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s: got %v, want an error with %q", name, err, c.why)
		}
	}
	if _, err := g.verifier(t, func(c *identity.Config) { c.Audience = "gatehouse" }).Verify(t.Context(), valid); err == nil || !strings.Contains(err.Error(), "not identity+jwt") {
		t.Errorf("an access token at a verifier of identity tokens: got %v", err)
	}
}
