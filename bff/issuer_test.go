package bff

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
)

// A gateway with another GATEHOUSE_PUBLIC_URL than auth refuses every token.
func TestTokensOfAnotherIssuerAreLoggedOnceAMinute(t *testing.T) {
	t.Parallel()
	const message, elsewhere = "auth issues them for another public URL", "https://elsewhere.example"
	h := newHarness(t, options{})
	now := time.Now().Truncate(time.Second)
	h.gateway.verifier.Now = func() time.Time { return now }
	refuse := func(name, token, reason string) {
		t.Helper()
		_, got := h.getMe(t, token)
		wantError(t, name, got, http.StatusUnauthorized, connect.CodeUnauthenticated, reason)
	}
	wantWarnings := func(when string, want int) {
		t.Helper()
		if got := strings.Count(h.log.String(), message); got != want {
			t.Errorf("%s: got %d warnings, want %d:\n%s", when, got, want, h.log.String())
		}
	}

	of := func(from signer, kid, issuer string, set func(claims map[string]any)) string {
		return from.token(func(header, claims map[string]any) {
			header["kid"], claims["iss"] = kid, issuer
			set(claims)
		})
	}
	keep := func(map[string]any) {}
	refuse("another's signature", of(newSigner(2), h.signer.kid, "https://forged.example", keep), invalid)
	refuse("no issuer's fault", of(h.signer, h.signer.kid, publicURL, func(c map[string]any) { c["aud"] = "elsewhere" }), invalid)
	refuse("expired", of(h.signer, h.signer.kid, elsewhere, func(c map[string]any) { c["exp"] = 1 }), expired)
	wantWarnings("tokens that another issuer has nothing to do with", 0)

	for range 3 {
		refuse("another issuer", of(h.signer, h.signer.kid, elsewhere, keep), invalid)
	}
	wantWarnings("three tokens within the minute", 1)
	if said := h.log.String(); !strings.Contains(said, elsewhere) || !strings.Contains(said, publicURL) {
		t.Errorf("the warning names not both issuers:\n%s", said)
	}
	now = now.Add(time.Minute)
	refuse("another issuer", of(h.signer, h.signer.kid, elsewhere, keep), invalid)
	wantWarnings("a minute later", 2)
	if !strings.Contains(h.log.String(), `unlogged":2`) && !strings.Contains(h.log.String(), "unlogged=2") {
		t.Errorf("the second warning does not count the two that were not logged:\n%s", h.log.String())
	}
}
