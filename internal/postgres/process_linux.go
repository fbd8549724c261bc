package postgres

import (
	"fmt"
	"os"
	"syscall"
)

func signalAtOurDeath(attr *syscall.SysProcAttr, signal syscall.Signal) { attr.Pdeathsig = signal }

// runsOn reports whether a process works in the folder data, as a postmaster does on
// its cluster and a process that merely got its number does not.
func runsOn(pid int, data string) bool {
	cwd, err := os.Stat(fmt.Sprintf("/proc/%d/cwd", pid))
	if err != nil {
		return false
	}
	dir, err := os.Stat(data)
	return err == nil && os.SameFile(cwd, dir)
}
