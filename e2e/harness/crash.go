package harness

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// buildCrashing builds gatehouse with its crash points, once for a test binary.
var buildCrashing = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "gatehouse-crashpoint-")
	if err != nil {
		return "", err
	}
	crashingDir = dir
	program := filepath.Join(dir, "gatehouse")
	if output, err := exec.Command("go", "build", "-tags", "crashpoint", "-o", program, ".").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build gatehouse with crash points: %w: %s", err, output)
	}
	return program, nil
})

// crashingDir is the folder of the program that buildCrashing made, if it did.
var crashingDir string

// crashing returns the path of gatehouse with its crash points.
func crashing(t testing.TB) string {
	t.Helper()
	program, err := buildCrashing()
	if err != nil {
		t.Fatal(err)
	}
	return program
}

// removeCrashing removes what buildCrashing made.
func removeCrashing() {
	if crashingDir != "" {
		_ = os.RemoveAll(crashingDir)
	}
}
