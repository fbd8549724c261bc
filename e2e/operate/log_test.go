package operate

import (
	"encoding/json"
	"strings"
	"testing"

	"gatehouse/e2e/harness"
)

func TestLogSettingsAreChecked(t *testing.T) {
	t.Parallel()
	status, said := harness.RunCommand(t, []string{"GATEHOUSE_LOG_LEVEL=loud", "GATEHOUSE_LOG_FORMAT=xml", "GATEHOUSE_DRAIN=-1s"}, harness.RoleUsers)
	for _, want := range []string{`GATEHOUSE_LOG_LEVEL: "loud" is not known: set it to debug, info, warn or error`, `GATEHOUSE_LOG_FORMAT: "xml" is not known`, "GATEHOUSE_DRAIN"} {
		if status != harness.ExitUsage || !strings.Contains(said, want) {
			t.Errorf("exit status %d, doesn't say %q:\n%s", status, want, said)
		}
	}
}

// lines are the log's messages by level; want is how each line looks.
func messages(t *testing.T, log string) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	for line := range strings.Lines(log) {
		var entry struct{ Level, Msg string }
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatalf("a line of the log isn't JSON: %q", line)
		}
		found[entry.Level] = append(found[entry.Level], entry.Msg)
	}
	return found
}

func has(messages []string, want string) bool {
	for _, one := range messages {
		if strings.HasPrefix(one, want) {
			return true
		}
	}
	return false
}

func TestUpLogsItsStartAndItsStop(t *testing.T) {
	t.Parallel()
	h := harness.NewEmbedded(t)
	p, _ := h.Up(t)
	p.Interrupt(t)
	logged := messages(t, p.Stderr.String())
	for _, want := range []string{"starting", "stopping", "stopped"} {
		if !has(logged["INFO"], want) {
			t.Errorf("up didn't log %q:\n%s", want, p.Stderr.String())
		}
	}
	if has(logged["WARN"], "mail disabled") {
		t.Errorf("up has a mailbox, and warned:\n%s", p.Stderr.String())
	}
	h.Env = append(h.Env, "GATEHOUSE_LOG_FORMAT=text")
	p, _ = h.Up(t)
	p.Interrupt(t)
	if log := p.Stderr.String(); strings.Contains(log, "{") || !strings.Contains(log, "INF starting") {
		t.Errorf("with GATEHOUSE_LOG_FORMAT=text the log is\n%s", log)
	}
	h.Env = append(h.Env, "GATEHOUSE_LOG_FORMAT=json", "GATEHOUSE_LOG_LEVEL=error")
	p, _ = h.Up(t)
	p.Interrupt(t)
	if log := p.Stderr.String(); log != "" {
		t.Errorf("with GATEHOUSE_LOG_LEVEL=error the log is\n%s", log)
	}
}

func TestAStartWithoutMailWarns(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.ThreeProcesses)
	if log := s.Processes[harness.RoleAuth].Stderr.String(); !has(messages(t, log)["WARN"], "mail disabled, password resets and email verification are unavailable") {
		t.Errorf("auth without SMTP_URL logged\n%s", log)
	}
}
