package rpc

import (
	"context"
	"errors"
	"fmt"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"gatehouse/internal/policy"
)

// decodeOnce checks each message before the method receives it, and decodes it only once.
// If an interceptor reads the message, decodeOnce decodes it first and later passes it to
// the method. Otherwise, and for client streams, it checks each message when the method
// receives it.
func (m *method) decodeOnce(p *policy.Method) (connect.ServerInterceptor, error) {
	ahead := m.readAhead && !p.ClientStreams()
	return func(next connect.ServerFunc) connect.ServerFunc {
		return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
			checked := &checkedStream{stream, ctx, m}
			if !ahead {
				return next(ctx, spec, checked)
			}
			message := p.NewRequest()
			if err := checked.Receive(message); err != nil {
				return err
			}
			CallFrom(ctx).Request = message
			return next(ctx, spec, &decodedStream{ServerStream: stream, message: message})
		}
	}, nil
}

func (m *method) check(ctx context.Context, message proto.Message) error {
	for i := range checks {
		if err := checks[i].run(ctx, m, message); err != nil {
			return err
		}
	}
	return nil
}

// checkedStream checks each message that it receives.
type checkedStream struct {
	connect.ServerStream
	ctx    context.Context //nolint:containedctx // a stream belongs to one call
	method *method
}

func (s *checkedStream) Receive(message any) error {
	if err := s.ServerStream.Receive(message); err != nil {
		return err
	}
	received, ok := message.(proto.Message)
	if !ok {
		return fmt.Errorf("%s: received into %T, which is not a message", s.method.policy.Procedure, message)
	}
	return s.method.check(s.ctx, received)
}

// decodedStream returns a message that was already received, then the rest of the stream.
type decodedStream struct {
	connect.ServerStream
	message proto.Message // nil once it was returned
}

func (s *decodedStream) Receive(into any) error {
	if s.message == nil {
		return s.ServerStream.Receive(into)
	}
	message := s.message
	s.message = nil
	return moveMessage(into, message)
}

// moveMessage sets into to the contents of message, sharing its parts.
func moveMessage(into any, message proto.Message) error {
	to, ok := into.(proto.Message)
	if !ok {
		return errors.New("a method receives into a value that is not a message")
	}
	target, source := to.ProtoReflect(), message.ProtoReflect()
	proto.Reset(to)
	if target.Type() != source.Type() {
		proto.Merge(to, message)
		return nil
	}
	source.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		target.Set(field, value)
		return true
	})
	target.SetUnknown(source.GetUnknown())
	return nil
}
