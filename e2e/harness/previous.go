package harness

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gatehouse/internal/release"
	"gatehouse/internal/testneed"
)

// beforeFactors is the last commit whose auth knows no second factors.
const beforeFactors = "3eab7a6365a2a8b9eaeccdfeec392778ce80e96c"

// BuildPrevious builds the program of the previous release and returns its path. A clone
// without its history has no previous release.
func BuildPrevious(t *testing.T) string {
	t.Helper()
	return buildCommit(t, release.Previous)
}

// BuildBeforeFactors is BuildPrevious for the last program that knows no second factors.
func BuildBeforeFactors(t *testing.T) string {
	t.Helper()
	return buildCommit(t, beforeFactors)
}

func buildCommit(t *testing.T, commit string) string {
	t.Helper()
	testneed.Program(t, "git")
	if exec.Command("git", "cat-file", "-e", commit).Run() != nil {
		said, _ := exec.Command("git", "rev-parse", "--is-shallow-repository").CombinedOutput()
		if answer := strings.TrimSpace(string(said)); answer == "false" {
			t.Fatalf("the repository has its history and lacks the commit %s of a previous release", commit)
		}
		testneed.Lacks(t, "this is no clone with its history, so the previous release can't be built", "run git fetch --unshallow")
	}
	dir := t.TempDir()
	archive := filepath.Join(dir, "previous.tar")
	program := filepath.Join(dir, "gatehouse-previous")
	source := filepath.Join(dir, "source")
	if err := os.Mkdir(source, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, command := range []*exec.Cmd{
		exec.Command("git", "archive", "--output="+archive, commit),
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
