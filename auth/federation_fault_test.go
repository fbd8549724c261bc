package auth_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"gatehouse/auth"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/provider"
	"gatehouse/internal/provider/providertest"
)

// badAnswer is a fault of a provider, and the reason of the refusal.
type badAnswer struct {
	name   string
	spoil  func(p *providertest.Provider)
	answer func(a *authv1.FederatedAnswer)
	reason string
}

const (
	invalidAnswer = "PROVIDER_ANSWER_INVALID"
	unavailable   = "PROVIDER_UNAVAILABLE"
	metadataPath  = "/.well-known/openid-configuration"
)

// says is a provider whose ID tokens have other claims.
func says(name string, claims jwt.MapClaims) badAnswer {
	return badAnswer{name: name, spoil: func(p *providertest.Provider) { p.SetClaims(claims) }, reason: invalidAnswer}
}

// signs is a provider that signs in another way.
func signs(name string, sign func(p *providertest.Provider, claims jwt.MapClaims) string) badAnswer {
	return badAnswer{name: name, spoil: func(p *providertest.Provider) {
		p.SetSign(func(claims jwt.MapClaims) string { return sign(p, claims) })
	}, reason: invalidAnswer}
}

// serves is a provider whose endpoint answers with a text.
func serves(name, path string, status int, text, reason string) badAnswer {
	return badAnswer{name: name, spoil: func(p *providertest.Provider) {
		p.Spoil(path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			fmt.Fprint(w, text)
		})
	}, reason: reason}
}

// redirects is a provider whose endpoint redirects.
func redirects(name, path, to string) badAnswer {
	return badAnswer{name: name, spoil: func(p *providertest.Provider) {
		p.Spoil(path, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusTemporaryRedirect) })
	}, reason: unavailable}
}

// describes is a provider with other metadata.
func describes(name, field string, value any) badAnswer {
	return badAnswer{name: name, spoil: func(p *providertest.Provider) {
		p.Spoil(metadataPath, func(w http.ResponseWriter, _ *http.Request) {
			metadata := p.Metadata()
			metadata[field] = value
			providertest.JSON(w, metadata)
		})
	}, reason: unavailable}
}

func sends(name string, change func(a *authv1.FederatedAnswer), reason string) badAnswer {
	return badAnswer{name: name, answer: change, reason: reason}
}

func unsigned(claims jwt.MapClaims, header string) string {
	text, _ := json.Marshal(claims)
	return base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString(text) + "."
}

func publicKeyOf(p *providertest.Provider) []byte {
	text, _ := x509.MarshalPKIXPublicKey(&p.Key.PublicKey)
	return text
}

