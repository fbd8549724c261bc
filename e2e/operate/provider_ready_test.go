package operate

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/fault"
	"gatehouse/internal/provider/providertest"
)

// A load balancer that took Gatehouse out because of a provider would lock out those who
// sign in another way.
func TestAProviderThatIsDownAffectsNoReadiness(t *testing.T) {
	t.Parallel()
	for _, shape := range harness.Shapes {
		t.Run(string(shape), func(t *testing.T) {
			t.Parallel()
			const metadata = "/.well-known/openid-configuration"
			p := providertest.New(t)
			p.Spoil(metadata, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
			file := filepath.Join(t.TempDir(), "providers.yaml")
			text := fmt.Sprintf("- {id: failing, kind: oidc, issuer: %q, client_id: gatehouse}\n- {id: gone, kind: oidc, issuer: \"http://127.0.0.1:1\", client_id: gatehouse}\n", p.Issuer())
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			s := harness.Start(t, shape, harness.WithOps(), harness.WithSettings("GATEHOUSE_PROVIDERS="+file)) // waits for readiness
			ready := func(when string) {
				t.Helper()
				for role, url := range s.Ops() {
					if status, body := harness.Get(t, "http://"+s.Roles[role].Listen+"/readyz"); status != http.StatusOK {
						t.Errorf("%s: %s is not ready: %d %s", when, role, status, body)
					}
					status, now := readinessAt(t, url)
					if status != http.StatusOK || !now.Ready {
						t.Errorf("%s: the operators of %s see %d %+v, want it ready", when, role, status, now)
					}
					for _, part := range now.Parts {
						if !part.Ready {
							t.Errorf("%s: the operators of %s see %+v, want it ready", when, role, part)
						}
					}
				}
			}
			ready("before anybody went to a provider")
			for range 10 {
				for _, id := range []string{"failing", "gone"} {
					_, err := s.Client("").Auth.BeginFederatedLogin(t.Context(), &bffv1.BeginFederatedLoginRequest{Provider: id})
					if fault.Reason(err) != fault.ReasonProvider {
						t.Fatalf("%s: got %v, want %s", id, err, fault.ReasonProvider)
					}
				}
				ready("while the providers are down")
			}
			if n := p.Calls(metadata); n == 0 || n >= 10 {
				t.Errorf("the failing provider was called %d times for 10 visits, want some, and none once its circuit breaker is open", n)
			}
			s.Admin(t) // by password
		})
	}
}
