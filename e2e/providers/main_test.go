// Package providers tests sign-in with OpenID providers that others wrote.
package providers

import (
	"testing"

	"gatehouse/e2e/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }
