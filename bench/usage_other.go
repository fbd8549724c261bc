//go:build !linux

package main

import (
	"errors"
	"time"
)

var errLinuxOnly = errors.New("CPU time and memory are read from Linux: run bench there, perhaps in a container")

func cpuTime(int) (time.Duration, error) { return 0, errLinuxOnly }
func childrenOf(int) ([]int, error)      { return nil, errLinuxOnly }
func memoryOf(int) (memory, error)       { return memory{}, errLinuxOnly }
func loadAverage() string                { return "unknown" }
