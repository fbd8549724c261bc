package rpc

import "testing"

// InternalToken makes a token by which the route's caller may call.
func InternalToken(t testing.TB, route Route) string {
	t.Helper()
	issuer, err := newIssuer(route.Keys, route.Caller, route.Callee)
	if err != nil {
		t.Fatal(err)
	}
	token, err := issuer.current()
	if err != nil {
		t.Fatal(err)
	}
	return token
}
