package dial

import (
	"context"
	"errors"
	"io"

	"connectrpc.com/connect/v2"

	"gatehouse/internal/calltrace"
)

// recordCall adds each unary call to the trace of the call in whose context it is made.
func recordCall(next connect.ClientFunc) connect.ClientFunc {
	return func(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
		at := calltrace.At(ctx)
		if at == nil || spec.StreamType != connect.StreamTypeUnary {
			return next(ctx, spec)
		}
		ctx, step := at.Begin(ctx, calltrace.Call, spec.Procedure)
		stream, err := next(ctx, spec)
		if err != nil {
			step.End(err)
			return nil, err
		}
		return &recordedCall{ClientStream: stream, step: step}, nil
	}
}

// recordedCall ends its step with the answer.
type recordedCall struct {
	connect.ClientStream
	step *calltrace.Place
	over bool
}

func (c *recordedCall) end(err error) {
	if !c.over {
		c.over = true
		c.step.End(err)
	}
}

func (c *recordedCall) Send(message any) error {
	err := c.ClientStream.Send(message)
	if err != nil && !errors.Is(err, io.EOF) { // at the end of the stream, Receive returns the error
		c.end(err)
	}
	return err
}

func (c *recordedCall) Receive(message any) error {
	err := c.ClientStream.Receive(message)
	c.end(err)
	return err
}

func (c *recordedCall) Close() error {
	err := c.ClientStream.Close()
	c.end(err)
	return err
}
