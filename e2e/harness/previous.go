package harness

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gatehouse/internal/testneed"
)

// previousRelease is the commit of the release before this one. A release changes it.
const previousRelease = "cacb93809f3e6e1438c71c4aa51d319373df6fa4"

// BuildPrevious builds the program of the previous release and returns its path. A clone
// without its history has no previous release, so the test is skipped there.
func BuildPrevious(t *testing.T) string {
	t.Helper()
	testneed.Program(t, "git")
	if exec.Command("git", "cat-file", "-e", previousRelease).Run() != nil {
		said, _ := exec.Command("git", "rev-parse", "--is-shallow-repository").CombinedOutput()
		if answer := strings.TrimSpace(string(said)); answer == "false" {
			t.Fatalf("the repository has its history and lacks the commit %s of the previous release", previousRelease)
		}
		t.Skip("this is no clone with its history, so the previous release can't be built: git fetch --unshallow")
	}
	dir := t.TempDir()
	archive := filepath.Join(dir, "previous.tar")
	program := filepath.Join(dir, "gatehouse-previous")
	source := filepath.Join(dir, "source")
	if err := os.Mkdir(source, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, command := range []*exec.Cmd{
		exec.Command("git", "archive", "--output="+archive, previousRelease),
		exec.Command("tar", "-xf", archive, "-C", source),
		exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", program, "."),
	} {
		if command.Args[0] == "go" {
			command.Dir = source
		}
		if said, err := command.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", command.Args, err, said)
		}
	}
	return program
}
