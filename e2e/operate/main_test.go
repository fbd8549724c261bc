// Package operate tests Gatehouse as its operators run it: commands, settings, doctor, the
// operators' listener, traces and compose.yaml.
package operate

import (
	"testing"

	"gatehouse/e2e/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }
