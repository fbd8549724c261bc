package provider_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"gatehouse/internal/provider"
	"gatehouse/internal/provider/providertest"
)

var request = provider.Request{RedirectURI: "https://auth.example.com/cb", State: "state", Nonce: "nonce", Verifier: strings.Repeat("v", 43)}

func redeem(t *testing.T, p *provider.Provider, fake *providertest.Provider, user string) (provider.Identity, error) {
	t.Helper()
	address, err := p.Authorize(t.Context(), request)
	if err != nil {
		t.Fatalf("Authorize: %v", err)
	}
	return p.Redeem(t.Context(), request, provider.Answer{Code: fake.Visit(t, address).Get("code"), User: user})
}

// The rules of who vouches for an address, with the forms in which providers say it.
func TestWhoVouchesForAnAddress(t *testing.T) {
	t.Parallel()
	const tenant = "9188040d-6c67-4c5b-b112-36a304b66dad"
	for _, test := range []struct {
		name   string
		kind   provider.Kind
		claims jwt.MapClaims
		want   bool
	}{
		{"google, a domain without hd", provider.Google, jwt.MapClaims{}, false},
		{"google, with hd", provider.Google, jwt.MapClaims{"hd": "example.com"}, true},
		{"google, gmail.com", provider.Google, jwt.MapClaims{"email": "ada@GMAIL.com"}, true},
		{"google, gmail.com unverified", provider.Google, jwt.MapClaims{"email": "ada@gmail.com", "email_verified": false}, false},
		{"google, gmail.com in the local part", provider.Google, jwt.MapClaims{"email": "gmail.com@example.com"}, false},
		{"microsoft, absent", provider.Microsoft, jwt.MapClaims{"tid": tenant}, false},
		{"microsoft, true", provider.Microsoft, jwt.MapClaims{"tid": tenant, "xms_edov": true}, true},
		{"microsoft, 1", provider.Microsoft, jwt.MapClaims{"tid": tenant, "xms_edov": 1}, true},
		{"microsoft, text 1", provider.Microsoft, jwt.MapClaims{"tid": tenant, "xms_edov": "1"}, true},
		{"microsoft, text true", provider.Microsoft, jwt.MapClaims{"tid": tenant, "xms_edov": "true"}, true},
		{"microsoft, false", provider.Microsoft, jwt.MapClaims{"tid": tenant, "xms_edov": false}, false},
		{"microsoft, text 0", provider.Microsoft, jwt.MapClaims{"tid": tenant, "xms_edov": "0"}, false},
		{"microsoft, 2", provider.Microsoft, jwt.MapClaims{"tid": tenant, "xms_edov": 2}, false},
		{"microsoft, a list", provider.Microsoft, jwt.MapClaims{"tid": tenant, "xms_edov": []bool{true}}, false},
		{"apple, boolean", provider.Apple, jwt.MapClaims{}, true},
		{"apple, text", provider.Apple, jwt.MapClaims{"email_verified": "true"}, true},
		{"apple, text false", provider.Apple, jwt.MapClaims{"email_verified": "false"}, false},
		{"oidc, its domain", provider.OIDC, jwt.MapClaims{}, true},
		{"oidc, another domain", provider.OIDC, jwt.MapClaims{"email": "ada@other.example"}, false},
		{"oidc, a subdomain", provider.OIDC, jwt.MapClaims{"email": "ada@sub.example.com"}, false},
		{"oidc, text", provider.OIDC, jwt.MapClaims{"email_verified": "true"}, false},
		{"oidc, two addresses", provider.OIDC, jwt.MapClaims{"email": "a@evil.example,ada@example.com"}, false},
		{"oidc, a name and an address", provider.OIDC, jwt.MapClaims{"email": "Ada <ada@example.com>"}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			fake := providertest.New(t)
			config := provider.Config{ID: "one", Kind: test.kind, ClientID: "gatehouse", ClientSecret: "secret", Issuer: fake.URL, EmailDomains: []string{"example.com"}, Key: providertest.NewECKey(t)}
			if test.kind == provider.Microsoft {
				config.Tenant, fake.Prefix = tenant, "/"+tenant+"/v2.0"
			}
			fake.SetClaims(test.claims)
			got, err := redeem(t, provider.New(config), fake, "")
			if err != nil || got.Authoritative != test.want || got.Subject != "ada" {
				t.Errorf("got %+v, %v, want authoritative %t", got, err, test.want)
			}
		})
	}
}

