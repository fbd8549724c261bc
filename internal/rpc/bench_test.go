package rpc_test

import (
	"context"
	"testing"

	"connectrpc.com/connect/v2"

	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/rpc"
)

// On two cores of an EPYC: over HTTP 100 µs, in process 4 µs.
func BenchmarkUnaryHTTP(b *testing.B)      { benchmarkUnary(b, 0, found) }
func BenchmarkUnaryInProcess(b *testing.B) { benchmarkUnary(b, 1, found) }

// BenchmarkUnaryInProcessWithDerivedContext has a method that does what pgx and
// errgroup do: derive a context, which must not cost a goroutine.
func BenchmarkUnaryInProcessWithDerivedContext(b *testing.B) {
	benchmarkUnary(b, 1, func(ctx context.Context, req *usersv1.GetProfileRequest) (*usersv1.GetProfileResponse, error) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		return found(ctx, req)
	})
}

func benchmarkUnary(b *testing.B, topology int, method getProfile) {
	b.ReportAllocs()
	client := usersv1.NewProfileServiceClient(topologies[topology].reach(b, bffToUsers, newProfiles(b, method)))
	ctx, request := b.Context(), getRequest()
	for b.Loop() {
		if _, err := client.GetProfile(ctx, request); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkInternalToken is what telling callers apart costs each call: the
// same token is seen again and again.
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

var _ connect.Code
