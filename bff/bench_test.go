package bff

import (
	"context"
	"fmt"
	"testing"

	bffv1 "gatehouse/gen/bff/v1"
)

func BenchmarkVerifyKnownToken(b *testing.B) {
	h := open(b, world{})
	token := h.token(alice, "user")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := h.gateway.verifier.verify(token); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerifyNewToken(b *testing.B) {
	h := open(b, world{})
	tokens := make([]string, 1000)
	for i := range tokens {
		tokens[i] = h.signer.token(func(_, claims map[string]any) { claims["jti"] = fmt.Sprint(i) })
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i%len(tokens) == 0 {
			b.StopTimer()
			h.gateway.verifier.seen.InvalidateAll()
			b.StartTimer()
		}
		if _, err := h.gateway.verifier.verify(tokens[i%len(tokens)]); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkComposeGetMe is what GetMe takes beside its caller's HTTP and its
// services' work: three calls within the process, and their composition.
func BenchmarkComposeGetMe(b *testing.B) { benchmarkGetMe(b, world{}) }

// BenchmarkComposeGetMeApart is the same with the services behind HTTP/2, as
// between processes: both ends of the three calls are counted.
func BenchmarkComposeGetMeApart(b *testing.B) { benchmarkGetMe(b, world{apart: true}) }

func benchmarkGetMe(b *testing.B, w world) {
	h := open(b, w)
	ctx := context.WithValue(b.Context(), principalKey{}, &principal{userID: alice, sessionID: session})
	service := accountService{h.gateway}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := service.GetMe(ctx, &bffv1.GetMeRequest{}); err != nil {
			b.Fatal(err)
		}
	}
}
