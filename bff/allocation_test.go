package bff

import (
	"context"
	"fmt"
	"net/http"
	"testing"

	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/telemetry"
)

// A call allocates little: garbage is a tenth of a gateway's CPU time. The bounds leave
// room for a twentieth more than was counted, and a change that needs more raises them on
// purpose. The services run in the same process, without their database; throttling,
// metrics and the log are on.
func TestACallAllocatesLittle(t *testing.T) {
	composed := newHarness(t, options{limited: true, telemetry: newTelemetry(t, telemetry.Config{Metrics: true}), cacheBytes: CacheNothing})
	cached := newHarness(t, options{limited: true, telemetry: newTelemetry(t, telemetry.Config{Metrics: true})}).withCache()
	for _, c := range []struct {
		name   string
		h      *harness
		method string
		target string
		body   string
		status int
		most   float64
	}{
		{"GetMe", composed, http.MethodPost, bffv1.AccountServiceGetMeProcedure, `{}`, http.StatusOK, 254},
		{"GetUser", composed, http.MethodPost, bffv1.UserServiceGetUserProcedure, `{"userId":"` + alice + `"}`, http.StatusOK, 187},
		{"cached", cached, http.MethodGet, meByGet, "", http.StatusOK, 43},
		{"304", cached, http.MethodGet, meByGet, "", http.StatusNotModified, 43},
	} {
		t.Run(c.name, func(t *testing.T) {
			next := c.h.repeatedCall(t, c.method, c.target, c.body, c.status)
			if got := testing.AllocsPerRun(2*allocatingCallers, next); got > c.most {
				t.Errorf("got %.0f allocations for each call, want at most %.0f", got, c.most)
			}
		})
	}
}

// allocatingCallers are more than one, so that nobody reaches the rate of a method.
const allocatingCallers = 100

// repeatedCall returns a function that makes a call with the next caller's token, which
// the gateway has verified.
func (h *harness) repeatedCall(t *testing.T, method, target, text string, status int) func() {
	t.Helper()
	content := &body{text: text}
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	var requests []*http.Request
	i := 0
	call := func() *sink {
		// As of a connection: a context that ends, and a header that may be changed.
		request := requests[i%len(requests)].WithContext(ctx)
		request.Header = request.Header.Clone()
		i++
		if text != "" {
			content.read = false
			request.Body, request.ContentLength = content, int64(len(text))
		}
		answer := &sink{header: http.Header{}, status: http.StatusOK}
		h.gateway.ServeHTTP(answer, request)
		h.log.text.Reset()
		return answer
	}
	for n := range allocatingCallers {
		request := h.callRequest(method, target, fmt.Sprintf("%s%04d", alice[:len(alice)-4], n))
		request.RemoteAddr = fmt.Sprintf("10.0.0.%d:4711", n)
		requests = append(requests, request)
		i = n
		if first := call(); status == http.StatusNotModified {
			request.Header.Set("If-None-Match", first.header.Get("Etag"))
		}
	}
	return func() {
		if answer := call(); answer.status != status {
			t.Fatalf("%s: got %d, want %d", target, answer.status, status)
		}
	}
}
