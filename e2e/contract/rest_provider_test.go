package contract

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"gatehouse/e2e/harness"
	"gatehouse/internal/provider/providertest"
)

// withProvider sets up the provider "work", which vouches for addresses of example.com.
func withProvider(t *testing.T, p *providertest.Provider) harness.Option {
	t.Helper()
	file := filepath.Join(t.TempDir(), "providers.yaml")
	text := fmt.Sprintf("- {id: work, kind: oidc, name: Work, issuer: %q, client_id: gatehouse, email_domains: [example.com]}\n", p.Issuer())
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return harness.WithSettings("GATEHOUSE_PROVIDERS=" + file)
}

// providers asks the methods of other providers: somebody signs in with one, and the
// person whose email is verified links and unlinks theirs.
func (w *restWalk) providers() {
	if list, _ := w.ask("GET", "/api/v1/auth/providers", "", "", 200); len(list.list("providers")) != 1 {
		w.t.Errorf("ListProviders: %v, want one", list)
	}
	const sent = `{"returnTo":"/account"}`
	begun, _ := w.ask("POST", "/api/v1/auth/providers/work:begin", "", sent, 200)
	in, _ := w.ask("POST", "/api/v1/auth/providers/work:complete", "", w.visit(begun, "katherine"), 200)
	if in.text("signedIn.user.email") != "katherine@example.com" || in.text("returnTo") != "/account" {
		w.t.Errorf("CompleteFederatedLogin: %v, want a session of katherine", in)
	}
	w.ask("POST", "/api/v1/auth/providers/nowhere:begin", "", sent, 404)
	begun, _ = w.ask("POST", "/api/v1/me/identities:begin", w.me, `{"provider":"work"}`, 200)
	linked, _ := w.ask("POST", "/api/v1/me/identities", w.me, w.visit(begun, "augusta"), 200)
	if listed, _ := w.ask("GET", "/api/v1/me/identities", w.me, "", 200); len(listed.list("identities")) != 1 {
		w.t.Errorf("ListIdentities: %v, want one", listed)
	}
	w.ask("DELETE", "/api/v1/me/identities/"+linked.text("identity.identityId"), w.me, "", 204)
	w.userIdentities()
}

// userIdentities lists and unlinks the identity of a person, as an administrator.
func (w *restWalk) userIdentities() {
	begun, _ := w.ask("POST", "/api/v1/me/identities:begin", w.me, `{"provider":"work"}`, 200)
	w.ask("POST", "/api/v1/me/identities", w.me, w.visit(begun, "augusta"), 200)
	me, _ := w.ask("GET", "/api/v1/me", w.me, "", 200)
	path := restUsers + "/" + me.text("user.id") + "/identities"
	admin := w.login(harness.AdminEmail, `"password":"`+harness.AdminPassword+`"`).text("signedIn.tokens.accessToken")
	listed, _ := w.ask("GET", path, admin, "", 200)
	if len(listed.list("identities")) != 1 {
		w.t.Fatalf("ListUserIdentities: %v, want one", listed)
	}
	w.ask("DELETE", path+"/"+listed.list("identities")[0].text("identityId"), admin, "", 204)
}

// visit signs in at the provider, and returns the request with its answer.
func (w *restWalk) visit(begun restAnswer, subject string) string {
	w.t.Helper()
	back := w.provider.VisitAs(w.t, begun.text("authorizationUrl"), jwt.MapClaims{"sub": subject, "email": subject + "@example.com"})
	return fmt.Sprintf(`{"provider":"work","flowToken":%q,"code":%q,"state":%q}`, begun.text("flowToken"), back.Get("code"), back.Get("state"))
}

// visit is a person's answer to the authorization URL of the last step.
func (s *subject) visit(field string) string {
	s.t.Helper()
	if s.visited == nil {
		s.visited = map[string]url.Values{}
	}
	address := s.stepField("authorizationUrl")
	if s.visited[address] == nil {
		s.visited[address] = s.fixture.provider.VisitAs(s.t, address, jwt.MapClaims{"sub": s.number(), "email": "ada-" + s.number() + "@example.com"})
	}
	return s.visited[address].Get(field)
}
