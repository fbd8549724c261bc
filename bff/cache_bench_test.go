package bff

import (
	"context"
	"io"
	"net/http"
	"sync"
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"google.golang.org/protobuf/proto"

	bffv1 "gatehouse/gen/bff/v1"
)

// BenchmarkCached compares a cache hit over a connection with a bare Connect handler that
// returns the same bytes, and the same for a 304.
func BenchmarkCached(b *testing.B) {
	h := newHarness(b, options{served: true}).withCache()
	token := "Bearer " + h.token(alice, "user")
	me, over := h.getMe(b, h.token(alice, "user"))
	wantNoError(b, "GetMe", over.err)

	bare := connect.NewServer()
	bare.Register(connect.Method{Spec: specOfMe(h), Handler: func(_ context.Context, _ connect.Spec, stream connect.ServerStream) error {
		if err := stream.Receive(&bffv1.GetMeRequest{}); err != nil {
			return err
		}
		return stream.Send(me)
	}})
	unchanged := connect.NewServer()
	unchanged.Register(connect.Method{Spec: specOfMe(h), Handler: func(_ context.Context, _ connect.Spec, stream connect.ServerStream) error {
		if err := stream.Receive(&bffv1.GetMeRequest{}); err != nil {
			return err
		}
		return connecthttp.NewNotModifiedError()
	}})
	mount := func(server *connect.Server) string {
		mux := http.NewServeMux()
		connecthttp.Mount(mux, server, connecthttp.WithCompressMinBytes(compressMinBytes))
		return serveHTTP(b, mux)
	}
	first, _ := h.get(b, meByGet, "Authorization", token)
	for _, one := range []struct {
		name, url, tag string
		status         int
	}{
		{"answer/bare", mount(bare), "", http.StatusOK},
		{"answer/kept", h.url, "", http.StatusOK},
		{"304/bare", mount(unchanged), first.Header.Get("Etag"), http.StatusNotModified},
		{"304/kept", h.url, first.Header.Get("Etag"), http.StatusNotModified},
	} {
		b.Run(one.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				request, err := http.NewRequestWithContext(b.Context(), http.MethodGet, one.url+meByGet, http.NoBody)
				wantNoError(b, "make the request", err)
				request.Header.Set("Authorization", token)
				if one.tag != "" {
					request.Header.Set("If-None-Match", one.tag)
				}
				response, err := h.http.Do(request)
				wantNoError(b, "get", err)
				_, _ = io.Copy(io.Discard, response.Body)
				_ = response.Body.Close()
				if response.StatusCode != one.status {
					b.Fatalf("got %s, want %d", response.Status, one.status)
				}
			}
		})
	}
	b.Run("memory", func(b *testing.B) { b.ReportMetric(float64(proto.Size(me)), "answer-bytes") })
}

func specOfMe(h *harness) connect.Spec {
	for _, plan := range h.gateway.rpc.Methods() {
		if plan.Procedure == bffv1.AccountServiceGetMeProcedure {
			return connect.Spec{Procedure: plan.Procedure, Schema: plan.Descriptor, IdempotencyLevel: connect.IdempotencyNoSideEffects}
		}
	}
	panic("no GetMe")
}

// BenchmarkCoalescing is a thousand callers who ask for the same at once: how
// many calls of a service that makes for each thousand.
func BenchmarkCoalescing(b *testing.B) {
	h := newHarness(b, options{}).withCache()
	token := h.token(alice, "user")
	before := h.called("")
	rounds := 0
	for b.Loop() {
		rounds++
		h.gateway.cache.InvalidateAll()
		var callers sync.WaitGroup
		for range 1000 {
			callers.Go(func() {
				if _, over := h.getMe(b, token); over.err != nil {
					b.Error(over.err)
				}
			})
		}
		callers.Wait()
	}
	b.ReportMetric(float64(h.called("")-before)/float64(rounds), "service-calls/1000")
}
