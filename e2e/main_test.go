// Package e2e tests Gatehouse as its users and operators run it: as processes, or as a
// whole stack.
package e2e

import (
	"testing"

	"gatehouse/e2e/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }
