// Package faults tests what Gatehouse guarantees while processes crash, freeze and restart, and
// while Postgres does.
package faults

import (
	"testing"

	"gatehouse/e2e/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }
