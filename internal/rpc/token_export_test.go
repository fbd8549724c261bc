package rpc

import "testing"

// CallerCheck returns what tells a callee which of the callers made a token.
func CallerCheck(t testing.TB, keys InternalKeys, callee string, callers ...string) func(token string) (string, error) {
	t.Helper()
	check := newCallerCheck(callee)
	if err := check.know(keys, callers); err != nil {
		t.Fatal(err)
	}
	return check.caller
}
