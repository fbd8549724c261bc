// Package contract tests that every surface of the public API gives the answers that its
// documents promise.
package contract

import (
	"testing"

	"gatehouse/e2e/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }
