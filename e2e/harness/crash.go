package harness

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// crashFile is the setting that names the file with the point at which to crash.
const crashFile = "GATEHOUSE_TEST_CRASH"

// CrashPoints makes the processes of a system kill themselves.
type CrashPoints struct{ file string }

// NewCrashPoints returns the crash points of a system that is started with their
// Option.
func NewCrashPoints(t testing.TB) CrashPoints {
	return CrashPoints{filepath.Join(t.TempDir(), "point")}
}

// Option makes every process of a system have crash points.
func (c CrashPoints) Option() Option { return WithSettings(c.Setting()) }

// Setting is the environment variable that makes a process have the crash points.
func (c CrashPoints) Setting() string { return crashFile + "=" + c.file }

// Arm makes the first process that reaches a point kill itself there.
func (c CrashPoints) Arm(t testing.TB, point string) {
	t.Helper()
	if err := os.WriteFile(c.file, []byte(point), 0o600); err != nil {
		t.Fatal(err)
	}
}

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
