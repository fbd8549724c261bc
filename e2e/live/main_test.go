// Package live tests the streams that show a person changes of their own data.
package live

import (
	"testing"

	"gatehouse/e2e/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }
