package compose

import (
	"context"
	"strconv"
	"time"

	"connectrpc.com/connect/v2"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"gatehouse/internal/calltrace"
	"gatehouse/internal/fault"
)

// tracerOf returns the tracer for child spans of the call's span, or nil if the call is not
// traced.
func tracerOf(ctx context.Context) trace.Tracer {
	span := trace.SpanFromContext(ctx)
	if !span.SpanContext().IsValid() {
		return nil
	}
	return span.TracerProvider().Tracer("gatehouse/internal/compose")
}

// observe runs the fetch of a part, measures its duration, and records a span.
func observe[T any](c *Composition, p *state, fetch func(context.Context) (T, error)) (value T, err error) {
	ctx := c.ctx
	if p.grouped {
		ctx = &p.member
	}
	if c.tracer != nil {
		var span trace.Span
		ctx, span = c.tracer.Start(ctx, "part "+p.name)
		defer func() {
			if err != nil {
				span.SetStatus(codes.Error, connect.CodeOf(err).String()+" "+fault.Reason(err))
			}
			span.End()
		}()
	}
	ctx, step := c.recorded.Begin(ctx, calltrace.Part, p.name)
	start := time.Now()
	value, err = fetch(ctx)
	p.started, p.took = true, time.Since(start)
	step.End(err)
	return value, err
}

// addServerTiming adds a response header with the duration of each part (W3C Server Timing).
func (c *Composition) addServerTiming() {
	info, ok := connect.CallInfoForServerContext(c.call)
	if !ok {
		return
	}
	line := make([]byte, 0, 64)
	for _, p := range c.parts {
		if !p.started {
			continue
		}
		if len(line) > 0 {
			line = append(line, ", "...)
		}
		line = append(line, p.name...)
		line = append(line, ";dur="...)
		line = strconv.AppendFloat(line, float64(p.took.Microseconds())/1000, 'f', -1, 64)
	}
	if len(line) > 0 {
		info.ResponseHeader().Add("Server-Timing", string(line))
	}
}
