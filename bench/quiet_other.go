//go:build !linux

package main

import "time"

func machineTime() (time.Duration, error) { return 0, errLinuxOnly }
