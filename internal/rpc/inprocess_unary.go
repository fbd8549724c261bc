package rpc

import (
	"cmp"
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectinprocess"
)

// inProcessUnary is a unary call within a process. The method runs in Receive, on the
// caller's goroutine.
type inProcessUnary struct {
	transport *inProcess
	spec      connect.Spec
	ctx       context.Context //nolint:containedctx // a stream belongs to one call
	outer     *connect.CallInfo
	deadline  time.Time

	info     connect.CallInfo // the callee's
	caller   inProcessCaller
	request  any // nil once the method has received it
	response any
	sent     bool
	over     bool
}

func (t *inProcess) newUnaryStream(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
	if err := ctx.Err(); err != nil {
		return nil, ContextError(err)
	}
	now := time.Now()
	deadline, ok := ctx.Deadline()
	if ok {
		deadline = deadline.Add(-t.call.DeadlineMargin)
	} else {
		deadline = now.Add(t.call.DefaultTimeout)
	}
	if !now.Before(deadline) {
		return nil, ContextError(context.DeadlineExceeded)
	}
	outer, _ := connect.CallInfoForClientContext(ctx)
	if outer != nil {
		outer.Spec = spec
	}
	return &inProcessUnary{
		transport: t, spec: spec, ctx: ctx, outer: outer, deadline: deadline,
		info:   connect.CallInfo{Spec: spec},
		caller: inProcessCaller{name: t.call.Caller, requestID: CallFrom(ctx).RequestID},
	}, nil
}

func (s *inProcessUnary) SendHeaders() error { return nil }

func (s *inProcessUnary) Send(message any) error {
	if s.sent {
		return io.EOF
	}
	s.sent, s.request = true, message
	return nil
}

func (s *inProcessUnary) CloseSend() error {
	s.sent = true
	return nil
}

func (s *inProcessUnary) Close() error {
	s.sent, s.over = true, true
	return nil
}

func (s *inProcessUnary) Receive(into any) error {
	if s.over {
		return io.EOF
	}
	s.over = true
	// The callee's context is cancelled with the caller's, has an earlier deadline, and
	// has none of the caller's values. Its type is from package context: with any other
	// type, each context that the method derives from it would cost a goroutine.
	ctx, cancel := context.WithDeadline(context.Background(), s.deadline)
	defer cancel()
	if s.ctx.Done() != nil {
		defer context.AfterFunc(s.ctx, cancel)()
	}
	err := s.call(ctx)
	if over := cmp.Or(s.ctx.Err(), ctx.Err()); over != nil {
		return ContextError(over) // discard an answer that arrives after the deadline, as HTTP does
	}
	if err != nil {
		return asOverHTTP(ctx, err)
	}
	if s.response == nil {
		return connect.NewError(connect.CodeUnimplemented, "the method sent no message").WithRemote()
	}
	return connectinprocess.ProtoCopy(into, s.response)
}

// call runs the method.
func (s *inProcessUnary) call(ctx context.Context) (err error) {
	defer func() {
		if value := recover(); value != nil { // a panic in the server: the chain recovers those of methods
			err = errors.New("the server panicked")
		}
	}()
	s.info.TransportInfo = &s.caller
	if s.outer != nil {
		for key, values := range s.outer.RequestHeader().All() {
			s.info.RequestHeader().SetValues(key, slices.Clip(values))
		}
		// After the call, the headers belong to the caller.
		defer func() {
			*s.outer.ResponseHeader(), *s.outer.ResponseTrailer() = *s.info.ResponseHeader(), *s.info.ResponseTrailer()
		}()
	}
	return s.transport.server.Call(ctx, s.spec.Procedure, &s.info, inProcessHandler{s})
}

// inProcessHandler is the callee's side of a unary call.
type inProcessHandler struct{ *inProcessUnary }

func (h inProcessHandler) SendHeaders() error { return nil }

func (h inProcessHandler) Receive(into any) error {
	if h.request == nil {
		return io.EOF
	}
	err := connectinprocess.ProtoCopy(into, h.request)
	h.request = nil
	return err
}

func (h inProcessHandler) Send(message any) error {
	h.response = message
	return nil
}
