package rpc

import "testing"

// TokenVerifier returns a function that verifies the tokens of the callers.
func TokenVerifier(t testing.TB, keys InternalKeys, callee string, callers ...string) func(token string) (string, error) {
	t.Helper()
	check := newTokenVerifier(callee)
	if err := check.addCallers(keys, callers); err != nil {
		t.Fatal(err)
	}
	return check.verify
}
