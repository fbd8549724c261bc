package rpc

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
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

// Patient returns what stands between a client and one backend, for a transport
// of the test's own.
func Patient(service string, logger *slog.Logger) connect.ClientInterceptor {
	return newBackend(service, logger).patient
}

// Unconnected is the error of a connection that was refused, or that nobody
// answered to.
func Unconnected(deaf bool) error {
	failure := &dialError{text: "no connection", deaf: deaf}
	return connect.NewError(connect.CodeUnavailable, failure.Error()).WithCause(failure)
}

// DialWith is Dial with another way to look hosts up.
func DialWith(t testing.TB, route Route, urls string, lookup func(context.Context, string) ([]netip.Addr, error)) *connect.Client {
	t.Helper()
	peers, err := newPeers(urls)
	if err != nil {
		t.Fatal(err)
	}
	peers.lookup = lookup
	client, err := dialPeers(route, peers)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// Turns returns in which order copies are tried, some of which are away.
func Turns(away []bool, turn int) []int {
	now := time.Now()
	copies := make([]*peer, len(away))
	for i := range away {
		copies[i] = &peer{}
		if away[i] {
			copies[i].away.Store(now.Add(time.Second).UnixNano())
		}
	}
	var order []int
	for _, one := range inTurn(copies, uint64(turn), now) {
		order = append(order, slices.Index(copies, one))
	}
	return order
}
