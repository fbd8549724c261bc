package rpc

import (
	"testing"

	"google.golang.org/protobuf/proto"
)

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

// CallerCheck returns what tells a callee which of the callers made a token.
func CallerCheck(t testing.TB, keys InternalKeys, callee string, callers ...string) func(token string) (string, error) {
	t.Helper()
	check := newCallerCheck(callee)
	if err := check.know(keys, callers); err != nil {
		t.Fatal(err)
	}
	return check.caller
}

// TextNormalizer is what a field's policy makes of its text.
var TextNormalizer = textNormalizer

// NormalizeMessage brings a message to the forms that its schema says.
func NormalizeMessage(message proto.Message) {
	newNormalizer(message.ProtoReflect().Descriptor()).apply(message.ProtoReflect())
}
