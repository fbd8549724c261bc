package rpc

import (
	"context"
	"errors"
	"io"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectinprocess"
	"google.golang.org/protobuf/proto"
)

// InProcess says who calls a server in the same process, and how long a call may take.
type InProcess struct {
	// Caller is the name of the calling service. The wiring states it: within a process
	// nothing is signed, and neither a context nor a header can change it.
	Caller string
	// DeadlineMargin is taken off the deadline of a unary call, so that the caller has
	// time to report the timeout. DefaultTimeout bounds a unary call without a deadline.
	DeadlineMargin, DefaultTimeout time.Duration
}

// InProcessTransport makes calls within a process behave as calls over HTTP do, so that
// no difference is found only once the services run in separate processes: a call whose
// deadline has passed isn't made, a context's end has its code, no context value of the
// caller's is seen by the callee, and no cause or panic of the callee's by the caller.
//
// Two differences are left. The method runs on the caller's goroutine, so one
// that ignores its context keeps the caller waiting. And messages aren't
// encoded, so none is refused for its size or for invalid UTF-8.
func InProcessTransport(server *Server, call InProcess) connect.Transport {
	streams := connect.NewServer(func(next connect.ServerFunc) connect.ServerFunc {
		return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
			info, _ := connect.CallInfoForServerContext(ctx)
			info.TransportInfo = &inProcessCaller{name: call.Caller}
			return next(ctx, spec, stream)
		}
	})
	streams.Register(server.registered...)
	streams.SetUnknownHandler(server.unknown)
	return &inProcess{server: server.rpc, call: call, streams: connectinprocess.New(streams)}
}

type inProcess struct {
	server  *connect.Server
	call    InProcess
	streams connect.Transport
}

// inProcessCaller is what the in-process transport tells its server in the call's
// TransportInfo, which a context value or a header of the caller's can't reach.
type inProcessCaller struct {
	name      string
	requestID string // of a unary call; a stream has it in its header
}

// inProcessCallerOf returns who makes a call in process; nil for a call over HTTP.
func inProcessCallerOf(info *connect.CallInfo) *inProcessCaller {
	caller, _ := info.TransportInfo.(*inProcessCaller)
	return caller
}

func (t *inProcess) NewClientStream(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
	if spec.StreamType == connect.StreamTypeUnary {
		return t.newUnaryStream(ctx, spec)
	}
	if err := ctx.Err(); err != nil {
		return nil, ContextError(err)
	}
	inner, info := connect.NewClientContext(deadlineOnly{ctx})
	outer, _ := connect.CallInfoForClientContext(ctx)
	if outer != nil {
		copyHeader(info.RequestHeader(), outer.RequestHeader())
	}
	if id := CallFrom(ctx).RequestID; id != "" {
		info.RequestHeader().Set(RequestIDHeader, id)
	}
	stream, err := t.streams.NewClientStream(inner, spec)
	if err != nil {
		return nil, err
	}
	return &inProcessStream{ClientStream: stream, ctx: ctx, streamType: spec.StreamType, inner: info, outer: outer}, nil
}

type inProcessStream struct {
	connect.ClientStream
	ctx          context.Context    //nolint:containedctx // a stream belongs to one call
	streamType   connect.StreamType // not unary
	inner, outer *connect.CallInfo
}

func (s *inProcessStream) Send(message any) error {
	err := s.ClientStream.Send(cloned(message))
	if errors.Is(err, io.EOF) && s.streamType == connect.StreamTypeServer {
		return nil // the callee has ended without reading it; Receive tells how
	}
	return asOverHTTP(s.ctx, err)
}

func (s *inProcessStream) Receive(message any) error {
	err := s.ClientStream.Receive(message)
	// Before the callee's end it may be writing its headers.
	_, verdict := errors.AsType[*connect.Error](err)
	if s.outer != nil && (verdict || errors.Is(err, io.EOF)) {
		copyHeader(s.outer.ResponseHeader(), s.inner.ResponseHeader())
		copyHeader(s.outer.ResponseTrailer(), s.inner.ResponseTrailer())
	}
	if err == nil {
		err = s.ctx.Err() // an answer that comes too late is none, even if it is here
	}
	return asOverHTTP(s.ctx, err)
}

// asOverHTTP returns the callee's error as the caller would get it over HTTP.
func asOverHTTP(ctx context.Context, err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	if over := ctx.Err(); over != nil {
		return ContextError(over)
	}
	failure, ok := errors.AsType[*connect.Error](err)
	switch {
	case ok:
	case errors.Is(err, context.Canceled): // by Close
		return ContextError(err)
	default:
		return connect.NewError(connect.CodeUnknown, "").WithRemote()
	}
	bare := connect.NewError(failure.Code(), failure.Message()).WithRemote()
	for _, detail := range failure.Details() {
		bare = bare.WithDetail(detail)
	}
	return bare
}

// cloneSent clones each message that a method sends on a stream: the method may change
// it while a caller in the same process still reads it.
func cloneSent(next connect.ServerFunc) connect.ServerFunc {
	return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
		info, _ := connect.CallInfoForServerContext(ctx)
		if spec.StreamType != connect.StreamTypeUnary && inProcessCallerOf(info) != nil {
			stream = cloningStream{stream}
		}
		return next(ctx, spec, stream)
	}
}

type cloningStream struct{ connect.ServerStream }

func (s cloningStream) Send(message any) error { return s.ServerStream.Send(cloned(message)) }

func cloned(message any) any {
	if message, ok := message.(proto.Message); ok {
		return proto.Clone(message)
	}
	return message
}

func copyHeader(to, from *connect.Header) {
	for key, values := range from.All() {
		to.SetValues(key, values)
	}
}

// deadlineOnly is a context's deadline and end without its values.
type deadlineOnly struct{ parent context.Context }

func (v deadlineOnly) Deadline() (time.Time, bool) { return v.parent.Deadline() }
func (v deadlineOnly) Done() <-chan struct{}       { return v.parent.Done() }
func (v deadlineOnly) Err() error                  { return v.parent.Err() }
func (v deadlineOnly) Value(any) any               { return nil }

// ContextError gives a context's error its code, as the HTTP transport does.
func ContextError(err error) error {
	code := connect.CodeCanceled
	if errors.Is(err, context.DeadlineExceeded) {
		code = connect.CodeDeadlineExceeded
	}
	return connect.NewError(code, err.Error()).WithCause(err)
}
