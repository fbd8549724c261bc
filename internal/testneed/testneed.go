// Package testneed finds programs that a test needs and that a machine with Go
// alone may lack. Such a test is skipped, with the reason. With
// GATEHOUSE_TEST_REQUIRE=all, which CI sets, it fails instead.
package testneed

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Program returns the path of the first of the programs that is on the machine.
func Program(t testing.TB, names ...string) string {
	t.Helper()
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	Lacks(t, "this machine lacks "+strings.Join(names, " and "), "install it")
	return ""
}

// Lacks ends a test that cannot run here, such as in a clone without its history. It says
// what is missing and what to do about it.
func Lacks(t testing.TB, what, fix string) {
	t.Helper()
	switch value := os.Getenv("GATEHOUSE_TEST_REQUIRE"); value {
	case "all":
		t.Fatalf("%s, and GATEHOUSE_TEST_REQUIRE=all permits no skip: %s", what, fix)
	case "":
		t.Skipf("%s: %s to run this test", what, fix)
	default:
		t.Fatalf("GATEHOUSE_TEST_REQUIRE is %q: set it to all, or unset it", value)
	}
}
