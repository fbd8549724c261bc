package operate

import (
	"bytes"
	"encoding/json"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"gatehouse/app/status"
	"gatehouse/e2e/harness"
)

// runStatus runs gatehouse status and returns its exit status and output.
func runStatus(t *testing.T, at []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	p := harness.StartProcess(t, []string{"GATEHOUSE_OPS_LISTEN=" + strings.Join(at, ",")}, append([]string{"status"}, args...)...)
	p.Wait(t)
	return p.Cmd.ProcessState.ExitCode(), p.Stdout.String(), p.Stderr.String()
}

// listeners returns the operators' listeners of all services.
func listeners(s *harness.System) (at []string) {
	for _, role := range harness.Roles() {
		at = append(at, strings.TrimPrefix(s.Ops()[role], "http://"))
	}
	return at
}

func statusOf(t *testing.T, text string) status.Status {
	t.Helper()
	var now status.Status
	decoder := json.NewDecoder(bytes.NewBufferString(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&now); err != nil {
		t.Fatalf("gatehouse status --json printed %v:\n%s", err, text)
	}
	return now
}

// lineNames are promised to scripts: names are added, never changed. Each is shown by one
// of the roles after driveForMetrics.
var lineNames = []string{
	"uptime_seconds", "calls_total", "calls_failed_total", "calls_running", "calls_waiting",
	"revocations_by_stream", "revocations_age_seconds", "cache_current", "cache_calls_total", "cache_bytes",
	"password_queue_length", "mails", "mails_oldest_seconds",
	"webhook_deliveries", "webhook_oldest_seconds", "webhook_endpoints", "lifecycle_lag_seconds", "signing_key_age_seconds",
	"signing_key_next_seconds", "auth_clock_offset_seconds", "gateway_clock_offset_seconds",
	"connections_used", "connections_max", "breaker_open", "endpoint_ejected", "memory_bytes", "goroutines",
}

// lineNamesOfFaults are promised too; they are shown once something was refused or missing.
var lineNamesOfFaults = []string{"calls_shed_total", "calls_over_rate_total", "parts_missing_total", "password_refusals_total"}

func TestStatusPrintsTheSameLinesForPeopleAndScripts(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.ThreeProcesses, harness.WithOps())
	driveForMetrics(t, s)
	s.UntilRead(t, harness.RoleUsers)
	at := listeners(s)
	code, text, said := runStatus(t, at, "--json")
	now := statusOf(t, text)
	if code != 0 || !now.Ready || len(now.Processes) != len(harness.Roles()) {
		t.Fatalf("gatehouse status --json: exit status %d, %d processes, ready %t\n%s", code, len(now.Processes), now.Ready, said)
	}
	names := map[string]bool{}
	values := map[string]float64{}
	for i, role := range harness.Roles() {
		process := now.Processes[i]
		if process.Address != at[i] || process.Role != role || process.Version == "" || !process.Ready || len(process.Parts) == 0 {
			t.Errorf("process %d: %+v, want %s at %s, ready", i, process, role, at[i])
		}
		for _, line := range process.Lines {
			names[line.Name] = true
			values[role+" "+line.Name+" "+line.Of] = line.Value
		}
	}
	page, err := os.ReadFile("docs/how-to/alerts.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Concat(lineNames, lineNamesOfFaults) {
		if !bytes.Contains(page, []byte("`"+name+"`")) {
			t.Errorf("docs/how-to/alerts.md does not describe the line %s", name)
		}
	}
	for _, name := range lineNames {
		if !names[name] {
			t.Errorf("no process has the line %s", name)
		}
	}
	for name := range names {
		if !slices.Contains(lineNames, name) && !slices.Contains(lineNamesOfFaults, name) {
			t.Errorf("the line %s is not in the list of promised names", name)
		}
	}
	// A sign-up, a GetMe, two sign-ins, twenty unknown methods, which do not count.
	if calls := values["bff calls_total "]; calls < 4 || calls > 20 {
		t.Errorf("calls_total is %v, want the calls of this test", calls)
	}
	if values["bff revocations_by_stream "] != 1 || values["bff calls_failed_total "] != 0 || values["auth connections_max auth"] != 16 {
		t.Errorf("wrong values: %v", values)
	}

	wantSameRows(t, at, names)
}

// wantSameRows checks that gatehouse status prints a row for each name.
func wantSameRows(t *testing.T, at []string, names map[string]bool) {
	t.Helper()
	code, text, _ := runStatus(t, at)
	if code != 0 {
		t.Errorf("gatehouse status: exit status %d\n%s", code, text)
	}
	rows := map[string]bool{}
	for line := range strings.Lines(text) {
		if fields := strings.Fields(line); len(fields) > 0 {
			rows[fields[0]] = true
		}
	}
	for name := range names {
		if !rows[name] {
			t.Errorf("gatehouse status lacks %s, which --json has:\n%s", name, text)
		}
	}
}

func TestStatusSaysWhichProcessIsNotReady(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.ThreeProcesses, harness.WithOps())
	s.Processes[harness.RoleUsers].Kill()
	code, text, said := runStatus(t, listeners(s), "--json")
	now := statusOf(t, text)
	if users := now.Processes[1]; code != 1 || now.Ready || users.Ready || users.Error == "" || !now.Processes[2].Ready {
		t.Errorf("without users: exit status %d (%s), %s", code, said, text)
	}
	users := slices.IndexFunc(now.Processes[2].Parts, func(part status.Part) bool { return part.Part == harness.RoleUsers })
	if users < 0 || now.Processes[2].Parts[users].Ready || now.Processes[2].Parts[users].Needed || now.Processes[2].Parts[users].Reason == "" {
		t.Errorf("the gateway without users has the parts %+v, want users with a reason", now.Processes[2].Parts)
	}
}

func TestStatusRefusesWhatIsNoAddress(t *testing.T) {
	t.Parallel()
	for _, wrong := range []string{"9001", "localhost:1,http://localhost", ","} {
		code, _, said := runStatus(t, []string{wrong})
		if code != harness.ExitUsage || !strings.Contains(said, "GATEHOUSE_OPS_LISTEN: ") {
			t.Errorf("%s: exit status %d and %s, want %s", strconv.Quote(wrong), code, said, strconv.Itoa(harness.ExitUsage))
		}
	}
	if code, _, _ := runStatus(t, []string{harness.FreeAddress(t)}); code != 1 {
		t.Errorf("nothing listens: exit status %d, want 1", code)
	}
}
