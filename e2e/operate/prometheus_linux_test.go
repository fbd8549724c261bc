package operate

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/pgtest"
	"gatehouse/internal/testneed"
)

const observability = "deploy/observability/"

// startPrometheus starts a Prometheus with the configuration and the alerts of
// deploy/observability on the operators' listeners of a system, and returns its URL. It
// scrapes every second.
func startPrometheus(t *testing.T, program string, s *harness.System) string {
	t.Helper()
	dir := t.TempDir()
	var targets []string
	for _, url := range s.Ops() {
		targets = append(targets, fmt.Sprintf("%q", strings.TrimPrefix(url, "http://")))
	}
	config, err := os.ReadFile(observability + "prometheus.yml")
	if err != nil {
		t.Fatal(err)
	}
	rules, err := os.ReadFile(observability + "rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"prometheus.yml": strings.ReplaceAll(string(config), ": 15s", ": 1s"),
		"rules.yaml":     string(rules),
		"targets.yaml":   "- targets: [" + strings.Join(targets, ", ") + "]\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	address := harness.FreeAddress(t)
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	prometheus := exec.Command(program, "--config.file="+filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+address, "--enable-feature=exemplar-storage")
	prometheus.Stdout, prometheus.Stderr = log, log
	if err := prometheus.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = prometheus.Process.Signal(syscall.SIGTERM)
		_ = prometheus.Wait()
		_ = log.Close()
		if t.Failed() {
			text, _ := os.ReadFile(filepath.Join(dir, "log"))
			t.Logf("Prometheus:\n%s", text)
		}
	})
	at := "http://" + address
	harness.Eventually(t, time.Minute, "start Prometheus", func() error {
		response, err := http.Get(at + "/-/ready")
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return errors.New(response.Status)
		}
		return nil
	})
	return at
}

// query asks Prometheus, and returns how many series an expression has.
func query(t *testing.T, at, expr string) (int, error) {
	t.Helper()
	status, body := harness.Get(t, at+"/api/v1/query?query="+url.QueryEscape(expr))
	var answer struct {
		Error string
		Data  struct{ Result []json.RawMessage }
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		return 0, fmt.Errorf("%d %s: %w", status, body, err)
	}
	if status != http.StatusOK {
		return 0, errors.New(answer.Error)
	}
	return len(answer.Data.Result), nil
}

// panelQueries returns the expressions of all dashboards by dashboard and panel, with
// the values of Grafana's variables for everything.
func panelQueries(t *testing.T) map[string]string {
	t.Helper()
	paths, err := filepath.Glob(observability + "dashboards/*.json")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var board struct {
			Panels []struct {
				Title   string
				Targets []struct{ RefID, Expr string }
			}
		}
		if err := json.Unmarshal(text, &board); err != nil {
			t.Fatal(err)
		}
		for _, panel := range board.Panels {
			for _, target := range panel.Targets {
				all[strings.TrimSuffix(filepath.Base(path), ".json")+": "+panel.Title+" "+target.RefID] =
					strings.NewReplacer("$job", ".*", "$instance", ".*", "$__rate_interval", "1m").Replace(target.Expr)
			}
		}
	}
	return all
}

// mayBeEmpty are panels about faults that the test does not cause: nothing is refused,
// missing, retried or firing. Those of the last two lines are about what it does not use:
// providers, webhooks, API keys and live streams.
var mayBeEmpty = []string{
	"overview: Firing alerts A", "overview: Refused calls by reason A", "overview: Calls that exceeded a rate A",
	"gateway: Refused calls by method A", "gateway: Calls that exceeded a rate A", "gateway: Missing parts A",
	"auth: Refused by the password queue A",
	"services: Retries and hedges A", "services: Retries and hedges B", "services: Openings of circuit breakers A",
	"services: Ejections A",
	"auth: Answers of other providers A", "auth: Attempts to send events to webhooks A",
	"gateway: Verified API keys by result A", "gateway: Events of live streams A", "gateway: Ends of live streams A",
}

