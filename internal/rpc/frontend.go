package rpc

import (
	"context"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"

	"gatehouse/internal/policy"
)

// Frontend describes a surface, such as REST, that converts its requests to calls of the
// Connect protocol, and returns the result of one call to it.
type Frontend struct {
	// Protocol is the name of the surface in the log.
	Protocol string
	// Status returns the HTTP status of the response, or 0 for the status of the Connect
	// protocol. The failure is nil for a success.
	Status func(failure *connect.Error) int
	// Failure is the error of the call, set when the call fails.
	Failure *connect.Error
}

type frontendKey struct{}

// WithFrontend returns a context for a call that a frontend makes.
func WithFrontend(ctx context.Context, frontend *Frontend) context.Context {
	return context.WithValue(ctx, frontendKey{}, frontend)
}

// frontendFrom returns the frontend that made the call; nil for none.
func frontendFrom(ctx context.Context) *Frontend {
	frontend, _ := ctx.Value(frontendKey{}).(*Frontend)
	return frontend
}

// setLocation sets the Location header of a frontend's call to the path of the resource
// that the method created.
func setLocation(method *policy.Method, next connect.ServerFunc) connect.ServerFunc {
	return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
		if frontendFrom(ctx) != nil {
			stream = locationStream{stream, ctx, method}
		}
		return next(ctx, spec, stream)
	}
}

type locationStream struct {
	connect.ServerStream
	ctx    context.Context //nolint:containedctx // a stream belongs to one call
	method *policy.Method
}

func (s locationStream) Send(sent any) error {
	message, ok := sent.(proto.Message)
	info, called := connect.CallInfoForServerContext(s.ctx)
	if ok && called {
		if path := s.method.Created.Path(message); path != "" {
			info.ResponseHeader().Set("Location", path)
		}
	}
	return s.ServerStream.Send(sent)
}
