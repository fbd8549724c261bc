package main

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	validate "buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// schemas are the JSON Schemas (2020-12) of messages, by name.
type schemas struct{ named map[string]object }

// ref returns a reference to a message's schema, and adds the schema if it is new.
func (s *schemas) ref(message protoreflect.MessageDescriptor) (object, error) {
	name := string(message.Name())
	if _, ok := s.named[name]; !ok {
		s.named[name] = nil // ends the recursion of a message that contains itself
		schema, err := s.object(message, nil)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", message.FullName(), err)
		}
		s.named[name] = schema
	}
	return schemaRef(name), nil
}

func schemaRef(name string) object { return object{{"$ref", "#/components/schemas/" + name}} }

// object returns the schema of a message without the fields in the path.
func (s *schemas) object(message protoreflect.MessageDescriptor, elsewhere map[protoreflect.Name]bool) (object, error) {
	if message.ParentFile().Package() != publicPackage {
		return nil, errors.New("it isn't public")
	}
	properties, required := object{}, []string{}
	for i := range message.Fields().Len() {
		field := message.Fields().Get(i)
		if elsewhere[field.Name()] {
			continue
		}
		schema, needed, err := s.field(field)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", field.FullName(), err)
		}
		properties.set(field.JSONName(), schema)
		if needed {
			required = append(required, field.JSONName())
		}
	}
	schema := object{{"type", "object"}, {"description", commentOf(message)}}
	if len(properties) > 0 {
		schema.set("properties", properties)
	}
	if len(required) > 0 {
		schema.set("required", required)
	}
	if not := atMostOne(message); not != nil {
		schema.set("not", not)
	}
	return schema, nil
}

// atMostOne returns the schema that no message with a oneof may match: two of its
// alternatives are present.
func atMostOne(message protoreflect.MessageDescriptor) object {
	var pairs []object
	for i := range message.Oneofs().Len() {
		fields := message.Oneofs().Get(i).Fields()
		for a := range fields.Len() {
			for b := a + 1; b < fields.Len(); b++ {
				pairs = append(pairs, object{{"required", []string{fields.Get(a).JSONName(), fields.Get(b).JSONName()}}})
			}
		}
	}
	switch len(pairs) {
	case 0:
		return nil
	case 1:
		return pairs[0]
	}
	return object{{"anyOf", pairs}}
}

// field returns a field's schema, and whether it is required in requests: an omitted
// field has the zero value, which its rules may refuse.
func (s *schemas) field(field protoreflect.FieldDescriptor) (schema object, needed bool, err error) {
	rules, _ := proto.GetExtension(field.Options(), validate.E_Field).(*validate.FieldRules)
	if field.IsMap() {
		return nil, false, errors.New("maps can't be described yet")
	}
	if field.IsList() {
		items, _, err := s.single(field, rules.GetRepeated().GetItems())
		if err != nil {
			return nil, false, err
		}
		schema = object{{"type", "array"}, {"items", items}}
		needed, err = constrain(&schema, rules.GetRepeated(), map[string]string{"max_items": "maxItems", "min_items": "minItems", "unique": "uniqueItems", "items": ""})
		if err != nil {
			return nil, false, err
		}
	} else if schema, needed, err = s.single(field, rules); err != nil {
		return nil, false, err
	}
	comment := commentOf(field)
	schema.set("description", comment)
	if strings.Contains(comment, "Set by the server.") {
		schema.set("readOnly", true)
	}
	if !field.IsList() && field.Message() == nil && field.Enum() == nil || isText(field) {
		example, err := scalarExample(field)
		if err != nil {
			return nil, false, err
		}
		schema.set("examples", []any{example})
	}
	needed = (needed || rules.GetRequired()) && rules.GetIgnore() != validate.Ignore_IGNORE_IF_ZERO_VALUE
	return schema, needed, nil
}

// isText reports whether a message is a string in JSON.
func isText(field protoreflect.FieldDescriptor) bool {
	return field.Message() != nil && (field.Message().FullName() == "google.protobuf.Timestamp" || field.Message().FullName() == "google.protobuf.FieldMask") && !field.IsList()
}

// single returns the schema of one value of a field.
func (s *schemas) single(field protoreflect.FieldDescriptor, rules *validate.FieldRules) (schema object, needed bool, err error) {
	switch field.Kind() {
	case protoreflect.StringKind:
		schema = object{{"type", "string"}}
		needed, err = constrain(&schema, rules.GetString(), map[string]string{
			"min_len": "minLength", "max_len": "maxLength", "pattern": "pattern", "email": "email", "uuid": "uuid", "in": "enum",
		})
		return schema, needed, err
	case protoreflect.BoolKind:
		return object{{"type", "boolean"}}, false, nil
	case protoreflect.Int32Kind:
		schema = object{{"type", "integer"}, {"format", "int32"}}
		needed, err = constrain(&schema, rules.GetInt32(), map[string]string{"gte": "minimum", "lte": "maximum"})
		return schema, needed, err
	case protoreflect.EnumKind:
		return s.enum(field.Enum()), false, nil
	case protoreflect.MessageKind:
		return s.message(field, rules)
	}
	return nil, false, fmt.Errorf("%s can't be described yet", field.Kind())
}

