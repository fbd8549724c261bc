package throttle_test

import (
	"testing"

	"gatehouse/auth/throttle"
)

// Rows are found by it, so it must not change between versions.
func TestAnAddressKeepsItsNameInRows(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"203.0.113.7": "203.0.113.7", "::ffff:203.0.113.7": "203.0.113.7", "2001:db8:1:2:ffff::9": "2001:db8:1:2::/64", "fe80::1%eth0": "fe80::/64", "": "", "x": "",
	} {
		if got := throttle.Network(text); got != want {
			t.Errorf("the address %q is kept as %q, want %q", text, got, want)
		}
	}
}
