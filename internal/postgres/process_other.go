//go:build !linux

package postgres

import (
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// setParentDeathSignal does nothing: there is no such signal here, and the next Start stops an
// orphan.
func setParentDeathSignal(*syscall.SysProcAttr, syscall.Signal) {}

// runsOn reports whether a process is the postmaster of the cluster in data, by its -D
// argument.
func runsOn(pid int, data string) bool {
	out, err := exec.Command("ps", "-ww", "-o", "command=", "-p", strconv.Itoa(pid)).Output()
	return err == nil && strings.Contains(string(out), " -D "+data+" ")
}
