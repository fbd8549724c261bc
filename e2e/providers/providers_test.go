package providers

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/fault"
)

// callback is that of an app. Nothing is sent to it: the tests read the redirect.
const callback = "https://app.example.com/callback"

// peer is a provider that serves one client.
type peer struct {
	issuer, client, secret string
	// tellsTime says that it states when somebody signed in there.
	tellsTime bool
	// visit signs somebody in at the provider, by their address, and returns what comes
	// back to the callback.
	visit func(t *testing.T, authorizationURL, email string) url.Values
}

// The addresses of people at the providers, which vouch for them.
const (
	ada   = "ada@example.com"
	grace = "grace@example.com"
)

// app is an app whose people sign in with a provider.
type app struct {
	*harness.System
	peer
}

func newApp(t *testing.T, shape harness.Shape, p peer) *app {
	t.Helper()
	folder := t.TempDir()
	entries, err := json.Marshal([]map[string]any{{
		"id": "peer", "kind": "oidc", "name": "Peer", "issuer": p.issuer, "client_id": p.client, "client_secret_file": "secret",
		"email_domains": []string{"example.com"}, "redirect_uris": []string{callback},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"providers.json": string(entries), "secret": p.secret} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return &app{harness.Start(t, shape, harness.WithSettings("GATEHOUSE_PROVIDERS="+filepath.Join(folder, "providers.json"))), p}
}

// signIn signs in with the provider.
func (a *app) signIn(t *testing.T, email string) *bffv1.CompleteFederatedLoginResponse {
	t.Helper()
	begun, err := a.Client("").Auth.BeginFederatedLogin(t.Context(), &bffv1.BeginFederatedLoginRequest{Provider: "peer", RedirectUri: callback})
	if err != nil {
		t.Fatalf("BeginFederatedLogin: %v", err)
	}
	back := a.visit(t, begun.GetAuthorizationUrl(), email)
	done, err := a.Client("").Auth.CompleteFederatedLogin(t.Context(), &bffv1.CompleteFederatedLoginRequest{
		Provider: "peer", FlowToken: begun.GetFlowToken(), Code: back.Get("code"), State: back.Get("state"), Iss: back.Get("iss"),
	})
	if err != nil {
		t.Fatalf("CompleteFederatedLogin: %v", err)
	}
	return done
}

// person signs in with the provider, and returns whose session it is.
func (a *app) person(t *testing.T, email string) *harness.Person {
	t.Helper()
	done := a.signIn(t, email)
	if done.GetSignedIn() == nil {
		t.Fatalf("got %v, want a session", done)
	}
	return harness.PersonOf(t, a.Connect, done.GetSignedIn())
}

// link links the identity of somebody at the provider to a person.
func (a *app) link(t *testing.T, p *harness.Person, email string) (*bffv1.Identity, error) {
	t.Helper()
	begun, err := p.Client().Account.BeginLinkIdentity(t.Context(), &bffv1.BeginLinkIdentityRequest{Provider: "peer", RedirectUri: callback})
	if err != nil {
		t.Fatalf("BeginLinkIdentity: %v", err)
	}
	back := a.visit(t, begun.GetAuthorizationUrl(), email)
	linked, err := p.Client().Account.CompleteLinkIdentity(t.Context(), &bffv1.CompleteLinkIdentityRequest{
		Provider: "peer", FlowToken: begun.GetFlowToken(), Code: back.Get("code"), State: back.Get("state"), Iss: back.Get("iss"),
	})
	return linked.GetIdentity(), err
}

// create makes an account whose email counts as verified, and signs in to it.
func (a *app) create(t *testing.T, email string) *harness.Person {
	t.Helper()
	_, err := a.Admin(t).Client().Users.CreateUser(t.Context(), &bffv1.CreateUserRequest{User: &bffv1.User{Email: email}, Password: harness.Password})
	if err != nil {
		t.Fatalf("CreateUser: %v", err)
	}
	return a.SignIn(t, email, harness.Password)
}

func identitiesOf(t *testing.T, p *harness.Person) []*bffv1.Identity {
	t.Helper()
	list, err := p.Client().Account.ListIdentities(t.Context(), &bffv1.ListIdentitiesRequest{})
	if err != nil {
		t.Fatalf("ListIdentities: %v", err)
	}
	return list.GetIdentities()
}

func TestPeople(t *testing.T) {
	t.Parallel()
	program := buildExample(t)
	for name, start := range map[string]func(t *testing.T) peer{
		"mockoidc": startMockoidc, "zitadel": func(t *testing.T) peer { return startExample(t, program) },
	} {
		for _, shape := range harness.Shapes {
			t.Run(name+", "+string(shape), func(t *testing.T) {
				t.Parallel()
				a := newApp(t, shape, start(t))
				made := a.signUpAndIn(t)
				a.linkAndUnlink(t, made)
			})
		}
	}
}

// signUpAndIn signs ada up and in again, and returns the first session.
func (a *app) signUpAndIn(t *testing.T) *harness.Person {
	t.Helper()
	made := a.person(t, ada)
	if made.Email != ada || !made.User.GetEmailVerified() {
		t.Errorf("signed up as %v, want the verified %s", made.User, ada)
	}
	again := a.person(t, ada)
	if again.ID != made.ID || again.Session == made.Session {
		t.Errorf("signed in as %s in session %s, want %s in another session than %s", again.ID, again.Session, made.ID, made.Session)
	}
	if list := identitiesOf(t, made); len(list) != 1 || list[0].GetEmail() != ada || list[0].GetLastUsedTime().AsTime().Before(list[0].GetCreateTime().AsTime()) {
		t.Errorf("got the identities %v, want one of %s", list, ada)
	} else {
		want := "REAUTHENTICATION_REQUIRED" // the sign-in may be an old one
		if a.tellsTime {
			want = "LAST_SIGN_IN_METHOD"
		}
		_, err := again.Client().Account.UnlinkIdentity(t.Context(), &bffv1.UnlinkIdentityRequest{IdentityId: list[0].GetIdentityId()})
		harness.WantReason(t, err, connect.CodeFailedPrecondition, want)
	}
	return made
}

// linkAndUnlink links grace's identity to an account with another email, and unlinks it.
func (a *app) linkAndUnlink(t *testing.T, other *harness.Person) {
	t.Helper()
	owner := a.create(t, "owner@example.com")
	if _, err := a.link(t, owner, ada); fault.Reason(err) != "IDENTITY_TAKEN" {
		t.Errorf("link the identity of %s: got %v, want IDENTITY_TAKEN", other.Email, err)
	}
	linked, err := a.link(t, owner, grace)
	if err != nil || linked.GetEmail() != grace {
		t.Fatalf("link: got %v, %v, want the identity of %s", linked, err, grace)
	}
	in := a.person(t, grace)
	if in.ID != owner.ID || in.Email != owner.Email {
		t.Errorf("signed in as %v, want the owner of the linked identity", in.User)
	}
	if _, err := owner.Client().Account.UnlinkIdentity(t.Context(), &bffv1.UnlinkIdentityRequest{IdentityId: linked.GetIdentityId()}); err != nil {
		t.Fatalf("UnlinkIdentity: %v", err)
	}
	if left := identitiesOf(t, owner); len(left) != 0 {
		t.Errorf("identities %v are left", left)
	}
	harness.Eventually(t, 20*time.Second, "the session that began with the identity ends", func() error {
		_, err := in.Client().Account.GetMe(t.Context(), &bffv1.GetMeRequest{})
		if connect.CodeOf(err) != connect.CodeUnauthenticated {
			return fmt.Errorf("got %v", err)
		}
		return nil
	})
	if now := a.person(t, grace); now.ID == owner.ID {
		t.Error("the unlinked identity still signs in to the account")
	}
}

// redirects is a browser that stops where a provider leads it back.
func redirects(jar http.CookieJar) *http.Client {
	return &http.Client{Jar: jar, CheckRedirect: func(next *http.Request, _ []*http.Request) error {
		if next.URL.Host == "app.example.com" {
			return http.ErrUseLastResponse
		}
		return nil
	}}
}

// answerOf returns the parameters of the redirect to the callback.
func answerOf(t *testing.T, response *http.Response) url.Values {
	t.Helper()
	defer response.Body.Close()
	back, err := response.Location()
	if err != nil || back.Scheme+"://"+back.Host+back.Path != callback || back.Query().Get("code") == "" {
		t.Fatalf("the provider answered %s with %v (%v), want a redirect to %s with a code", response.Status, back, err, callback)
	}
	return back.Query()
}
