package bff

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"connectrpc.com/connect/v2"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/compose"
	"gatehouse/internal/fault"
	"gatehouse/internal/rpc"
	"gatehouse/internal/telemetry"
)

// Time limits of calls to services. A write has more time, because it may hash a
// password.
const (
	readLimit  = 2 * time.Second
	writeLimit = 5 * time.Second
)

// callService makes one call to a service within a time limit. It returns public errors.
func callService[T any](ctx context.Context, limit time.Duration, call func(context.Context) (T, error)) (T, error) {
	return compose.Fetch(ctx, fromBackend, limit, call)
}

// partErrors returns the entries for the missing optional parts of a response, logs and
// counts them, and forbids caching of an incomplete response. Call it once, after the
// composition's Wait.
func partErrors(ctx context.Context, c *compose.Composition, logger *slog.Logger) []*bffv1.PartError {
	var entries []*bffv1.PartError
	for _, missing := range c.Missing() {
		code, reason := connect.CodeOf(missing.Err), fault.Reason(missing.Err)
		retryable := code == connect.CodeUnavailable || code == connect.CodeResourceExhausted || code == connect.CodeDeadlineExceeded
		entries = append(entries, &bffv1.PartError{Part: missing.Part, Code: code.String(), Reason: reason, Retryable: retryable})
		if ctx.Err() != nil {
			continue // the caller has disconnected: there is no response
		}
		countMissing(ctx, missing.Part, code)
		attrs := []slog.Attr{
			slog.String("part", missing.Part), slog.String("code", code.String()), slog.String("reason", reason),
			slog.String("request_id", rpc.CallFrom(ctx).RequestID),
		}
		if cause := errors.Unwrap(missing.Err); cause != nil {
			attrs = append(attrs, slog.String("cause", cause.Error()))
		}
		logger.LogAttrs(ctx, slog.LevelWarn, "composition: optional part missing", attrs...)
	}
	if len(entries) > 0 {
		noStore(ctx)
	}
	return entries
}

// noStore forbids caching of a response: one with tokens (RFC 6749, section 5.1), or one
// with a missing part.
func noStore(ctx context.Context) {
	if info, ok := connect.CallInfoForServerContext(ctx); ok {
		info.ResponseHeader().Set("Cache-Control", "no-store")
	}
}

var missingParts, _ = otel.Meter(telemetry.Scope).Int64Counter("gatehouse.bff.parts.missing", metric.WithUnit("{part}"),
	metric.WithDescription("Optional parts that were missing from responses."))

func countMissing(ctx context.Context, part string, code connect.Code) {
	missingParts.Add(ctx, 1, metric.WithAttributes(attribute.String("part", part), attribute.String("code", code.String())))
}
