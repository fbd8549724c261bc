package main

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// pin restricts all threads of a process, and the threads and processes that they
// start later, to these cores.
func pin(pid int, cores []int) error {
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return err
	}
	for _, thread := range threads {
		id, err := strconv.Atoi(thread.Name())
		if err != nil {
			return err
		}
		// The thread may have ended.
		if err := pinThread(id, cores); err != nil && err != unix.ESRCH {
			return fmt.Errorf("pin process %d to cores %v: %w", pid, cores, err)
		}
	}
	return nil
}

// pinThread restricts one thread to these cores; 0 is the calling thread.
func pinThread(id int, cores []int) error {
	var set unix.CPUSet
	for _, core := range cores {
		set.Set(core)
	}
	return unix.SchedSetaffinity(id, &set)
}

// ownCores returns the cores that bench may use.
func ownCores() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, err
	}
	var cores []int
	for core := range 8 * len(set) * 8 {
		if set.IsSet(core) {
			cores = append(cores, core)
		}
	}
	return cores, nil
}
