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

// inProcessTransport makes calls within a process behave as calls over HTTP
// do, whose differences would else be found only once the services are apart:
// a call whose time has passed isn't made, a context's end has its code, no
// context value of the caller's is seen by the callee, and no cause or panic of
// the callee's by the caller.
//
// Two differences are left. The method runs on the caller's goroutine, so one
// that ignores its context keeps the caller waiting. And messages aren't
// encoded, so none is refused for its size or for invalid UTF-8.
func InProcessTransport(server *Server) connect.Transport {
	return &inProcess{next: connectinprocess.New(server.rpc)}
}

type inProcess struct{ next connect.Transport }

func (t *inProcess) NewClientStream(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
	if err := ctx.Err(); err != nil {
		return nil, ContextError(err)
	}
	inner, info := connect.NewClientContext(deadlineOnly{ctx})
	outer, _ := connect.CallInfoForClientContext(ctx)
	if outer != nil {
		copyHeader(info.RequestHeader(), outer.RequestHeader())
	}
	stream, err := t.next.NewClientStream(inner, spec)
	if err != nil {
		return nil, err
	}
	return &inProcessStream{ClientStream: stream, ctx: ctx, streamType: spec.StreamType, inner: info, outer: outer}, nil
}

type inProcessStream struct {
	connect.ClientStream
	ctx          context.Context //nolint:containedctx // a stream belongs to one call
	streamType   connect.StreamType
	inner, outer *connect.CallInfo
}

func (s *inProcessStream) Send(message any) error {
	if s.streamType == connect.StreamTypeUnary {
		return s.asOverHTTP(s.ClientStream.Send(message))
	}
	err := s.ClientStream.Send(cloned(message))
	if errors.Is(err, io.EOF) && s.streamType == connect.StreamTypeServer {
		return nil // the callee has ended without reading it; Receive tells how
	}
	return s.asOverHTTP(err)
}

func (s *inProcessStream) Receive(message any) error {
	err := s.ClientStream.Receive(message)
	// Before the callee's end it may be writing its headers.
	_, verdict := errors.AsType[*connect.Error](err)
	if s.outer != nil && (s.streamType == connect.StreamTypeUnary || verdict || errors.Is(err, io.EOF)) {
		copyHeader(s.outer.ResponseHeader(), s.inner.ResponseHeader())
		copyHeader(s.outer.ResponseTrailer(), s.inner.ResponseTrailer())
	}
	if err == nil {
		err = s.ctx.Err() // an answer that comes too late is none, even if it is here
	}
	return s.asOverHTTP(err)
}

func (s *inProcessStream) asOverHTTP(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	if over := s.ctx.Err(); over != nil {
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
		if spec.StreamType != connect.StreamTypeUnary && info.TransportInfo == nil {
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
