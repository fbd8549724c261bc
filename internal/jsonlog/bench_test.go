package jsonlog_test

import (
	"context"
	"io"
	"log/slog"
	"testing"
	"time"

	"gatehouse/internal/jsonlog"
)

// BenchmarkLine is the line of a call, by this package and by slog.
func BenchmarkLine(b *testing.B) {
	for _, one := range []struct {
		name    string
		handler slog.Handler
	}{{"jsonlog", jsonlog.New(io.Discard, slog.LevelInfo)}, {"slog", slog.NewJSONHandler(io.Discard, nil)}} {
		b.Run(one.name, func(b *testing.B) {
			b.ReportAllocs()
			handler, ctx := one.handler.WithAttrs([]slog.Attr{slog.String("service", "bff")}), context.Background()
			for b.Loop() {
				record := slog.NewRecord(time.Now(), slog.LevelInfo, "call", 0)
				record.AddAttrs(
					slog.String("method", "/bff.v1.AccountService/GetMe"), slog.String("code", "ok"), slog.Float64("duration_ms", 1.234),
					slog.String("request_id", "0af76519-16cd-43dd-8448-eb211c80319c"), slog.String("principal", "user:0af76519-16cd-43dd-8448-eb211c80319c"),
					slog.String("protocol", "connect"), slog.Int("status", 200), slog.String("client_ip", "192.0.2.1"),
				)
				_ = handler.Handle(ctx, record)
			}
		})
	}
}