// onReplica starts a database with a standby, which answers reads.
func onReplica(t *testing.T) []harness.Option {
	t.Helper()
	replica := pgtest.StartReplica(t)
	return []harness.Option{harness.OnDatabase(replica.Database), harness.WithSettings(
		"AUTH_READ_DATABASE_URL="+replica.StandbyURL(harness.RoleAuth), "USERS_READ_DATABASE_URL="+replica.StandbyURL(harness.RoleUsers))}
}

// TestDashboardsAndAlertsWorkOnARunningSystem evaluates every expression of the files
// with a real Prometheus that scrapes a system under traffic. Each is valid; each panel
// has data, except those about faults.
func TestDashboardsAndAlertsWorkOnARunningSystem(t *testing.T) {
	t.Parallel()
	program := testneed.Program(t, "prometheus")
	c := newCollector(t)
	s := harness.Start(t, harness.ThreeProcesses, append(onReplica(t), harness.WithOps(), harness.WithSettings("OTEL_EXPORTER_OTLP_ENDPOINT="+c.url))...)
	at := startPrometheus(t, program, s)
	driveForMetrics(t, s)

	empty := panelQueries(t)
	if len(empty) < 60 {
		t.Fatalf("the dashboards have %d queries, fewer than expected: does this test still find them?", len(empty))
	}
	person := s.SignUp(t, "grace@example.com")
	harness.Eventually(t, time.Minute, "data in every panel", func() error {
		// Traffic, of which some is refused: a wrong password, and at the end a rate.
		_, _ = person.Client().Account.GetMe(t.Context(), &bffv1.GetMeRequest{})
		_, _ = s.Client("").Auth.Login(t.Context(), &bffv1.LoginRequest{Email: "ada@example.com", Password: "made up word"})
		for name, expr := range maps.Clone(empty) {
			series, err := query(t, at, expr)
			if err != nil {
				t.Fatalf("%s: %v:\n%s", name, err, expr)
			}
			if series > 0 || slices.Contains(mayBeEmpty, name) {
				delete(empty, name)
			}
		}
		if len(empty) > 0 {
			return fmt.Errorf("no data in %q", slices.Sorted(maps.Keys(empty)))
		}
		return nil
	})

	var file struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	text, err := os.ReadFile(observability + "rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	for _, group := range file.Groups {
		for _, rule := range group.Rules {
			if _, err := query(t, at, rule.Expr); err != nil {
				t.Errorf("%s: %v", rule.Alert, err)
			}
		}
	}
	// Not even a pending alert, except on the wrong passwords above.
	harness.Eventually(t, time.Minute, "be healthy", func() error {
		alerts, err := query(t, at, `ALERTS{alertname!~"GatehouseSignInsFail|GatehousePasswordQueueFull"}`)
		if err == nil && alerts != 0 {
			err = fmt.Errorf("%d alerts on a healthy system", alerts)
		}
		return err
	})

	s.Processes[harness.RoleUsers].Kill()
	harness.Eventually(t, time.Minute, "notice a dead process", func() error {
		if pending, err := query(t, at, `ALERTS{alertname="GatehouseTargetDown"}`); err != nil || pending != 1 {
			return fmt.Errorf("%d alerts: %v", pending, err)
		}
		return nil
	})
	wantExemplar(t, at)
}

// wantExemplar checks that Prometheus kept a trace of a duration.
func wantExemplar(t *testing.T, at string) {
	t.Helper()
	now := time.Now()
	target := fmt.Sprintf("%s/api/v1/query_exemplars?query=%s&start=%d&end=%d", at, "rpc_server_call_duration_seconds_bucket", now.Add(-time.Hour).Unix(), now.Unix())
	if status, body := harness.Get(t, target); status != http.StatusOK || !strings.Contains(body, `"trace_id":"`) {
		t.Errorf("exemplars: %d %s, want a trace_id", status, body)
	}
}
