package openapi

import (
	"fmt"
	"regexp"
	"strings"

	validate "buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// limits is what the rules of a value say.
type limits struct {
	needed bool     // they refuse the zero value
	notes  []string // rules without an equivalent in JSON Schema
}

// The rules of protovalidate with an equivalent in JSON Schema, and the keyword; an
// empty one for what is described elsewhere.
var (
	stringRules = map[string]string{
		"min_len": "minLength", "max_len": "maxLength", "len": "length", "pattern": "pattern", "prefix": "prefix", "suffix": "suffix",
		"contains": "contains", "const": "const", "in": "enum", "email": "email", "uuid": "uuid", "hostname": "hostname", "ipv4": "ipv4",
		"ipv6": "ipv6", "uri": "uri", "strict": "", "example": "",
	}
	numberRules = map[string]string{
		"gte": "minimum", "lte": "maximum", "gt": "exclusiveMinimum", "lt": "exclusiveMaximum", "const": "const", "in": "enum", "example": "",
	}
	listRules = map[string]string{"max_items": "maxItems", "min_items": "minItems", "unique": "uniqueItems", "items": ""}
	mapRules  = map[string]string{"max_pairs": "maxProperties", "min_pairs": "minProperties", "keys": "", "values": ""}
	enumRules = map[string]string{"defined_only": "", "example": ""}
	// Rules on numbers can't be held against numbers that are strings in JSON.
	otherRules = map[string]string{"const": "const", "example": ""}
)

func rulesOfKind(kind protoreflect.Kind) map[string]string {
	switch kind {
	case protoreflect.StringKind:
		return stringRules
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind, protoreflect.Uint32Kind, protoreflect.Fixed32Kind,
		protoreflect.FloatKind, protoreflect.DoubleKind:
		return numberRules
	case protoreflect.BoolKind:
		return otherRules
	}
	return map[string]string{"example": ""}
}

// typeRules returns the rules of a field's type; nil for none.
func typeRules(rules *validate.FieldRules) proto.Message {
	if rules == nil {
		return nil
	}
	message := rules.ProtoReflect()
	chosen := message.WhichOneof(message.Descriptor().Oneofs().ByName("type"))
	if chosen == nil {
		return nil
	}
	return message.Get(chosen).Message().Interface()
}

// constrain adds a value's rules to its schema.
func constrain(schema *object, rules proto.Message, names map[string]string) (found limits) {
	if rules == nil || !rules.ProtoReflect().IsValid() {
		return limits{}
	}
	message := rules.ProtoReflect()
	outside := outsideRange(message)
	for i := range message.Descriptor().Fields().Len() {
		rule := message.Descriptor().Fields().Get(i)
		if !message.Has(rule) {
			continue
		}
		value := message.Get(rule)
		name, ok := names[string(rule.Name())]
		bound := strings.HasPrefix(string(rule.Name()), "gt") || strings.HasPrefix(string(rule.Name()), "lt")
		if ok && !(outside && bound) {
			if refuses, err := constrainBy(schema, name, rule, value); err == nil {
				found.needed = found.needed || refuses
				continue
			}
		}
		note := string(rule.Name())
		if rule.Message() == nil && !rule.IsList() && rule.Kind() != protoreflect.BoolKind {
			note += fmt.Sprintf(" %v", value.Interface())
		}
		found.notes = append(found.notes, "`"+note+"`")
	}
	return found
}

// outsideRange reports whether the lower bound of a number is above its upper one: the
// value must then be outside of them.
func outsideRange(message protoreflect.Message) bool {
	var bounds [2]float64
	for i, names := range [2][2]protoreflect.Name{{"gt", "gte"}, {"lt", "lte"}} {
		var set bool
		for _, name := range names {
			rule := message.Descriptor().Fields().ByName(name)
			if rule != nil && rule.Message() == nil && message.Has(rule) {
				bounds[i], set = asNumber(message.Get(rule)), true
			}
		}
		if !set {
			return false
		}
	}
	return bounds[0] > bounds[1]
}

func asNumber(value protoreflect.Value) float64 {
	switch v := value.Interface().(type) {
	case int32:
		return float64(v)
	case int64:
		return float64(v)
	case uint32:
		return float64(v)
	case uint64:
		return float64(v)
	case float32:
		return float64(v)
	case float64:
		return v
	}
	return 0
}

// constrainBy adds one rule to a schema and reports whether it refuses the zero value.
// It fails on a pattern that is none.
func constrainBy(schema *object, name string, rule protoreflect.FieldDescriptor, value protoreflect.Value) (refuses bool, err error) {
	switch name {
	case "": // described elsewhere
		return false, nil
	case "email", "uuid", "hostname", "ipv4", "ipv6", "uri":
		if !value.Bool() {
			return false, nil
		}
		schema.set("format", name)
		return true, nil
	case "enum":
		values, zero := []any{}, false
		for i := range value.List().Len() {
			if one := value.List().Get(i).Interface(); one != "" {
				values = append(values, one)
			} else {
				zero = true // omitted in JSON
			}
		}
		schema.set("enum", values)
		return !zero, nil
	case "length":
		schema.set("minLength", value.Uint())
		schema.set("maxLength", value.Uint())
		return value.Uint() > 0, nil
	case "prefix", "suffix", "contains":
		form := map[string]string{"prefix": "^%s", "suffix": "%s$", "contains": "%s"}[name]
		addPattern(schema, fmt.Sprintf(form, regexp.QuoteMeta(value.String())))
		return value.String() != "", nil
	case "pattern":
		pattern, err := regexp.Compile(value.String())
		if err != nil {
			return false, err
		}
		addPattern(schema, plainPattern(value.String()))
		return !pattern.MatchString(""), nil
	}
	*schema = schema.with(name, value.Interface())
	switch name {
	case "const":
		return !value.Equal(rule.Default()), nil
	case "minimum":
		return asNumber(value) > 0, nil
	case "exclusiveMinimum":
		return asNumber(value) >= 0, nil
	case "maximum":
		return asNumber(value) < 0, nil
	case "exclusiveMaximum":
		return asNumber(value) <= 0, nil
	case "minLength", "minItems", "minProperties":
		return value.Uint() > 0, nil
	}
	return false, nil
}

// addPattern adds a pattern to a schema that may have one.
func addPattern(schema *object, pattern string) {
	if schema.get("pattern") == nil {
		schema.set("pattern", pattern)
		return
	}
	all, _ := schema.get("allOf").([]object)
	*schema = schema.with("allOf", append(all, object{{"pattern", pattern}}))
}

// plainPattern translates an RE2 pattern to one that every regular-expression dialect
// reads: many lack Unicode classes or need a flag for them.
func plainPattern(pattern string) string {
	return strings.ReplaceAll(pattern, `\p{Cc}`, `\x00-\x1f\x7f-\x9f`)
}

// needsField matches the only form of CEL rules on messages that has a schema.
var needsField = regexp.MustCompile(`^this\.([a-z_]+) != ''$`)

// celNotes returns what CEL rules say, or else their expression.
func celNotes(rules []*validate.Rule, expressions []string) []string {
	var notes []string
	for _, rule := range rules {
		if rule.GetMessage() != "" {
			notes = append(notes, strings.TrimSuffix(strings.Join(strings.Fields(rule.GetMessage()), " "), "."))
			continue
		}
		expressions = append(expressions, rule.GetExpression())
	}
	for _, expression := range expressions {
		notes = append(notes, "`"+strings.Join(strings.Fields(expression), " ")+"`")
	}
	return notes
}

// withNotes adds rules to a text.
func withNotes(text string, notes []string) string {
	if len(notes) == 0 {
		return text
	}
	return strings.TrimSpace(text + "\n\nFurther rules: " + strings.Join(notes, "; ") + ".")
}
