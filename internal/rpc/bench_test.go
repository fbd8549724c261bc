package rpc_test

import (
	"testing"

	"connectrpc.com/connect/v2"

	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/rpc"
)

func BenchmarkUnaryHTTP(b *testing.B)      { benchmarkUnary(b, overHTTP) }
func BenchmarkUnaryInProcess(b *testing.B) { benchmarkUnary(b, inProcess) }

func benchmarkUnary(b *testing.B, reach func(testing.TB, rpc.Route, *rpc.Server) *connect.Client) {
	b.ReportAllocs()
	client := usersv1.NewProfileServiceClient(reach(b, bffToUsers, newProfiles(b, found)))
	ctx, request := b.Context(), getRequest()
	for b.Loop() {
		if _, err := client.GetProfile(ctx, request); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkInternalToken is what telling callers apart costs a call: the same
// token comes again and again.
func BenchmarkInternalToken(b *testing.B) {
	b.ReportAllocs()
	token := rpc.InternalToken(b, bffToUsers)
	caller := rpc.CallerCheck(b, keys, "users", "bff", "auth")
	for b.Loop() {
		if _, err := caller(token); err != nil {
			b.Fatal(err)
		}
	}
}