func TestMicrosoftIssuersAreThoseOfTheirTenants(t *testing.T) {
	t.Parallel()
	const mine, other = "9188040d-6c67-4c5b-b112-36a304b66dad", "72f988bf-86f1-41af-91ab-2d7cd011db47"
	for _, test := range []struct {
		name, tenant, tid, iss string
		ok                     bool
	}{
		{"common, the tenant's own", "common", other, other, true},
		{"common, another tenant's", "common", mine, other, false},
		{"common, no UUID", "common", "evil", "evil", false},
		{"common, a path", "common", mine + "/..", mine + "/..", false},
		{"one tenant, its own", mine, mine, mine, true},
		{"one tenant, another", mine, other, other, false},
		{"one tenant, another's id", mine, mine, other, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			fake := providertest.New(t)
			fake.Spoil("/"+test.tenant+"/v2.0/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
				metadata := fake.Metadata()
				metadata["issuer"] = fake.URL + "/{tenantid}/v2.0"
				if test.tenant != "common" {
					metadata["issuer"] = fake.URL + "/" + test.tenant + "/v2.0"
				}
				providertest.JSON(w, metadata)
			})
			fake.SetClaims(jwt.MapClaims{"iss": fake.URL + "/" + test.iss + "/v2.0", "tid": test.tid, "xms_edov": true})
			got, err := redeem(t, provider.New(provider.Config{ID: "one", Kind: provider.Microsoft, ClientID: "gatehouse", ClientSecret: "secret", Issuer: fake.URL, Tenant: test.tenant}), fake, "")
			if (err == nil) != test.ok || test.ok && got.Issuer != fake.URL+"/"+test.iss+"/v2.0" {
				t.Errorf("got %+v, %v, want success %t", got, err, test.ok)
			}
		})
	}
}

func TestAppleGetsASignedSecretAndSendsTheNameOnce(t *testing.T) {
	t.Parallel()
	fake, key := providertest.New(t), providertest.NewECKey(t)
	secrets := make(chan string, 1)
	fake.Spoil("/token", func(w http.ResponseWriter, r *http.Request) {
		secrets <- r.FormValue("client_secret")
		claims := jwt.MapClaims{
			"iss": fake.URL, "aud": "gatehouse", "sub": "ada", "nonce": "nonce", "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
			"email": "x@privaterelay.appleid.com", "email_verified": "true",
		}
		providertest.JSON(w, map[string]any{"access_token": "access", "token_type": "Bearer", "id_token": providertest.Sign(jwt.SigningMethodRS256, fake.Key, "one", claims)})
	})
	p := provider.New(provider.Config{ID: "apple", Kind: provider.Apple, ClientID: "gatehouse", Issuer: fake.URL, TeamID: "TEAM", KeyID: "KEY", Key: key})
	got, err := redeem(t, p, fake, `{"name":{"firstName":"Ada","lastName":"Lovelace"},"email":"victim@example.com"}`)
	if err != nil || got.FirstName != "Ada" || got.LastName != "Lovelace" || got.Email != "x@privaterelay.appleid.com" || !got.Authoritative {
		t.Errorf("got %+v, %v, want the name and the signed address", got, err)
	}
	secret, err := jwt.Parse(<-secrets, func(*jwt.Token) (any, error) { return &key.PublicKey, nil }, jwt.WithAudience(fake.URL), jwt.WithIssuer("TEAM"), jwt.WithExpirationRequired(), jwt.WithValidMethods([]string{"ES256"}))
	if err != nil || secret.Header["kid"] != "KEY" {
		t.Errorf("the client secret is %v, %v", secret, err)
	}
}

