package openapi

import (
	"google.golang.org/protobuf/reflect/protoreflect"
)

// wellKnown returns the schema of a message that ProtoJSON writes in a form of its own.
func wellKnown(message protoreflect.MessageDescriptor) (object, bool) {
	if isWrapper(message) {
		return scalar(message.Fields().ByName("value").Kind()), true
	}
	switch message.FullName() {
	case "google.protobuf.Timestamp":
		return object{{"type", "string"}, {"format", "date-time"}}, true
	case "google.protobuf.Duration":
		return object{{"type", "string"}, {"pattern", `^-?[0-9]+(\.[0-9]{1,9})?s$`}}, true
	case "google.protobuf.FieldMask":
		return object{{"type", "string"}}, true
	case "google.protobuf.Empty":
		return object{{"type", "object"}}, true
	case "google.protobuf.Struct":
		return object{{"type", "object"}, {"additionalProperties", true}}, true
	case "google.protobuf.Any":
		return object{{"type", "object"}, {"properties", object{{"@type", object{{"type", "string"}}}}}, {"additionalProperties", true}}, true
	case "google.protobuf.ListValue":
		return object{{"type", "array"}, {"items", object{}}}, true
	case "google.protobuf.Value":
		return object{}, true
	}
	return nil, false
}

func isWellKnown(message protoreflect.MessageDescriptor) bool {
	_, ok := wellKnown(message)
	return ok
}

// isWrapper reports whether a message holds one scalar, and is written as that scalar.
func isWrapper(message protoreflect.MessageDescriptor) bool {
	switch message.FullName() {
	case "google.protobuf.BoolValue", "google.protobuf.BytesValue", "google.protobuf.DoubleValue", "google.protobuf.FloatValue",
		"google.protobuf.Int32Value", "google.protobuf.Int64Value", "google.protobuf.StringValue", "google.protobuf.UInt32Value",
		"google.protobuf.UInt64Value":
		return true
	}
	return false
}

// isText reports whether a message is a scalar in JSON, and can be given in a URL.
func isText(field protoreflect.FieldDescriptor) bool {
	if field.Message() == nil || field.IsList() || field.IsMap() {
		return false
	}
	switch field.Message().FullName() {
	case "google.protobuf.Timestamp", "google.protobuf.FieldMask", "google.protobuf.Duration":
		return true
	}
	return isWrapper(field.Message())
}

// nullValue is the enum that JSON has as null.
const nullValue = "google.protobuf.NullValue"

func isNull(field protoreflect.FieldDescriptor) bool {
	return field.Enum() != nil && field.Enum().FullName() == nullValue
}
