//go:build !linux

package main

import "syscall"

func interruptAtOurDeath(*syscall.SysProcAttr) {}