func TestGitHubPeopleAreTheirNumbers(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, emails, email string
		authoritative       bool
	}{
		{"primary and verified", `[{"email":"a@example.com","primary":false,"verified":true},{"email":"ada@example.com","primary":true,"verified":true}]`, "ada@example.com", true},
		{"not verified", `[{"email":"ada@example.com","primary":true,"verified":false}]`, "ada@example.com", false},
		{"none is primary", `[{"email":"ada@example.com","primary":false,"verified":true}]`, "", false},
		{"an address that takes no mail", `[{"email":"1+ada@users.noreply.github.com","primary":true,"verified":true}]`, "", false},
		{"none", `[]`, "", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			fake := providertest.New(t)
			fake.Spoil("/api/v3/user", func(w http.ResponseWriter, _ *http.Request) {
				providertest.JSON(w, map[string]any{"id": 42, "login": "ada", "name": "Ada Lovelace"})
			})
			fake.Spoil("/api/v3/user/emails", func(w http.ResponseWriter, _ *http.Request) { providertest.JSON(w, json.RawMessage(test.emails)) })
			got, err := redeem(t, provider.New(provider.Config{ID: "github", Kind: provider.GitHub, ClientID: "gatehouse", ClientSecret: "secret", Issuer: fake.URL}), fake, "")
			if err != nil || got.Subject != "42" || got.Email != test.email || got.Authoritative != test.authoritative || got.FirstName != "Ada" {
				t.Errorf("got %+v, %v, want 42, %q, %t", got, err, test.email, test.authoritative)
			}
		})
	}
}

func TestUnknownKeysAreFetchedOnceAMinute(t *testing.T) {
	t.Parallel()
	fake := providertest.New(t)
	p := provider.New(provider.Config{ID: "one", Kind: provider.OIDC, ClientID: "gatehouse", Issuer: fake.URL})
	other := providertest.NewECKey(t)
	began := time.Now()
	for i := range 10_000 {
		token := providertest.Sign(jwt.SigningMethodES256, other, "key", jwt.MapClaims{"sub": i})
		if i%100 == 0 { // one that could be verified, were its key known
			token = providertest.Sign(jwt.SigningMethodRS256, fake.Key, "key"+string(rune('a'+i%26)), jwt.MapClaims{"sub": "ada"})
		}
		if _, err := p.Redeem(t.Context(), request, provider.Answer{IDToken: token}); err == nil {
			t.Fatal("a token with an unknown key was accepted")
		}
	}
	if most := 1 + int(time.Since(began)/time.Minute); fake.Calls("/keys") == 0 || fake.Calls("/keys") > most {
		t.Errorf("the keys were fetched %d times, want 1 to %d", fake.Calls("/keys"), most)
	}
}

