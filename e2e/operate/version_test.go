package operate

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The program that the Dockerfile builds says which commit it was built from and when that
// was made, or that it does not know.
func TestTheImageSaysItsCommit(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	flags := regexp.MustCompile(`-ldflags "([^"]+)"`).FindStringSubmatch(string(text))
	if flags == nil {
		t.Fatal("the Dockerfile builds without -ldflags")
	}
	defaults := map[string]string{}
	for _, found := range regexp.MustCompile(`(?m)^ARG (\w+)=(\S+)$`).FindAllStringSubmatch(string(text), -1) {
		defaults[found[1]] = found[2]
	}
	const commit, made = "0123456789abcdef0123456789abcdef01234567", "2026-11-29T12:00:00+01:00"
	for _, row := range []struct {
		arguments                map[string]string
		commit, commitTime, line string
	}{
		{map[string]string{"COMMIT": commit, "COMMIT_TIME": made}, commit, made, "+0123456789ab of " + made + ", schema "},
		{defaults, "unknown", "unknown", "+unknown, schema "},
	} {
		program := filepath.Join(t.TempDir(), "gatehouse")
		given := os.Expand(flags[1], func(name string) string { return row.arguments[name] })
		// As in the build context, without version control.
		if said, err := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-ldflags", given, "-o", program, ".").CombinedOutput(); err != nil {
			t.Fatalf("go build -ldflags %q: %v\n%s", given, err, said)
		}
		line, err := exec.CommandContext(t.Context(), program, "version").CombinedOutput()
		if err != nil || !strings.Contains(string(line), row.line) {
			t.Errorf("with %v, version says %s (%v), want %q in it", row.arguments, line, err, row.line)
		}
		described, err := exec.CommandContext(t.Context(), program, "version", "--json").Output()
		if err != nil {
			t.Fatal(err)
		}
		var build struct {
			Commit     string `json:"commit"`
			CommitTime string `json:"commit_time"`
		}
		if err := json.Unmarshal(described, &build); err != nil || build.Commit != row.commit || build.CommitTime != row.commitTime {
			t.Errorf("with %v, version --json says %s (%v)", row.arguments, described, err)
		}
	}
}
