//go:build crashpoint

package crashpoint

import (
	"os"
	"syscall"
)

var crashAt = os.Getenv("GATEHOUSE_TEST_CRASH")

// Reach kills the process if the point is the one that the environment names.
func Reach(name string) {
	if name == crashAt {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // until the signal arrives
	}
}
