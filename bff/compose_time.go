package bff

import (
	"context"
	"gatehouse/internal/fault"
	"strconv"
	"time"

	"connectrpc.com/connect/v2"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// tracerOf returns what makes spans below the call's own, or nil if it has none.
func tracerOf(ctx context.Context) trace.Tracer {
	span := trace.SpanFromContext(ctx)
	if !span.SpanContext().IsValid() {
		return nil
	}
	return span.TracerProvider().Tracer("gatehouse/bff")
}

// observed runs a part, takes its time, and makes a span of it.
func observed[T any](c *composition, p *record, run func(context.Context) (T, error)) (value T, err error) {
	ctx := c.ctx
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
	began := time.Now()
	value, err = run(ctx)
	p.began, p.took = true, time.Since(began)
	return value, err
}

// sayTimes tells the caller how long each part took (W3C Server Timing). The
// names are those of this package's code: nothing of an answer shows in them.
func (c *composition) sayTimes() {
	info, ok := connect.CallInfoForServerContext(c.call)
	if !ok {
		return
	}
	line := make([]byte, 0, 64)
	for _, p := range c.parts {
		if !p.began {
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
