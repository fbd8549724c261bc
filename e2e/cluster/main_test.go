//go:build cluster

package cluster

import (
	"flag"
	"testing"

	"gatehouse/e2e/harness"
)

var only = flag.String("faults", "", "break only the parts whose names match the regular expression, every part if empty")

func TestMain(m *testing.M) { harness.Main(m) }
