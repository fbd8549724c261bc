package compose

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/emptypb"
)

// answerSchema returns a message of three texts, for which there is no generated code.
func answerSchema(t *testing.T) protoreflect.MessageDescriptor {
	t.Helper()
	var fields []*descriptorpb.FieldDescriptorProto
	for i, name := range []string{"first", "second", "third"} {
		fields = append(fields, &descriptorpb.FieldDescriptorProto{
			Name: proto.String(name), Number: proto.Int32(int32(i + 1)), JsonName: proto.String(name),
			Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(), Type: descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum(),
		})
	}
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String("answer.proto"), Syntax: proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{{Name: proto.String("Answer"), Field: fields}},
	}, &protoregistry.Files{})
	wantNoError(t, "the schema", err)
	return file.Messages().Get(0)
}

func TestADeclaredPartFillsItsFieldOfAMessageWithoutGeneratedCode(t *testing.T) {
	t.Parallel()
	schema := answerSchema(t)
	field := schema.Fields().ByName
	part := func(name protoreflect.Name, fetch func(context.Context) (proto.Message, error)) Declared {
		return Declared{Name: string(name), Limit: testLimit, Field: field(name), Fetch: fetch}
	}
	composed := New(t.Context(), mapError)
	fill := composed.Add([]Declared{
		part("first", func(context.Context) (proto.Message, error) {
			message := dynamicpb.NewMessage(schema)
			message.Set(field("first"), protoreflect.ValueOfString("one"))
			message.Set(field("third"), protoreflect.ValueOfString("not its own"))
			return message, nil
		}),
		part("second", func(context.Context) (proto.Message, error) { return nil, remote(errNotFound) }),
		part("third", func(context.Context) (proto.Message, error) { return &emptypb.Empty{}, nil }),
	})
	wantNoError(t, "wait", composed.Wait())
	answer := dynamicpb.NewMessage(schema)
	fill(answer)
	if got := strings.ReplaceAll(answer.String(), " ", ""); got != `first:"one"` {
		t.Errorf("got %s, want the first part's field only", got)
	}
	if missing := composed.Missing(); len(missing) != 2 || missing[0].Part != "second" || missing[1].Part != "third" {
		t.Errorf("got the missing parts %v, want the one that failed and the one of another type", missing)
	}
	composed = New(t.Context(), mapError)
	composed.Add([]Declared{{Name: "first", Required: true, Limit: testLimit, Field: field("first"), Fetch: func(context.Context) (proto.Message, error) { return nil, remote(errNotFound) }}})
	if err := composed.Wait(); err == nil {
		t.Error("a required part that fails: got no error")
	}
}
