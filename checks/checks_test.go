// Package checks tests the repository itself: its structure, its size limits, its
// language, its documents, and compose.yaml. No test starts a process of Gatehouse.
package checks

import (
	"fmt"
	"os"
	"testing"
)

// TestMain makes the root of the repository the working directory.
func TestMain(m *testing.M) {
	if err := os.Chdir(".."); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}
