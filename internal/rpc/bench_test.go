package rpc_test

import (
	"testing"

	"connectrpc.com/connect/v2"

	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/dial"
	"gatehouse/internal/rpc"
	"gatehouse/internal/rpctest"
)

func BenchmarkUnaryHTTP(b *testing.B)      { benchmarkUnary(b, rpctest.OverHTTP) }
func BenchmarkUnaryInProcess(b *testing.B) { benchmarkUnary(b, rpctest.InProcess) }

func benchmarkUnary(b *testing.B, reach func(testing.TB, dial.Route, *rpc.Server) *connect.Client) {
	b.ReportAllocs()
	client := usersv1.NewProfileServiceClient(reach(b, rpctest.BFFToUsers, rpctest.NewProfiles(b, rpctest.Found)))
	ctx, request := b.Context(), rpctest.GetRequest()
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
	token := rpctest.InternalToken(b, rpctest.BFFToUsers)
	caller := rpc.TokenVerifier(b, rpctest.Keys, "users", "bff", "auth")
	for b.Loop() {
		if _, err := caller(token); err != nil {
			b.Fatal(err)
		}
	}
}
