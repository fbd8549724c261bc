package main

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// pin keeps all threads of a process, and what they start from then on, to these
// cores.
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
		// One may have ended meanwhile.
		if err := pinThread(id, cores); err != nil && err != unix.ESRCH {
			return fmt.Errorf("keep process %d to cores %v: %w", pid, cores, err)
		}
	}
	return nil
}

// pinThread keeps one thread to these cores; 0 is the caller's own.
func pinThread(id int, cores []int) error {
	var set unix.CPUSet
	for _, core := range cores {
		set.Set(core)
	}
	return unix.SchedSetaffinity(id, &set)
}

// ownCores are those that bench may use.
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
