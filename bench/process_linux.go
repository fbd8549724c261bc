package main

import "syscall"

// interruptAtOurDeath covers what stop doesn't: a panic, a kill.
func interruptAtOurDeath(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGINT }
