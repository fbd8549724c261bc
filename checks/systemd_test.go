package checks

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gatehouse/app"
	"gatehouse/internal/testneed"
)

const systemdUnit = "deploy/systemd/gatehouse.service"

// The unit is valid, and systemd rates its exposure as 1.5 of 10 or less.
func TestTheSystemdUnitIsValidAndHardened(t *testing.T) {
	t.Parallel()
	analyze := testneed.Program(t, "systemd-analyze")
	text, err := os.ReadFile(systemdUnit)
	if err != nil {
		t.Fatal(err)
	}
	// verify requires that the program exists.
	unit := filepath.Join(t.TempDir(), "gatehouse.service")
	if err := os.WriteFile(unit, []byte(strings.ReplaceAll(string(text), "/usr/local/bin/gatehouse ", "/bin/true ")), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"verify", "--recursive-errors=no", unit}, {"security", "--offline=true", "--threshold=15", unit}} {
		out, err := exec.CommandContext(t.Context(), analyze, args...).CombinedOutput()
		if err != nil || args[0] == "verify" && len(out) > 0 {
			t.Errorf("systemd-analyze %s: %v\n%s", args[0], err, out)
		}
	}
}

// Each command and each setting in the unit exists, and each secret that it sets is read
// from a credential that it loads.
func TestTheSystemdUnitUsesCommandsAndSettingsThatExist(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(systemdUnit)
	if err != nil {
		t.Fatal(err)
	}
	model, err := app.CommandLine()
	if err != nil {
		t.Fatal(err)
	}
	var commands, settings []string
	for _, command := range model.Model.Leaves(false) {
		commands = append(commands, command.Path())
		for _, flags := range command.AllFlags(false) {
			for _, flag := range flags {
				settings = append(settings, flag.Envs...)
			}
		}
	}
	for _, run := range regexp.MustCompile(`(?m)^Exec\w+=/usr/local/bin/gatehouse (.+)$`).FindAllStringSubmatch(string(text), -1) {
		if !slices.Contains(commands, run[1]) {
			t.Errorf("the unit runs gatehouse %s, which is no command", run[1])
		}
	}
	found := regexp.MustCompile(`(?m)^Environment=(\w+)_FILE=%d/(\S+)$`).FindAllStringSubmatch(string(text), -1)
	for _, set := range found {
		if !slices.Contains(settings, set[1]) {
			t.Errorf("the unit sets %s_FILE, and %s is no setting", set[1], set[1])
		}
		if !strings.Contains(string(text), "\nLoadCredential="+set[2]+":") {
			t.Errorf("the unit reads the credential %s, which it does not load", set[2])
		}
	}
	if len(found) < 4 {
		t.Errorf("the unit reads %d secrets, want those of the database and of the keys", len(found))
	}
}