// enum returns a reference to the schema of an enum, which lists its values without
// the unspecified one, which is omitted in JSON.
func (s *schemas) enum(enum protoreflect.EnumDescriptor) object {
	names, texts := []string{}, []string{commentOf(enum)}
	for i := range enum.Values().Len() {
		if value := enum.Values().Get(i); value.Number() != 0 {
			names = append(names, string(value.Name()))
			texts = append(texts, fmt.Sprintf("`%s`: %s", value.Name(), commentOf(value)))
		}
	}
	s.named[string(enum.Name())] = object{{"type", "string"}, {"description", strings.Join(texts, "\n")}, {"enum", names}}
	return schemaRef(string(enum.Name()))
}

// needsField matches the only form of CEL rules on messages that has a schema.
var needsField = regexp.MustCompile(`^this\.([a-z_]+) != ''$`)

func (s *schemas) message(field protoreflect.FieldDescriptor, rules *validate.FieldRules) (schema object, needed bool, err error) {
	switch field.Message().FullName() {
	case "google.protobuf.Timestamp":
		return object{{"type", "string"}, {"format", "date-time"}}, false, nil
	case "google.protobuf.FieldMask":
		return object{{"type", "string"}}, false, nil
	case "google.protobuf.Struct":
		return object{{"type", "object"}, {"additionalProperties", true}}, false, nil
	}
	schema, err = s.ref(field.Message())
	if err != nil || len(rules.GetCel()) == 0 {
		return schema, false, err
	}
	wanted, properties := []string{}, object{}
	for _, rule := range rules.GetCel() {
		if strings.HasSuffix(rule.GetId(), ".mailable") { // like string.mailable, it has no equivalent in JSON Schema
			continue
		}
		match := needsField.FindStringSubmatch(rule.GetExpression())
		if match == nil {
			return nil, false, fmt.Errorf("the rule %s can't be described", rule.GetId())
		}
		name := field.Message().Fields().ByName(protoreflect.Name(match[1])).JSONName()
		wanted = append(wanted, name)
		properties.set(name, object{{"minLength", 1}})
	}
	return object{{"allOf", []object{schema, {{"required", wanted}, {"properties", properties}}}}}, false, nil
}

// constrain adds a field's rules to its schema and reports whether they refuse the
// zero value. It fails on a rule without an equivalent in JSON Schema.
func constrain(schema *object, rules proto.Message, names map[string]string) (needed bool, err error) {
	message := rules.ProtoReflect()
	for i := range message.Descriptor().Fields().Len() {
		rule := message.Descriptor().Fields().Get(i)
		if !message.Has(rule) {
			continue
		}
		name, ok := names[string(rule.Name())]
		if !ok {
			return false, fmt.Errorf("the rule %s can't be described", rule.Name())
		}
		refuses, err := constrainBy(schema, name, message.Get(rule))
		if err != nil {
			return false, err
		}
		needed = needed || refuses
	}
	return needed, nil
}

// constrainBy adds one rule to a schema and reports whether it refuses the zero value.
func constrainBy(schema *object, name string, value protoreflect.Value) (refuses bool, err error) {
	switch name {
	case "": // described elsewhere
		return false, nil
	case "email", "uuid":
		schema.set("format", name)
		return true, nil
	case "enum":
		values, zero := []string{}, false
		for i := range value.List().Len() {
			if one := value.List().Get(i).String(); one != "" {
				values = append(values, one)
			} else {
				zero = true // omitted in JSON
			}
		}
		schema.set("enum", values)
		return !zero, nil
	case "pattern":
		pattern, err := regexp.Compile(value.String())
		if err != nil {
			return false, err
		}
		schema.set("pattern", plainPattern(value.String()))
		return !pattern.MatchString(""), nil
	}
	schema.set(name, value.Interface())
	switch name {
	case "minimum":
		return value.Int() > 0, nil
	case "minLength", "minItems":
		return value.Uint() > 0, nil
	}
	return false, nil
}

// plainPattern translates an RE2 pattern to one that every regular-expression dialect
// reads: many lack Unicode classes or need a flag for them.
func plainPattern(pattern string) string {
	return strings.ReplaceAll(pattern, `\p{Cc}`, `\x00-\x1f\x7f-\x9f`)
}
