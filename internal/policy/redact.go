package policy

import (
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Redact returns a copy of a message without the fields that its schema keeps out of
// logs, traces, caches and idempotency records, and without fields that the schema
// does not know: nobody has declared them safe.
func Redact[M proto.Message](message M) M {
	clone := proto.CloneOf(message)
	if clone.ProtoReflect().IsValid() {
		redact(clone.ProtoReflect())
	}
	return clone
}

func redact(message protoreflect.Message) {
	message.SetUnknown(nil)
	secret := secretFields(message.Descriptor())
	message.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case secret[field.Number()]:
			message.Clear(field)
		case field.IsMap() && field.MapValue().Message() != nil, !field.IsMap() && field.Message() != nil:
			eachMessage(value, field, redact)
		}
		return true
	})
}

// HoldsSecrets reports whether a message may contain a redacted field.
func HoldsSecrets(message protoreflect.MessageDescriptor) bool { return firstRedacted(message) != nil }

var secretsByMessage sync.Map // of protoreflect.MessageDescriptor to map[protoreflect.FieldNumber]bool

func secretFields(message protoreflect.MessageDescriptor) map[protoreflect.FieldNumber]bool {
	if known, ok := secretsByMessage.Load(message); ok {
		return known.(map[protoreflect.FieldNumber]bool)
	}
	secret := map[protoreflect.FieldNumber]bool{}
	fields := message.Fields()
	for i := range fields.Len() {
		if fieldPolicy(fields.Get(i)).GetRedact() {
			secret[fields.Get(i).Number()] = true
		}
	}
	secretsByMessage.Store(message, secret)
	return secret
}
