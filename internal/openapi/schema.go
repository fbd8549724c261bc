package openapi

import (
	"errors"
	"fmt"
	"strings"

	validate "buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// schemas are the JSON Schemas (2020-12) of messages and enums, by name.
type schemas struct {
	*names
	lenient bool
	named   map[string]object
}

// ref returns a reference to a message's schema, and adds the schema if it is new.
func (s *schemas) ref(message protoreflect.MessageDescriptor) (object, error) {
	if schema, ok := wellKnown(message); ok {
		return schema, nil
	}
	name := s.of(message)
	if _, ok := s.named[name]; !ok {
		s.named[name] = nil // ends the recursion of a message that contains itself
		schema, err := s.object(message, nil)
		if err != nil {
			delete(s.named, name)
			return nil, fmt.Errorf("%s: %w", message.FullName(), err)
		}
		s.named[name] = schema
	}
	return schemaRef(name), nil
}

func schemaRef(name string) object { return object{{"$ref", "#/components/schemas/" + name}} }

// object returns the schema of a message without the fields in the path.
func (s *schemas) object(message protoreflect.MessageDescriptor, elsewhere map[protoreflect.Name]bool) (object, error) {
	if !s.lenient && message.ParentFile().Package() != s.short {
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
	schema := object{{"type", "object"}}
	if text := s.messageText(message); text != "" {
		schema.set("description", text)
	}
	if len(properties) > 0 {
		schema.set("properties", properties)
	}
	if len(required) > 0 {
		schema.set("required", required)
	}
	if not := atMostOne(message); not != nil {
		schema.set("not", not)
	}
	if needed := atLeastOne(message); needed != nil {
		schema.set("allOf", needed)
	}
	return schema, nil
}

// messageText describes a message, with the rules that JSON Schema can't express.
func (s *schemas) messageText(message protoreflect.MessageDescriptor) string {
	text := commentOf(message)
	rules, _ := proto.GetExtension(message.Options(), validate.E_Message).(*validate.MessageRules)
	if s.lenient {
		text = withNotes(text, celNotes(rules.GetCel(), rules.GetCelExpression()))
	}
	return text
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

// atLeastOne returns a schema for each oneof that must have a value.
func atLeastOne(message protoreflect.MessageDescriptor) []object {
	var needed []object
	for i := range message.Oneofs().Len() {
		oneof := message.Oneofs().Get(i)
		rules, _ := proto.GetExtension(oneof.Options(), validate.E_Oneof).(*validate.OneofRules)
		if !rules.GetRequired() {
			continue
		}
		var choices []object
		for j := range oneof.Fields().Len() {
			choices = append(choices, object{{"required", []string{oneof.Fields().Get(j).JSONName()}}})
		}
		needed = append(needed, object{{"anyOf", choices}})
	}
	return needed
}

func rulesOf(field protoreflect.FieldDescriptor) *validate.FieldRules {
	rules, _ := proto.GetExtension(field.Options(), validate.E_Field).(*validate.FieldRules)
	return rules
}

// field returns a field's schema, and whether it is required in requests: an omitted
// field has the zero value, which its rules may refuse.
func (s *schemas) field(field protoreflect.FieldDescriptor) (schema object, needed bool, err error) {
	rules := rulesOf(field)
	var found limits
	switch {
	case field.IsMap():
		schema, found, err = s.mapOf(field, rules.GetMap())
	case field.IsList():
		schema, found, err = s.listOf(field, rules.GetRepeated())
	default:
		schema, found, err = s.single(field, rules)
	}
	if err != nil {
		return nil, false, err
	}
	if len(found.notes) > 0 && !s.lenient {
		return nil, false, fmt.Errorf("the rule %s can't be described", found.notes[0])
	}
	comment := commentOf(field)
	if text := withNotes(comment, found.notes); text != "" {
		schema = schema.with("description", text)
	}
	if strings.Contains(comment, "Set by the server.") {
		schema.set("readOnly", true)
	}
	if !field.IsList() && !field.IsMap() && field.Enum() == nil && (field.Message() == nil || isText(field)) {
		example, err := s.scalarExample(field)
		if err != nil {
			return nil, false, err
		}
		if example != nil {
			schema.set("examples", []any{example})
		}
	}
	oneof := field.ContainingOneof()
	alternative := oneof != nil && !oneof.IsSynthetic() // another one may be there instead
	needed = found.needed && !(field.HasPresence() && s.lenient) && !alternative
	needed = (needed || rules.GetRequired()) && rules.GetIgnore() != validate.Ignore_IGNORE_IF_ZERO_VALUE
	return schema, needed || field.Cardinality() == protoreflect.Required, nil
}

func (s *schemas) listOf(field protoreflect.FieldDescriptor, rules *validate.RepeatedRules) (object, limits, error) {
	items, each, err := s.single(field, rules.GetItems())
	if err != nil {
		return nil, limits{}, err
	}
	schema := object{{"type", "array"}, {"items", items}}
	whole := constrain(&schema, rules, listRules)
	return schema, limits{needed: whole.needed, notes: append(each.notes, whole.notes...)}, nil
}

func (s *schemas) mapOf(field protoreflect.FieldDescriptor, rules *validate.MapRules) (object, limits, error) {
	value, each, err := s.single(field.MapValue(), rules.GetValues())
	if err != nil {
		return nil, limits{}, err
	}
	schema := object{{"type", "object"}, {"additionalProperties", value}}
	if field.MapKey().Kind() == protoreflect.StringKind && rules.GetKeys() != nil {
		key, found, err := s.single(field.MapKey(), rules.GetKeys())
		if err != nil {
			return nil, limits{}, err
		}
		schema.set("propertyNames", key)
		each.notes = append(each.notes, found.notes...)
	}
	whole := constrain(&schema, rules, mapRules)
	return schema, limits{needed: whole.needed, notes: append(each.notes, whole.notes...)}, nil
}

// single returns the schema of one value of a field.
func (s *schemas) single(field protoreflect.FieldDescriptor, rules *validate.FieldRules) (schema object, found limits, err error) {
	switch kind := field.Kind(); kind {
	case protoreflect.EnumKind:
		schema = s.enum(field.Enum())
		found = constrain(&schema, rules.GetEnum(), enumRules)
	case protoreflect.MessageKind, protoreflect.GroupKind:
		schema, found, err = s.message(field, rules)
	default:
		schema = scalar(kind)
		found = constrain(&schema, typeRules(rules), rulesOfKind(kind))
	}
	if s.lenient && err == nil && field.Message() == nil {
		found.notes = append(found.notes, celNotes(rules.GetCel(), rules.GetCelExpression())...)
	}
	return schema, found, err
}

// scalar returns the schema of a kind in ProtoJSON.
func scalar(kind protoreflect.Kind) object {
	switch kind {
	case protoreflect.StringKind:
		return object{{"type", "string"}}
	case protoreflect.BytesKind:
		return object{{"type", "string"}, {"contentEncoding", "base64"}}
	case protoreflect.BoolKind:
		return object{{"type", "boolean"}}
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return object{{"type", "integer"}, {"format", "int32"}}
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return object{{"type", "integer"}, {"format", "int64"}, {"minimum", 0}}
	case protoreflect.FloatKind:
		return object{{"type", "number"}, {"format", "float"}}
	case protoreflect.DoubleKind:
		return object{{"type", "number"}, {"format", "double"}}
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return object{{"type", "string"}, {"pattern", "^[0-9]+$"}}
	default: // a signed number of 64 bits
		return object{{"type", "string"}, {"pattern", "^-?[0-9]+$"}}
	}
}

// enum returns a reference to the schema of an enum, which lists its values without
// the unspecified one, which is omitted in JSON.
func (s *schemas) enum(enum protoreflect.EnumDescriptor) object {
	if enum.FullName() == nullValue {
		return object{{"type", "null"}}
	}
	values, texts := []string{}, []string{commentOf(enum)}
	for i := range enum.Values().Len() {
		value := enum.Values().Get(i)
		if value.Number() == 0 && strings.HasSuffix(string(value.Name()), "_UNSPECIFIED") && enum.Values().Len() > 1 {
			continue
		}
		values = append(values, string(value.Name()))
		text := fmt.Sprintf("`%s`", value.Name())
		if comment := commentOf(value); comment != "" {
			text += ": " + comment
		}
		texts = append(texts, text)
	}
	name := s.of(enum)
	s.named[name] = object{{"type", "string"}, {"description", strings.TrimSpace(strings.Join(texts, "\n"))}, {"enum", values}}
	return schemaRef(name)
}

// message returns the schema of a field that is a message.
func (s *schemas) message(field protoreflect.FieldDescriptor, rules *validate.FieldRules) (schema object, found limits, err error) {
	if schema, ok := wellKnown(field.Message()); ok {
		if isWrapper(field.Message()) {
			found = constrain(&schema, typeRules(rules), rulesOfKind(field.Message().Fields().ByName("value").Kind()))
		} else {
			found = constrain(&schema, typeRules(rules), map[string]string{"example": ""})
		}
		found.needed = false // an omitted message is not the zero message
		return schema, found, err
	}
	schema, err = s.ref(field.Message())
	if err != nil || len(rules.GetCel())+len(rules.GetCelExpression()) == 0 {
		return schema, found, err
	}
	wanted, properties := []string{}, object{}
	for _, rule := range rules.GetCel() {
		if strings.HasSuffix(rule.GetId(), ".mailable") { // like string.mailable, it has no equivalent in JSON Schema
			continue
		}
		match := needsField.FindStringSubmatch(rule.GetExpression())
		if match == nil || field.Message().Fields().ByName(protoreflect.Name(match[1])) == nil {
			found.notes = append(found.notes, celNotes([]*validate.Rule{rule}, nil)...)
			continue
		}
		name := field.Message().Fields().ByName(protoreflect.Name(match[1])).JSONName()
		wanted = append(wanted, name)
		properties.set(name, object{{"minLength", 1}})
	}
	found.notes = append(found.notes, celNotes(nil, rules.GetCelExpression())...)
	if len(wanted) > 0 {
		schema = object{{"allOf", []object{schema, {{"required", wanted}, {"properties", properties}}}}}
	}
	return schema, found, nil
}
