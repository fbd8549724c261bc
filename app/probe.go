package app

import (
	"context"
	"fmt"
	"slices"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	policyv1 "gatehouse/gen/policy/v1"
)

// probeAs returns the service's probe for one caller.
func (d Definition) probeAs(caller string) func(context.Context, *connect.Client) (string, error) {
	return func(ctx context.Context, client *connect.Client) (string, error) {
		if d.probe != nil {
			return d.probe(ctx, client, caller)
		}
		return "", d.defaultProbe(ctx, client, caller)
	}
}

// defaultProbe calls a method that only reads and that the caller may call. Its
// request is empty: the caller was admitted if the service answers it, and also if it
// refuses it as invalid.
func (d Definition) defaultProbe(ctx context.Context, client *connect.Client, caller string) error {
	method, err := d.readingMethod(caller)
	if err != nil || method == nil {
		return err
	}
	input, err := protoregistry.GlobalTypes.FindMessageByName(method.Input().FullName())
	if err != nil {
		return fmt.Errorf("find the request of %s: %w", method.FullName(), err)
	}
	output, err := protoregistry.GlobalTypes.FindMessageByName(method.Output().FullName())
	if err != nil {
		return fmt.Errorf("find the response of %s: %w", method.FullName(), err)
	}
	spec := connect.Spec{
		StreamType: connect.StreamTypeUnary, Schema: method, IdempotencyLevel: connect.IdempotencyNoSideEffects,
		Procedure: fmt.Sprintf("/%s/%s", method.Parent().FullName(), method.Name()),
	}
	return client.CallUnary(ctx, spec, input.New().Interface(), output.New().Interface())
}

// readingMethod returns a method without side effects that the caller may call; nil
// if there is none.
func (d Definition) readingMethod(caller string) (protoreflect.MethodDescriptor, error) {
	for _, name := range d.Serves {
		found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
		if err != nil {
			return nil, fmt.Errorf("find the proto service %s: %w", name, err)
		}
		service, ok := found.(protoreflect.ServiceDescriptor)
		if !ok {
			return nil, fmt.Errorf("%s is not a proto service", name)
		}
		for i := range service.Methods().Len() {
			method := service.Methods().Get(i)
			options, _ := method.Options().(*descriptorpb.MethodOptions)
			reads := options.GetIdempotencyLevel() == descriptorpb.MethodOptions_NO_SIDE_EFFECTS
			unary := !method.IsStreamingClient() && !method.IsStreamingServer()
			if reads && unary && slices.Contains(callersOf(method), caller) {
				return method, nil
			}
		}
	}
	return nil, nil
}

// callersOf returns the services that may call a method.
func callersOf(method protoreflect.MethodDescriptor) []string {
	policy, _ := proto.GetExtension(method.Options(), policyv1.E_Method).(*policyv1.Method)
	return policy.GetAccess().GetServices().GetAnyOf()
}
