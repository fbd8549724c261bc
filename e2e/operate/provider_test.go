package operate

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/provider/providertest"
)

// withProvider sets up the provider "work", which vouches for addresses of example.com.
func withProvider(t *testing.T, p *providertest.Provider) harness.Option {
	t.Helper()
	file := filepath.Join(t.TempDir(), "providers.yaml")
	text := fmt.Sprintf("- {id: work, kind: oidc, issuer: %q, client_id: gatehouse, email_domains: [example.com]}\n", p.Issuer())
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return harness.WithSettings("GATEHOUSE_PROVIDERS=" + file)
}

// answerOfProvider gives a provider's answer with a code that it does not know.
func answerOfProvider(t *testing.T, s *harness.System, p *providertest.Provider) {
	t.Helper()
	begun, err := s.Client("").Auth.BeginFederatedLogin(t.Context(), &bffv1.BeginFederatedLoginRequest{Provider: "work"})
	if err != nil {
		t.Fatalf("BeginFederatedLogin: %v", err)
	}
	_, err = s.Client("").Auth.CompleteFederatedLogin(t.Context(), &bffv1.CompleteFederatedLoginRequest{
		Provider: "work", FlowToken: begun.GetFlowToken(), Code: "another", State: p.Visit(t, begun.GetAuthorizationUrl()).Get("state"),
	})
	if err == nil {
		t.Error("a code that the provider does not know was accepted")
	}
}