func badAnswers(t *testing.T) []badAnswer {
	stranger, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().Unix()
	bad := []badAnswer{
		says("another issuer", jwt.MapClaims{"iss": "https://evil.example"}), says("no issuer", jwt.MapClaims{"iss": nil}), says("an issuer with a slash", jwt.MapClaims{"iss": "http://127.0.0.1/"}),
		says("another audience", jwt.MapClaims{"aud": "other"}), says("no audience", jwt.MapClaims{"aud": nil}), says("an empty list of audiences", jwt.MapClaims{"aud": []string{}}),
		says("other audiences too, and no azp", jwt.MapClaims{"aud": []string{"gatehouse", "other"}}), says("another azp", jwt.MapClaims{"azp": "other"}),
		says("other audiences too, and another azp", jwt.MapClaims{"aud": []string{"gatehouse", "other"}, "azp": "other"}),
		says("no nonce", jwt.MapClaims{"nonce": nil}), says("another nonce", jwt.MapClaims{"nonce": "other"}), says("an empty nonce", jwt.MapClaims{"nonce": ""}), says("a nonce of another type", jwt.MapClaims{"nonce": []string{"a", "b"}}),
		says("expired", jwt.MapClaims{"exp": now - 3600}), says("no expiry", jwt.MapClaims{"exp": nil}), says("an expiry that is a text", jwt.MapClaims{"exp": "tomorrow"}),
		says("issued in the future", jwt.MapClaims{"iat": now + 3600}), says("no time of issue", jwt.MapClaims{"iat": nil}), says("not valid yet", jwt.MapClaims{"nbf": now + 3600}),
		says("an empty subject", jwt.MapClaims{"sub": ""}), says("no subject", jwt.MapClaims{"sub": nil}), says("a subject of 256 bytes", jwt.MapClaims{"sub": strings.Repeat("a", 256)}), says("a subject that is a number", jwt.MapClaims{"sub": 42}),
		says("at_hash of another token", jwt.MapClaims{"at_hash": "b3RoZXI"}), says("claims that are elsewhere", jwt.MapClaims{"_claim_names": map[string]string{"email": "src"}}),
		signs("alg none", func(_ *providertest.Provider, c jwt.MapClaims) string { return unsigned(c, `{"alg":"none"}`) }),
		signs("alg NONE with a key id", func(_ *providertest.Provider, c jwt.MapClaims) string {
			return unsigned(c, `{"alg":"NONE","kid":"one"}`)
		}),
		signs("HS256 with the public key", func(p *providertest.Provider, c jwt.MapClaims) string {
			return providertest.Sign(jwt.SigningMethodHS256, publicKeyOf(p), "one", c)
		}),
		signs("HS256 with the client secret", func(_ *providertest.Provider, c jwt.MapClaims) string {
			return providertest.Sign(jwt.SigningMethodHS256, []byte("secret"), "one", c)
		}),
		signs("a stranger's key under the provider's key id", func(_ *providertest.Provider, c jwt.MapClaims) string {
			return providertest.Sign(jwt.SigningMethodRS256, stranger, "one", c)
		}),
		signs("a stranger's key under its own key id", func(_ *providertest.Provider, c jwt.MapClaims) string {
			return providertest.Sign(jwt.SigningMethodRS256, stranger, "two", c)
		}),
		signs("the key under another key id", func(p *providertest.Provider, c jwt.MapClaims) string {
			return providertest.Sign(jwt.SigningMethodRS256, p.Key, "two", c)
		}),
		signs("an algorithm that the provider does not use", func(p *providertest.Provider, c jwt.MapClaims) string {
			return providertest.Sign(jwt.SigningMethodPS256, p.Key, "one", c)
		}),
		signs("an elliptic key", func(_ *providertest.Provider, c jwt.MapClaims) string {
			return providertest.Sign(jwt.SigningMethodES256, providertest.NewECKey(t), "one", c)
		}),
		signs("a changed payload", func(p *providertest.Provider, c jwt.MapClaims) string {
			parts := strings.Split(providertest.Sign(jwt.SigningMethodRS256, p.Key, "one", c), ".")
			c["sub"] = "mallory"
			text, _ := json.Marshal(c)
			return parts[0] + "." + base64.RawURLEncoding.EncodeToString(text) + "." + parts[2]
		}),
		signs("no signature", func(p *providertest.Provider, c jwt.MapClaims) string {
			signed := providertest.Sign(jwt.SigningMethodRS256, p.Key, "one", c)
			return signed[:strings.LastIndex(signed, ".")+1]
		}),
		signs("no token", func(*providertest.Provider, jwt.MapClaims) string { return "" }), signs("not a token", func(*providertest.Provider, jwt.MapClaims) string { return "a.b.c" }),
		signs("an encrypted token", func(*providertest.Provider, jwt.MapClaims) string { return "a.b.c.d.e" }),
		signs("a key in the header", func(_ *providertest.Provider, c jwt.MapClaims) string {
			token := jwt.NewWithClaims(jwt.SigningMethodRS256, c)
			token.Header["jwk"] = map[string]string{"kty": "RSA", "n": base64.RawURLEncoding.EncodeToString(stranger.N.Bytes()), "e": "AQAB"}
			signed, _ := token.SignedString(stranger)
			return signed
		}),
		serves("the token endpoint fails", "/token", 500, `{}`, unavailable), serves("the token endpoint is overloaded", "/token", 429, `{}`, unavailable), serves("the token endpoint refuses", "/token", 400, `{"error":"invalid_grant"}`, invalidAnswer),
		serves("the token endpoint answers in HTML", "/token", 200, `<html>`, invalidAnswer), serves("the token endpoint answers with nothing", "/token", 200, ``, invalidAnswer), serves("the token endpoint has no access token", "/token", 200, `{"id_token":"x"}`, invalidAnswer),
		serves("the token endpoint answers with 10 MB", "/token", 200, `{"access_token":"`+strings.Repeat("a", 10<<20)+`"}`, invalidAnswer),
		redirects("the token endpoint redirects to an address of a cloud", "/token", "http://169.254.169.254/latest"),
		{name: "the token endpoint hangs", spoil: func(p *providertest.Provider) {
			p.Spoil("/token", func(_ http.ResponseWriter, r *http.Request) {
				_ = r.ParseForm() // the server notices that a client is gone once it has read the body
				<-r.Context().Done()
			})
		}, reason: unavailable},
		serves("no keys", "/keys", 200, `{"keys":[]}`, invalidAnswer), serves("keys that are none", "/keys", 200, `{"keys":[{"kty":"oct","k":"c2VjcmV0","kid":"one"}]}`, invalidAnswer), serves("the keys fail", "/keys", 503, ``, unavailable),
		serves("the keys are HTML", "/keys", 200, `<html>`, unavailable), serves("keys of 10 MB", "/keys", 200, strings.Repeat(" ", 10<<20), unavailable), redirects("the keys redirect to another host", "/keys", "http://169.254.169.254/keys"),
		describes("metadata of another issuer", "issuer", "https://evil.example"), describes("metadata without a token endpoint", "token_endpoint", ""), describes("a token endpoint without TLS", "token_endpoint", "http://provider.example/token"),
		describes("keys in a file", "jwks_uri", "file:///etc/passwd"), describes("an authorization endpoint in a script", "authorization_endpoint", "javascript:alert(1)"),
		serves("metadata in HTML", metadataPath, 200, `<html>`, unavailable), serves("no metadata", metadataPath, 404, ``, unavailable), redirects("metadata at another host", metadataPath, "http://169.254.169.254/"),
		serves("metadata of 10 MB", metadataPath, 200, strings.Repeat(" ", 10<<20), unavailable),
		sends("an answer with another issuer", func(a *authv1.FederatedAnswer) { a.Iss = "https://evil.example" }, invalidAnswer), sends("no code", func(a *authv1.FederatedAnswer) { a.Code = "" }, invalidAnswer),
		sends("a wrong code", func(a *authv1.FederatedAnswer) { a.Code = "other" }, invalidAnswer), sends("an error", func(a *authv1.FederatedAnswer) { a.Error, a.Code = "access_denied", "" }, invalidAnswer),
		sends("the state of another browser", func(a *authv1.FederatedAnswer) { a.State = strings.Repeat("A", 43) }, "CHALLENGE_INVALID"), sends("no state", func(a *authv1.FederatedAnswer) { a.State = "" }, "CHALLENGE_INVALID"),
		sends("an ID token that is not one", func(a *authv1.FederatedAnswer) { a.IdToken = "a.b.c" }, invalidAnswer),
	}
	missing := describes("an answer without the issuer that the metadata promise", "authorization_response_iss_parameter_supported", true)
	missing.reason = invalidAnswer
	userinfo := says("userinfo about another subject", jwt.MapClaims{"email": nil})
	says := userinfo.spoil
	userinfo.spoil = func(p *providertest.Provider) {
		says(p)
		p.Spoil("/userinfo", func(w http.ResponseWriter, _ *http.Request) {
			providertest.JSON(w, map[string]any{"sub": "mallory", "email": "ada@example.com", "email_verified": true})
		})
	}
	return append(bad, missing, userinfo)
}

