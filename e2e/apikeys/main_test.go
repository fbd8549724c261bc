// Package apikeys tests API keys over several gateways.
package apikeys

import (
	"testing"

	"gatehouse/e2e/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }
