//go:build !linux

package postgres

import (
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// signalAtOurDeath can't be had: the next Start stops what was left.
func signalAtOurDeath(*syscall.SysProcAttr, syscall.Signal) {}

// runsOn reports whether a process is a postmaster on the cluster in data, by the
// argument that we give it.
func runsOn(pid int, data string) bool {
	out, err := exec.Command("ps", "-ww", "-o", "command=", "-p", strconv.Itoa(pid)).Output()
	return err == nil && strings.Contains(string(out), " -D "+data+" ")
}
