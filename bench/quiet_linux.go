package main

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// tick is the unit of /proc/stat on Linux.
const tick = 10 * time.Millisecond

// machineTime returns the CPU time of all processes since the machine started, and
// what the hypervisor took. Interrupts are left out, because no process's clock counts
// them.
func machineTime() (time.Duration, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	var user, nice, system, idle, iowait, irq, softirq, steal int64
	if _, err := fmt.Sscanf(line, "cpu %d %d %d %d %d %d %d %d", &user, &nice, &system, &idle, &iowait, &irq, &softirq, &steal); err != nil {
		return 0, fmt.Errorf("read /proc/stat: %w", err)
	}
	return time.Duration(user+nice+system+steal) * tick, nil
}
