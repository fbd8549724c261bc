package faults

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gatehouse/internal/testneed"
)

// In a clone without its history, the upgrade can't be tested. Where every test must run,
// such as in CI, it fails instead of being skipped.
func TestTheUpgradeIsNotSkippedInAShallowClone(t *testing.T) {
	t.Parallel()
	testneed.Program(t, "git")
	clone := filepath.Join(t.TempDir(), "clone")
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if said, err := exec.CommandContext(t.Context(), "git", "clone", "--quiet", "--depth=1", "file://"+here, clone).CombinedOutput(); err != nil {
		t.Fatalf("clone: %v\n%s", err, said)
	}
	for require, want := range map[string]string{"": "--- SKIP", "all": "--- FAIL"} {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.v", "-test.run=^TestAnUpgradeAndItsRollbackLoseNoRequest$")
		cmd.Dir, cmd.Env = clone, append(os.Environ(), "GATEHOUSE_TEST_REQUIRE="+require)
		said, _ := cmd.CombinedOutput()
		if !strings.Contains(string(said), want) || !strings.Contains(string(said), "git fetch --unshallow") {
			t.Errorf("GATEHOUSE_TEST_REQUIRE=%q: want %s and git fetch --unshallow, got\n%s", require, want, said)
		}
	}
}
