package postgres

import (
	"fmt"
	"os"
	"syscall"
)

func setParentDeathSignal(attr *syscall.SysProcAttr, signal syscall.Signal) { attr.Pdeathsig = signal }

// runsOn reports whether the working directory of a process is data, which identifies the
// postmaster of the cluster.
func runsOn(pid int, data string) bool {
	cwd, err := os.Stat(fmt.Sprintf("/proc/%d/cwd", pid))
	if err != nil {
		return false
	}
	dir, err := os.Stat(data)
	return err == nil && os.SameFile(cwd, dir)
}
