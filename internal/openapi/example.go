package openapi

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// fieldExample returns an example of one value of a field: the one that its proto gives,
// or one derived from its type and rules. It is nil if none is known, or wanted.
func fieldExample(field protoreflect.FieldDescriptor) any {
	if isLeftOut(field) {
		return nil
	}
	if given := givenExample(field); given != nil {
		return given
	}
	return derivedExample(field)
}

// scalarExample is [fieldExample] of a field that needs one.
func (s *schemas) scalarExample(field protoreflect.FieldDescriptor) (any, error) {
	example := fieldExample(field)
	if example == nil && !s.lenient && !isNull(field) && !isLeftOut(field) {
		return nil, fmt.Errorf("no example is known of %s: add the option (policy.v1.field).example", field.FullName())
	}
	return example, nil
}

// request returns an example request: the policy's, or one of the required fields.
// It is nil if none is known.
func (s *schemas) request(m *method) (any, error) {
	if m.policy.Example != "" {
		return decode([]byte(m.policy.Example))
	}
	example, err := s.example(m.Input(), func(field protoreflect.FieldDescriptor) bool {
		_, needed, err := s.field(field)
		return err == nil && needed
	})
	if err != nil || !s.lenient || valid(m.policy, example) {
		return example, err
	}
	if example, err = s.responseExample(m.Input(), false); err == nil && !valid(m.policy, example) {
		return nil, nil
	}
	return example, err
}

// requestBody returns the part of an example request that is in the body by a
// google.api.http rule, without the fields in the path.
func requestBody(example any, rule string, inPath []string) any {
	whole, ok := example.(object)
	if !ok {
		return nil
	}
	for _, path := range inPath {
		whole = whole.withoutPath(path)
	}
	if rule == "*" {
		return whole
	}
	for _, m := range whole {
		if m.name == rule {
			return m.value
		}
	}
	return nil
}

// responseExample returns an example response with the first alternative of each
// oneof, or the last if asked for.
func (s *schemas) responseExample(message protoreflect.MessageDescriptor, last bool) (any, error) {
	return s.example(message, func(field protoreflect.FieldDescriptor) bool {
		if field.Message() != nil && field.Message().FullName() == s.short.Append("PartError") {
			return false
		}
		choice := field.ContainingOneof()
		if choice == nil {
			return true
		}
		chosen := 0
		if last {
			chosen = choice.Fields().Len() - 1
		}
		return choice.Fields().Get(chosen) == field
	})
}

// An example of a message holds at most maxDepth levels and maxValues values.
const (
	maxDepth  = 6
	maxValues = 400
)

// sample makes an example of a message.
type sample struct {
	*schemas
	shown  func(protoreflect.FieldDescriptor) bool
	within []protoreflect.FullName // the messages around
	left   int                     // how many values it may still hold
}

func (s *schemas) example(message protoreflect.MessageDescriptor, shown func(protoreflect.FieldDescriptor) bool) (any, error) {
	return (&sample{schemas: s, shown: shown, left: maxValues}).message(message)
}

func (s *sample) message(message protoreflect.MessageDescriptor) (any, error) {
	if isWellKnown(message) {
		return wellKnownExample(message), nil
	}
	s.within = append(s.within, message.FullName())
	defer func() { s.within = s.within[:len(s.within)-1] }()
	example := object{}
	for i := range message.Fields().Len() {
		field := message.Fields().Get(i)
		if !s.shown(field) || s.left <= 0 {
			continue
		}
		value, err := s.value(field)
		if err != nil {
			return nil, err
		}
		if value != nil {
			s.left--
			example.set(field.JSONName(), value)
		}
	}
	return example, nil
}

// value returns an example of a field, with one element if it has several; nil for
// none. A message that contains itself has none within.
func (s *sample) value(field protoreflect.FieldDescriptor) (value any, err error) {
	one := field
	if field.IsMap() {
		one = field.MapValue()
	}
	if plain := one.Message() == nil || isWellKnown(one.Message()); plain {
		value, err = s.scalarExample(one)
	} else if len(s.within) < maxDepth && !slices.Contains(s.within, one.Message().FullName()) {
		value, err = s.message(one.Message())
	}
	switch {
	case err != nil || value == nil:
		return nil, err
	case field.IsList():
		return []any{value}, nil
	case field.IsMap():
		return object{{fmt.Sprint(fieldExample(field.MapKey())), value}}, nil
	}
	return value, nil
}
