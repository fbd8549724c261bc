//go:build !linux

package main

func pin(int, []int) error       { return nil }
func pinThread(int, []int) error { return nil }
func ownCores() ([]int, error)   { return []int{0}, nil }
