package passthrough

import (
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/runtime/protoiface"
	"google.golang.org/protobuf/types/dynamicpb"
)

// answer is a message that keeps the bytes that it was decoded from, and encodes to them.
// Only their outermost form is checked. What looks into it makes it decode itself.
type answer struct {
	schema  protoreflect.MessageDescriptor
	bytes   []byte
	decoded protoreflect.Message // nil until something looks into it
}

var methods = protoiface.Methods{
	Flags: protoiface.SupportMarshalDeterministic | protoiface.SupportUnmarshalDiscardUnknown,
	Size: func(in protoiface.SizeInput) protoiface.SizeOutput {
		return protoiface.SizeOutput{Size: len(in.Message.(*answer).bytes)}
	},
	Marshal: func(in protoiface.MarshalInput) (protoiface.MarshalOutput, error) {
		return protoiface.MarshalOutput{Buf: append(in.Buf, in.Message.(*answer).bytes...)}, nil
	},
	Unmarshal: func(in protoiface.UnmarshalInput) (protoiface.UnmarshalOutput, error) {
		for rest := in.Buf; len(rest) > 0; {
			_, _, n := protowire.ConsumeField(rest)
			if n < 0 {
				return protoiface.UnmarshalOutput{}, protowire.ParseError(n)
			}
			rest = rest[n:]
		}
		a := in.Message.(*answer)
		a.bytes, a.decoded = append(a.bytes, in.Buf...), nil // the buffer is used again
		return protoiface.UnmarshalOutput{Flags: protoiface.UnmarshalInitialized}, nil
	},
	Merge: func(in protoiface.MergeInput) protoiface.MergeOutput {
		from, ok := in.Source.(*answer)
		if !ok {
			return protoiface.MergeOutput{}
		}
		to := in.Destination.(*answer)
		// To concatenate encoded messages is to merge them.
		to.bytes, to.decoded = slices.Concat(to.bytes, from.bytes), nil
		return protoiface.MergeOutput{Flags: protoiface.MergeComplete}
	},
	CheckInitialized: func(protoiface.CheckInitializedInput) (protoiface.CheckInitializedOutput, error) {
		return protoiface.CheckInitializedOutput{}, nil
	},
}

// look decodes the bytes. What cannot be decoded is left out.
func (a *answer) look() protoreflect.Message {
	if a.decoded == nil {
		decoded := dynamicpb.NewMessage(a.schema)
		_ = proto.UnmarshalOptions{AllowPartial: true}.Unmarshal(a.bytes, decoded)
		a.decoded = decoded
	}
	return a.decoded
}

// change changes the message, and encodes it again.
func (a *answer) change(by func(protoreflect.Message)) {
	by(a.look())
	encoded, err := proto.MarshalOptions{AllowPartial: true}.Marshal(a.decoded.Interface())
	if err == nil {
		a.bytes = encoded
	}
}

// Reset empties it.
func (a *answer) Reset() { a.bytes, a.decoded = nil, nil }

// ProtoReflect implements [proto.Message].
func (a *answer) ProtoReflect() protoreflect.Message { return a }

// ProtoMethods implements [protoreflect.Message], as do those that follow.
func (a *answer) ProtoMethods() *protoiface.Methods          { return &methods }
func (a *answer) Descriptor() protoreflect.MessageDescriptor { return a.schema }
func (a *answer) Type() protoreflect.MessageType             { return answerType{a.schema} }
func (a *answer) New() protoreflect.Message                  { return &answer{schema: a.schema} }
func (a *answer) Interface() protoreflect.ProtoMessage       { return a }
func (a *answer) IsValid() bool                              { return a != nil }
func (a *answer) GetUnknown() protoreflect.RawFields         { return a.look().GetUnknown() }
func (a *answer) Has(f protoreflect.FieldDescriptor) bool    { return a.look().Has(f) }
func (a *answer) Clear(f protoreflect.FieldDescriptor) {
	a.change(func(m protoreflect.Message) { m.Clear(f) })
}
func (a *answer) SetUnknown(raw protoreflect.RawFields) {
	a.change(func(m protoreflect.Message) { m.SetUnknown(raw) })
}

// Range implements [protoreflect.Message].
func (a *answer) Range(visit func(protoreflect.FieldDescriptor, protoreflect.Value) bool) {
	a.look().Range(visit)
}

// Get implements [protoreflect.Message].
func (a *answer) Get(f protoreflect.FieldDescriptor) protoreflect.Value { return a.look().Get(f) }

// Set implements [protoreflect.Message].
func (a *answer) Set(f protoreflect.FieldDescriptor, v protoreflect.Value) {
	a.change(func(m protoreflect.Message) { m.Set(f, v) })
}

// Mutable implements [protoreflect.Message]. It panics: a change through what it returns
// would not reach the bytes, and nothing changes an answer.
func (a *answer) Mutable(protoreflect.FieldDescriptor) protoreflect.Value {
	panic("passthrough: an answer that is passed on is not changed")
}

// NewField implements [protoreflect.Message].
func (a *answer) NewField(f protoreflect.FieldDescriptor) protoreflect.Value {
	return a.look().NewField(f)
}

// WhichOneof implements [protoreflect.Message].
func (a *answer) WhichOneof(o protoreflect.OneofDescriptor) protoreflect.FieldDescriptor {
	return a.look().WhichOneof(o)
}

// answerType makes answers of one schema.
type answerType struct {
	schema protoreflect.MessageDescriptor
}

func (t answerType) New() protoreflect.Message                  { return &answer{schema: t.schema} }
func (t answerType) Zero() protoreflect.Message                 { return &answer{schema: t.schema} }
func (t answerType) Descriptor() protoreflect.MessageDescriptor { return t.schema }
