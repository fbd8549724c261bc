package bff

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"testing"

	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/telemetry"
)

// sink is a response that keeps nothing but its status and header.
type sink struct {
	header http.Header
	status int
}

func (w *sink) Header() http.Header         { return w.header }
func (w *sink) Write(p []byte) (int, error) { return len(p), nil }
func (w *sink) WriteHeader(status int)      { w.status = status }

// body is a request's body that can be read again.
type body struct {
	text string
	read bool
}

func (b *body) Close() error { return nil }

func (b *body) Read(p []byte) (int, error) {
	if b.read {
		return 0, io.EOF
	}
	b.read = true
	return copy(p, b.text), nil
}

// BenchmarkCall is a call of a gateway with everything on that is on by default, without
// the connection and the database: throttling, metrics, the log in JSON, and services in
// the same process.
func BenchmarkCall(b *testing.B) {
	h := newHarness(b, options{limited: true, telemetry: newTelemetry(b, telemetry.Config{Metrics: true}), cacheBytes: CacheNothing})
	kept := newHarness(b, options{limited: true, telemetry: newTelemetry(b, telemetry.Config{Metrics: true})}).withCache()
	for _, c := range []struct {
		name    string
		harness *harness
		method  string
		target  string
		body    string
		status  int
	}{
		{"GetMe", h, http.MethodPost, bffv1.AccountServiceGetMeProcedure, `{}`, http.StatusOK},
		{"GetUser", h, http.MethodPost, bffv1.UserServiceGetUserProcedure, `{"userId":"` + alice + `"}`, http.StatusOK},
		{"kept", kept, http.MethodGet, meByGet, "", http.StatusOK},
		{"304", kept, http.MethodGet, meByGet, "", http.StatusNotModified},
	} {
		var requests []*http.Request
		for i := range callers {
			request := c.harness.callRequest(c.method, c.target, fmt.Sprintf("%s%04d", alice[:len(alice)-4], i))
			request.RemoteAddr = fmt.Sprintf("10.0.%d.%d:4711", i/250, i%250)
			if c.body == "" {
				first := &sink{header: http.Header{}}
				c.harness.gateway.ServeHTTP(first, request)
				if c.status == http.StatusNotModified {
					request.Header.Set("If-None-Match", first.header.Get("Etag"))
				}
			}
			requests = append(requests, request)
		}
		b.Run(c.name, func(b *testing.B) {
			text := &body{text: c.body}
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				request := requests[i%callers].WithContext(ctx)
				request.Header = request.Header.Clone()
				if c.body != "" {
					text.read = false
					request.Body, request.ContentLength = text, int64(len(c.body))
				}
				answer := &sink{header: http.Header{}, status: http.StatusOK}
				c.harness.gateway.ServeHTTP(answer, request)
				if answer.status != c.status {
					b.Fatalf("got %d, want %d", answer.status, c.status)
				}
				if c.harness.log.text.Len() > 1<<20 {
					c.harness.log.text.Reset()
				}
			}
		})
	}
}

// callers are more than one, so that nobody reaches the rate of a method.
const callers = 2000

func (h *harness) callRequest(method, target, user string) *http.Request {
	request, err := http.NewRequest(method, target, http.NoBody)
	if err != nil {
		panic(err)
	}
	request.Header.Set("Authorization", "Bearer "+h.token(user, "admin"))
	request.Header.Set("User-Agent", "gatehouse-bench")
	if method == http.MethodPost {
		request.Header.Set("Content-Type", "application/json")
	}
	return request
}
