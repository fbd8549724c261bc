//go:build cluster

package cluster

import (
	"testing"

	"gatehouse/e2e/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }
