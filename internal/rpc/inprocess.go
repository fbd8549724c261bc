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

// InProcess configures calls to a server in the same process.
type InProcess struct {
	// Caller is the name of the calling service. The wiring sets it. Calls in process are
	// not signed, and neither a context nor a header can change the name.
	Caller string
	// DeadlineMargin is subtracted from the deadline of a unary call, so that the caller has
	// time to report the timeout. DefaultTimeout bounds a unary call without a deadline.
	DeadlineMargin, DefaultTimeout time.Duration
}

// InProcessTransport returns a transport whose calls behave like calls over HTTP, so that
// a service behaves the same in one process and in several. It does not make a call whose
// deadline has passed, maps context errors to their codes, hides the caller's context
// values from the callee, and hides the callee's causes and panics from the caller.
//
// Two differences remain. The method runs on the caller's goroutine, so a method that
// ignores its context blocks the caller. Messages are not encoded, so none is refused
// for its size or for invalid UTF-8.
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

// inProcessCaller identifies the caller to the server. The transport passes it in the
// call's TransportInfo, which neither a context value nor a header can change.
type inProcessCaller struct {
	name      string
	requestID string // of a unary call; a stream sends it in its header
}

// inProcessCallerOf returns the caller of a call in process; nil for a call over HTTP.
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
		return nil // the callee ended without reading it; Receive returns its error
	}
	return asOverHTTP(s.ctx, err)
}

func (s *inProcessStream) Receive(message any) error {
	err := s.ClientStream.Receive(message)
	// The callee may write its headers until it ends.
	_, verdict := errors.AsType[*connect.Error](err)
	if s.outer != nil && (verdict || errors.Is(err, io.EOF)) {
		copyHeader(s.outer.ResponseHeader(), s.inner.ResponseHeader())
		copyHeader(s.outer.ResponseTrailer(), s.inner.ResponseTrailer())
	}
	if err == nil {
		err = s.ctx.Err() // discard an answer that arrives after the deadline, as HTTP does
	}
	return asOverHTTP(s.ctx, err)
}

// asOverHTTP returns the callee's error as the caller would receive it over HTTP.
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

// cloneSent clones each message that a method sends on a stream, because the method may
// change it while a caller in the same process still reads it.
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

// deadlineOnly is a context with the parent's deadline and cancellation, but without its
// values.
type deadlineOnly struct{ parent context.Context }

func (v deadlineOnly) Deadline() (time.Time, bool) { return v.parent.Deadline() }
func (v deadlineOnly) Done() <-chan struct{}       { return v.parent.Done() }
func (v deadlineOnly) Err() error                  { return v.parent.Err() }
func (v deadlineOnly) Value(any) any               { return nil }

// ContextError maps a context error to an error with its code, as the HTTP transport does.
func ContextError(err error) error {
	code := connect.CodeCanceled
	if errors.Is(err, context.DeadlineExceeded) {
		code = connect.CodeDeadlineExceeded
	}
	return connect.NewError(code, err.Error()).WithCause(err)
}
