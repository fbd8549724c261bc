package operate

import (
	"net/http"
	"strings"
	"testing"

	"gatehouse/e2e/harness"
)

// A page can be given the listener's address by DNS, not the listener's name.
func TestTheOperatorsListenerAnswersItsOwnHostsAlone(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.OneProcess, harness.WithOps(), harness.WithSettings("GATEHOUSE_OPS_HOSTS=metrics.example.com"))
	at := s.Ops()[harness.RoleUp]
	_, port, _ := strings.Cut(strings.TrimPrefix(at, "http://"), ":")
	for host, want := range map[string]int{
		"127.0.0.1:" + port: 200, "10.1.2.3": 200, "[::1]:" + port: 200, "[2001:db8::1]": 200,
		"localhost:" + port: 200, "LOCALHOST": 200, "gatehouse.localhost": 200,
		"bff": 200, "bff:9001": 200, "gatehouse.prod.svc": 200, "gatehouse.prod.svc.cluster.local:9001": 200, "gatehouse.internal.": 200,
		"metrics.example.com": 200, "Metrics.Example.com.:9001": 200,
		"evil.example": 421, "evil.example:" + port: 421, "127.0.0.1.evil.example": 421, "localhost.evil.example": 421,
		"svc.evil.example": 421, "metrics.example.com.evil.example": 421, "127.0.0.1.nip.io": 421, "printer.local": 421,
	} {
		for _, path := range []string{"/metrics", "/debug/pprof/cmdline", "/readyz"} {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, at+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			request.Host = host
			if status, _, body := harness.Do(t, request); status != want || want == 421 && !strings.Contains(body, "GATEHOUSE_OPS_HOSTS") {
				t.Errorf("%s with Host %s: %d %.100s, want %d", path, host, status, body, want)
			}
		}
	}
}
