package rpctest

import (
	"context"
	"testing"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/durationpb"

	policyv1 "gatehouse/gen/policy/v1"
	"gatehouse/internal/policy"
	"gatehouse/internal/rpc"
)

// sketch is a method /sketch.v1.SketchService/Call and what it takes and
// returns, for a test to spoil. Its request is
//
//	message Request {
//	  string id = 1;                       repeated string names = 5;
//	  int32 number = 2;                    repeated Inner inners = 6;
//	  string password = 3 (redacted);      map<string, Inner> by_name = 7;
//	  Inner inner = 4;
//	}
//	message Inner { string id = 1; Inner next = 2; string token = 3 (redacted); }
type Schema struct {
	Policy            *policyv1.Method
	Method            *descriptorpb.MethodDescriptorProto
	Request, Response *descriptorpb.DescriptorProto
	Inner             *descriptorpb.DescriptorProto
}

const SchemaProcedure = "/sketch.v1.SketchService/Call"

func NewSchema() *Schema {
	text, number, message := descriptorpb.FieldDescriptorProto_TYPE_STRING, descriptorpb.FieldDescriptorProto_TYPE_INT32, descriptorpb.FieldDescriptorProto_TYPE_MESSAGE
	one, many := descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL, descriptorpb.FieldDescriptorProto_LABEL_REPEATED
	field := func(name string, number int32, kind descriptorpb.FieldDescriptorProto_Type, label descriptorpb.FieldDescriptorProto_Label, typeName string) *descriptorpb.FieldDescriptorProto {
		f := &descriptorpb.FieldDescriptorProto{Name: new(name), JsonName: new(name), Number: new(number), Type: new(kind), Label: new(label)}
		if typeName != "" {
			f.TypeName = new(typeName)
		}
		return f
	}
	secret := func(f *descriptorpb.FieldDescriptorProto) *descriptorpb.FieldDescriptorProto {
		SetField(f, &policyv1.Field{Redact: new(true)})
		return f
	}
	const inner, entry = ".sketch.v1.Inner", ".sketch.v1.Request.ByNameEntry"
	return &Schema{
		Policy: &policyv1.Method{Access: &policyv1.Access{Who: &policyv1.Access_Self{Self: &policyv1.Self{Field: "id"}}}},
		Method: &descriptorpb.MethodDescriptorProto{
			Name: new("Call"), InputType: new(".sketch.v1.Request"), OutputType: new(".sketch.v1.Response"), Options: &descriptorpb.MethodOptions{},
		},
		Request: &descriptorpb.DescriptorProto{
			Name: new("Request"),
			Field: []*descriptorpb.FieldDescriptorProto{
				field("id", 1, text, one, ""), field("number", 2, number, one, ""), secret(field("password", 3, text, one, "")),
				field("inner", 4, message, one, inner), field("names", 5, text, many, ""), field("inners", 6, message, many, inner),
				field("by_name", 7, message, many, entry),
			},
			NestedType: []*descriptorpb.DescriptorProto{{
				Name: new("ByNameEntry"), Options: &descriptorpb.MessageOptions{MapEntry: new(true)},
				Field: []*descriptorpb.FieldDescriptorProto{field("key", 1, text, one, ""), field("value", 2, message, one, inner)},
			}},
		},
		Response: &descriptorpb.DescriptorProto{
			Name: new("Response"), Field: []*descriptorpb.FieldDescriptorProto{field("id", 1, text, one, "")},
		},
		Inner: &descriptorpb.DescriptorProto{
			Name:  new("Inner"),
			Field: []*descriptorpb.FieldDescriptorProto{field("id", 1, text, one, ""), field("next", 2, message, one, inner), secret(field("token", 3, text, one, ""))},
		},
	}
}

func SetField(field *descriptorpb.FieldDescriptorProto, policy *policyv1.Field) {
	field.Options = &descriptorpb.FieldOptions{}
	proto.SetExtension(field.Options, policyv1.E_Field, policy)
}

// normalize sets the normalization of a field of the request.
func (s *Schema) Normalize(number int, how *policyv1.Normalize) {
	SetField(s.Request.Field[number-1], &policyv1.Field{Normalize: how})
}