func TestAProviderThatIsDownIsLeftAlone(t *testing.T) {
	t.Parallel()
	fake := providertest.New(t)
	fake.Spoil("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	p := provider.New(provider.Config{ID: "one", Kind: provider.OIDC, ClientID: "gatehouse", Issuer: fake.URL})
	for range 20 {
		if _, err := p.Authorize(t.Context(), request); err == nil {
			t.Fatal("a provider that is down gave an address")
		}
	}
	if calls := fake.Calls("/.well-known/openid-configuration"); calls != 5 {
		t.Errorf("it was called %d times, want 5", calls)
	}
}

// A caller that goes away while the provider answers is no failure of the provider, whichever
// of its answers the caller does not wait for.
func TestCallersThatGoAwayDoNotOpenTheCircuit(t *testing.T) {
	t.Parallel()
	idToken := func(fake *providertest.Provider) provider.Answer {
		return provider.Answer{IDToken: providertest.Sign(jwt.SigningMethodRS256, fake.Key, "one", jwt.MapClaims{
			"aud": "gatehouse", "sub": "ada", "iss": fake.URL, "nonce": "nonce", "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
		})}
	}
	for _, test := range []struct {
		name, path string
		call       func(context.Context, *provider.Provider, *providertest.Provider) error
	}{
		{"before the metadata", "/.well-known/openid-configuration", func(ctx context.Context, p *provider.Provider, _ *providertest.Provider) error {
			_, err := p.Authorize(ctx, request)
			return err
		}},
		{"before the metadata, with an ID token", "/.well-known/openid-configuration", func(ctx context.Context, p *provider.Provider, fake *providertest.Provider) error {
			_, err := p.Redeem(ctx, request, idToken(fake))
			return err
		}},
		{"before the token", "/token", func(ctx context.Context, p *provider.Provider, _ *providertest.Provider) error {
			_, err := p.Redeem(ctx, request, provider.Answer{Code: "unknown"})
			return err
		}},
		{"before the keys", "/keys", func(ctx context.Context, p *provider.Provider, fake *providertest.Provider) error {
			_, err := p.Redeem(ctx, request, idToken(fake))
			return err
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			fake := providertest.New(t)
			p := provider.New(provider.Config{ID: "one", Kind: provider.OIDC, ClientID: "gatehouse", Issuer: fake.URL})
			for range 10 {
				ctx, leave := context.WithCancel(t.Context())
				fake.Before(test.path, func(r *http.Request) {
					leave()
					select { // as long as it takes a client to end its request
					case <-r.Context().Done():
					case <-time.After(50 * time.Millisecond):
					}
				})
				if err := test.call(ctx, p, fake); errors.Is(err, provider.ErrUnavailable) {
					t.Errorf("a caller that left got %v, want what the provider answered", err)
				}
				leave()
			}
			if fake.Calls(test.path) == 0 {
				t.Fatalf("nobody asked for %s", test.path)
			}
			fake.Reset()
			if _, err := redeem(t, p, fake, ""); err != nil {
				t.Errorf("after callers that left, a sign-in: %v", err)
			}
		})
	}
}

func TestIDTokensOfAppsAreAccepted(t *testing.T) {
	t.Parallel()
	fake := providertest.New(t)
	p := provider.New(provider.Config{ID: "one", Kind: provider.OIDC, ClientID: "gatehouse", ClientIDs: []string{"android"}, Issuer: fake.URL})
	for _, test := range []struct {
		name     string
		aud, azp any
		native   bool
		ok       bool
	}{
		{"an app's", "android", nil, true, true},
		{"the client's by an app", "gatehouse", "android", true, true},
		{"another app's", "ios", nil, true, false},
		{"the client's by another app", "gatehouse", "ios", true, false},
		{"both, by nobody", []string{"gatehouse", "android"}, nil, true, false},
		{"an app's in exchange for a code", "android", nil, false, false},
		{"the client's by an app in exchange for a code", "gatehouse", "android", false, false},
	} {
		claims := jwt.MapClaims{"aud": test.aud, "azp": test.azp, "sub": "ada"}
		var err error
		if test.native {
			claims["iss"], claims["nonce"], claims["iat"], claims["exp"] = fake.URL, "nonce", time.Now().Unix(), time.Now().Add(time.Hour).Unix()
			if test.azp == nil {
				delete(claims, "azp")
			}
			_, err = p.Redeem(t.Context(), request, provider.Answer{IDToken: providertest.Sign(jwt.SigningMethodRS256, fake.Key, "one", claims)})
		} else {
			fake.SetClaims(claims)
			_, err = redeem(t, p, fake, "")
		}
		if (err == nil) != test.ok {
			t.Errorf("%s: got %v, want success %t", test.name, err, test.ok)
		}
	}
}

func TestTheIssuerPatternMatchesTheIssuersOfIdentities(t *testing.T) {
	t.Parallel()
	for config, want := range map[*provider.Config]string{
		{Kind: provider.Google}:                        "https://accounts.google.com",
		{Kind: provider.GitHub}:                        "https://github.com",
		{Kind: provider.Microsoft, Tenant: "common"}:   "https://login.microsoftonline.com/%/v2.0",
		{Kind: provider.Microsoft, Tenant: oneTenant}:  "https://login.microsoftonline.com/" + oneTenant + "/v2.0",
		{Kind: provider.OIDC, Issuer: "https://a_b/%"}: `https://a\_b/\%`,
	} {
		if got := provider.New(*config).IssuerPattern(); got != want {
			t.Errorf("%s %s%s: got %s, want %s", config.Kind, config.Tenant, config.Issuer, got, want)
		}
	}
}

const oneTenant = "11111111-2222-3333-4444-555555555555"
