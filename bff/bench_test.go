package bff

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"

	"gatehouse/bff/access"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/telemetry"
)

func BenchmarkVerifyKnownToken(b *testing.B) {
	h := newHarness(b, options{})
	token := h.token(alice, "user")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := h.gateway.verifier.Verify(token); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerifyNewToken(b *testing.B) {
	h := newHarness(b, options{})
	tokens := make([]string, 1000)
	for i := range tokens {
		tokens[i] = h.signer.token(func(_, claims map[string]any) { claims["jti"] = fmt.Sprint(i) })
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := h.gateway.verifier.Check(tokens[i%len(tokens)]); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRawEd25519Verify is what a new token costs at least.
func BenchmarkRawEd25519Verify(b *testing.B) {
	h := newHarness(b, options{})
	token := h.token(alice, "user")
	at := strings.LastIndexByte(token, '.')
	signature, err := base64.RawURLEncoding.DecodeString(token[at+1:])
	wantNoError(b, "decode", err)
	for b.Loop() {
		if !ed25519.Verify(h.signer.public(), []byte(token[:at]), signature) {
			b.Fatal("the signature is wrong")
		}
	}
}

// BenchmarkComposeGetMe measures three calls in process and their composition, without the
// HTTP of the caller.
func BenchmarkComposeGetMe(b *testing.B) { benchmarkGetMe(b, options{}) }

// BenchmarkComposeGetMeApart is BenchmarkComposeGetMe with the services behind HTTP/2. It
// includes both ends of the three calls.
func BenchmarkComposeGetMeApart(b *testing.B) { benchmarkGetMe(b, options{apart: true}) }

func benchmarkGetMe(b *testing.B, o options) {
	h := newHarness(b, o)
	ctx := context.WithValue(b.Context(), principalKey{}, &access.Principal{UserID: alice, SessionID: session})
	service := h.gateway.account
	b.ReportAllocs()
	for b.Loop() {
		if _, err := service.GetMe(ctx, &bffv1.GetMeRequest{}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkChain is a whole call of the gateway but for its connection: HTTP
// and JSON, every step of the chain, and a service within the process. Against
// BenchmarkComposeGetMe it tells what the steps take.
func BenchmarkChain(b *testing.B) {
	h := newHarness(b, options{})
	token := "Bearer " + h.token(alice, "user")
	for _, method := range []struct{ name, procedure, body string }{
		{"GetMe", bffv1.AccountServiceGetMeProcedure, `{}`},
		{"GetUser", bffv1.UserServiceGetUserProcedure, `{"userId":"` + alice + `"}`},
		{"Refused", bffv1.UserServiceGetUserProcedure, `{"userId":"` + bob + `"}`},
	} {
		b.Run(method.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				request := httptest.NewRequest(http.MethodPost, method.procedure, strings.NewReader(method.body))
				request.Header.Set("Content-Type", "application/json")
				request.Header.Set("Authorization", token)
				h.gateway.ServeHTTP(httptest.NewRecorder(), request)
			}
		})
	}
}

// BenchmarkGetMe is all of a GetMe but the network and the database, with and
// without being measured: the gateway's whole handler, and its three calls.
func BenchmarkGetMe(b *testing.B) {
	collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	b.Cleanup(collector.Close)
	b.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)
	for _, test := range []struct {
		name            string
		metrics, traces bool
	}{{"off", false, false}, {"metrics", true, false}, {"metrics and traces", true, true}} {
		b.Run(test.name, func(b *testing.B) {
			var o options
			if test.metrics || test.traces {
				o.telemetry = newTelemetry(b, telemetry.Config{Metrics: test.metrics, Traces: test.traces})
			}
			h := newHarness(b, o)
			token := h.token(alice, "user")
			ctx, info := connect.NewClientContext(b.Context())
			info.RequestHeader().Set("Authorization", "Bearer "+token)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := h.accounts.GetMe(ctx, &bffv1.GetMeRequest{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func newTelemetry(t testing.TB, config telemetry.Config) *telemetry.Telemetry {
	t.Helper()
	config.Name, config.Logger = "test", discard
	tel, err := telemetry.New(context.Background(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tel.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return tel
}

// BenchmarkShed measures the cost of refusing a call; compare BenchmarkChain. There are more
// callers than delayed refusals, so that the result does not include the delays.
func BenchmarkShed(b *testing.B) {
	h := newHarness(b, options{limited: true})
	h.fill(b, bffv1.AccountServiceExportMeProcedure)
	token := "Bearer " + h.token(alice, "user")
	b.ReportAllocs()
	b.SetParallelism(3 * 4096)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			request := httptest.NewRequest(http.MethodPost, bffv1.AccountServiceExportMeProcedure, strings.NewReader(`{}`))
			request.Header.Set("Content-Type", "application/json")
			request.Header.Set("Authorization", token)
			recorder := httptest.NewRecorder()
			h.gateway.ServeHTTP(recorder, request)
			if recorder.Code != http.StatusServiceUnavailable {
				b.Error(recorder.Code)
			}
		}
	})
}