func TestABadProviderSignsNobodyIn(t *testing.T) {
	t.Parallel()
	bad := badAnswers(t)
	if len(bad) < 50 {
		t.Fatalf("%d faults, want at least 50", len(bad))
	}
	p := providertest.New(t)
	h := newHarness(t, func(c *auth.Config) {
		for i := range bad { // each with a circuit breaker of its own
			c.Providers = append(c.Providers, provider.New(provider.Config{
				ID: fmt.Sprintf("bad%d", i), Kind: provider.OIDC, ClientID: "gatehouse", ClientSecret: "secret", Issuer: p.Issuer(), EmailDomains: []string{"example.com"}, SignUp: true,
			}))
		}
	})
	f := &federated{harness: h, federation: authv1.NewFederationServiceClient(h.client), provider: p}
	for i, test := range bad {
		p.Reset()
		if test.spoil != nil {
			test.spoil(p)
		}
		id := fmt.Sprintf("bad%d", i)
		begun, err := f.federation.BeginFederation(t.Context(), &authv1.BeginFederationRequest{Provider: id})
		if err == nil {
			back := p.Visit(t, begun.GetAuthorizationUrl())
			answer := &authv1.FederatedAnswer{Provider: id, FlowToken: begun.GetFlowToken(), Code: back.Get("code"), State: back.Get("state")}
			if test.answer != nil {
				test.answer(answer)
			}
			_, err = f.complete(t, answer, "")
		}
		f.nobody(t, test.name, err, test.reason)
	}
}
