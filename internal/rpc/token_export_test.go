package rpc

import "testing"

// CallerCheck returns what tells a callee which of the callers made a token.
func TokenVerifier(t testing.TB, keys InternalKeys, callee string, callers ...string) func(token string) (string, error) {
	t.Helper()
	check := newTokenVerifier(callee)
	if err := check.addCallers(keys, callers); err != nil {
		t.Fatal(err)
	}
	return check.verify
}
