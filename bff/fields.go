package bff

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// fieldPath finds the string field that a policy names in its method's request.
func fieldPath(procedure, path string) ([]protoreflect.FieldDescriptor, error) {
	method, err := methodOf(procedure)
	if err != nil {
		return nil, err
	}
	var fields []protoreflect.FieldDescriptor
	message := method.Input()
	for step := range strings.SplitSeq(path, ".") {
		var field protoreflect.FieldDescriptor
		if message != nil {
			field = message.Fields().ByName(protoreflect.Name(step))
		}
		if field == nil || field.IsList() || field.IsMap() {
			return nil, fmt.Errorf("%s: its policy names the field %q, which its request doesn't have", procedure, path)
		}
		fields = append(fields, field)
		message = field.Message()
	}
	if fields[len(fields)-1].Kind() != protoreflect.StringKind {
		return nil, fmt.Errorf("%s: its policy names the field %q, which is no string", procedure, path)
	}
	return fields, nil
}

// methodOf finds a method in the schema.
func methodOf(procedure string) (protoreflect.MethodDescriptor, error) {
	name := strings.ReplaceAll(strings.TrimPrefix(procedure, "/"), "/", ".")
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", procedure, err)
	}
	method, ok := found.(protoreflect.MethodDescriptor)
	if !ok {
		return nil, fmt.Errorf("%s is not a method", procedure)
	}
	return method, nil
}