// ReadOnly gives the method no side effects.
func (s *Schema) ReadOnly() {
	s.Method.Options.IdempotencyLevel = new(descriptorpb.MethodOptions_NO_SIDE_EFFECTS)
}

// StreamAnswers makes the method stream its answers.
func (s *Schema) StreamAnswers() { s.Method.ServerStreaming = new(true) }

// spec describes the method as it now is.
func (s *Schema) Spec(t testing.TB) connect.Spec {
	t.Helper()
	proto.SetExtension(s.Method.Options, policyv1.E_Method, s.Policy)
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Syntax: new("proto3"), Name: new("sketch/v1/sketch.proto"), Package: new("sketch.v1"),
		Dependency:  []string{"policy/v1/policy.proto", "buf/validate/validate.proto"},
		MessageType: []*descriptorpb.DescriptorProto{s.Request, s.Response, s.Inner},
		Service:     []*descriptorpb.ServiceDescriptorProto{{Name: new("SketchService"), Method: []*descriptorpb.MethodDescriptorProto{s.Method}}},
	}, protoregistry.GlobalFiles)
	if err != nil {
		t.Fatal(err)
	}
	var schema protoreflect.MethodDescriptor = file.Services().Get(0).Methods().Get(0)
	spec := connect.Spec{Procedure: SchemaProcedure, Schema: schema}
	if schema.IsStreamingServer() {
		spec.StreamType |= connect.StreamTypeServer
	}
	if schema.IsStreamingClient() {
		spec.StreamType |= connect.StreamTypeClient
	}
	switch s.Method.Options.GetIdempotencyLevel() {
	case descriptorpb.MethodOptions_NO_SIDE_EFFECTS:
		spec.IdempotencyLevel = connect.IdempotencyNoSideEffects
	case descriptorpb.MethodOptions_IDEMPOTENT:
		spec.IdempotencyLevel = connect.IdempotencyIdempotent
	}
	return spec
}

func Seconds(n int64) *durationpb.Duration { return &durationpb.Duration{Seconds: n} }

// method describes a method /test.v1.TestService/Call, from StringValue to
// StringValue, with a policy if there is one.
func Method(t testing.TB, policy *policyv1.Method, streamType connect.StreamType) connect.Spec {
	t.Helper()
	described := &descriptorpb.MethodDescriptorProto{
		Name: new("Call"), InputType: new(".google.protobuf.StringValue"), OutputType: new(".google.protobuf.StringValue"),
		ServerStreaming: new(streamType&connect.StreamTypeServer != 0), ClientStreaming: new(streamType&connect.StreamTypeClient != 0),
	}
	if policy != nil {
		described.Options = &descriptorpb.MethodOptions{}
		proto.SetExtension(described.Options, policyv1.E_Method, policy)
	}
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Syntax: new("proto3"), Name: new("test/v1/test.proto"), Package: new("test.v1"),
		Dependency: []string{"google/protobuf/wrappers.proto", "policy/v1/policy.proto"},
		Service:    []*descriptorpb.ServiceDescriptorProto{{Name: new("TestService"), Method: []*descriptorpb.MethodDescriptorProto{described}}},
	}, protoregistry.GlobalFiles)
	if err != nil {
		t.Fatal(err)
	}
	var schema protoreflect.MethodDescriptor = file.Services().Get(0).Methods().Get(0)
	return connect.Spec{Procedure: "/test.v1.TestService/Call", StreamType: streamType, Schema: schema}
}

func ForServices(names ...string) *policyv1.Method {
	return &policyv1.Method{Access: &policyv1.Access{Who: &policyv1.Access_Services{Services: &policyv1.Services{AnyOf: names}}}}
}

// Succeed is a handler for methods that only have to exist.
func Succeed(context.Context, connect.Spec, connect.ServerStream) error { return nil }

// AllowAll is an authorizer that admits everybody.
func AllowAll(*policy.Method) (rpc.Admission, error) {
	return rpc.Admission{Authenticate: func(next connect.ServerFunc) connect.ServerFunc { return next }}, nil
}
