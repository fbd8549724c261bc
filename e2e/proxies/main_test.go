// Package proxies runs the configuration files of deploy/proxies in front of Gatehouse.
package proxies

import (
	"testing"

	"gatehouse/e2e/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }
