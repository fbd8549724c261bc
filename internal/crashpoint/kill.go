//go:build crashpoint

package crashpoint

import (
	"os"
	"syscall"
)

var file = os.Getenv("GATEHOUSE_TEST_CRASH")

// Reach kills the process if the file holds the name of the point. It removes the file
// first, so that the next process does not end there too.
func Reach(name string) {
	if armed, err := os.ReadFile(file); err == nil && string(armed) == name && os.Remove(file) == nil {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // until the signal arrives
	}
}
