// Package load tests what Gatehouse guarantees under load and under concurrent calls.
package load

import (
	"testing"

	"gatehouse/e2e/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }
