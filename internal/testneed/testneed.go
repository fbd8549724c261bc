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
	lacks := "this machine lacks " + strings.Join(names, " and ")
	switch value := os.Getenv("GATEHOUSE_TEST_REQUIRE"); value {
	case "all":
		t.Fatal(lacks + ", and GATEHOUSE_TEST_REQUIRE=all permits no skip: install it")
	case "":
		t.Skip(lacks + ": install it to run this test")
	default:
		t.Fatalf("GATEHOUSE_TEST_REQUIRE is %q: set it to all, or unset it", value)
	}
	return ""
}
