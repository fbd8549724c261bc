package openapi

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	validate "buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	policyv1 "gatehouse/gen/policy/v1"
	"gatehouse/internal/policy"
)

// elementRules returns the rules of one value of a field: those of its elements for a
// list, and of its keys or values for a map.
func elementRules(field protoreflect.FieldDescriptor) *validate.FieldRules {
	if entry := field.ContainingMessage(); entry.IsMapEntry() {
		for i := range entry.Parent().(protoreflect.MessageDescriptor).Fields().Len() {
			outer := entry.Parent().(protoreflect.MessageDescriptor).Fields().Get(i)
			if outer.Message() != entry {
				continue
			}
			if field == outer.MapKey() {
				return rulesOf(outer).GetMap().GetKeys()
			}
			return rulesOf(outer).GetMap().GetValues()
		}
	}
	if field.IsList() {
		return rulesOf(field).GetRepeated().GetItems()
	}
	return rulesOf(field)
}

// isLeftOut reports whether the proto says that examples don't have the field.
func isLeftOut(field protoreflect.FieldDescriptor) bool {
	option, _ := proto.GetExtension(field.Options(), policyv1.E_Field).(*policyv1.Field)
	return option != nil && option.Example != nil && option.GetExample() == ""
}

// exampleID is the UUID in examples.
const exampleID = "0195514a-2f40-7cc3-98c4-dc0c0c07398f"

// givenExample returns the example of a field's options in JSON: of (policy.v1.field),
// or the first of (buf.validate.field); nil for none.
func givenExample(field protoreflect.FieldDescriptor) any {
	option, _ := proto.GetExtension(field.Options(), policyv1.E_Field).(*policyv1.Field)
	if option != nil && option.Example != nil {
		var value any
		if field.Kind() != protoreflect.StringKind && json.Unmarshal([]byte(option.GetExample()), &value) == nil {
			return value
		}
		return option.GetExample()
	}
	rules := typeRules(elementRules(field))
	if rules == nil {
		return nil
	}
	example := rules.ProtoReflect().Descriptor().Fields().ByName("example")
	if example == nil || rules.ProtoReflect().Get(example).List().Len() == 0 {
		return nil
	}
	return inJSON(field, example, rules.ProtoReflect().Get(example).List().Get(0))
}

// inJSON returns a value of a rule in the JSON form of the field.
func inJSON(field, rule protoreflect.FieldDescriptor, value protoreflect.Value) any {
	switch rule.Kind() {
	case protoreflect.MessageKind:
		encoded, err := protojson.Marshal(value.Message().Interface())
		var decoded any
		if err != nil || json.Unmarshal(encoded, &decoded) != nil {
			return nil
		}
		return decoded
	case protoreflect.BytesKind:
		return base64.StdEncoding.EncodeToString(value.Bytes())
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind, protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return fmt.Sprint(value.Interface())
	}
	if field.Enum() != nil {
		known := field.Enum().Values().ByNumber(protoreflect.EnumNumber(value.Int()))
		if known == nil {
			return nil
		}
		return string(known.Name())
	}
	return value.Interface()
}

// derivedExample derives an example of one value of a field from its type and rules;
// nil if it can't.
func derivedExample(field protoreflect.FieldDescriptor) any {
	rules := elementRules(field)
	if chosen := chosenBy(field, rules); chosen != nil {
		return chosen
	}
	kind := field.Kind()
	if message := field.Message(); message != nil {
		if !isWrapper(message) {
			return wellKnownExample(message)
		}
		kind = message.Fields().ByName("value").Kind()
	}
	switch kind {
	case protoreflect.BoolKind:
		return true
	case protoreflect.EnumKind:
		if isNull(field) {
			return nil
		}
		if values := field.Enum().Values(); values.Len() > 1 {
			return string(values.Get(1).Name())
		}
		return string(field.Enum().Values().Get(0).Name())
	case protoreflect.StringKind:
		return textExample(field, cmp.Or(rules.GetString(), &validate.StringRules{}))
	case protoreflect.BytesKind:
		return bytesExample(cmp.Or(rules.GetBytes(), &validate.BytesRules{}))
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		return numberExample(typeRules(rules), 0.5)
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind, protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return strconv.FormatFloat(numberExample(typeRules(rules), 1), 'f', -1, 64)
	}
	return numberExample(typeRules(rules), 1)
}

// chosenBy returns the value that a rule names, of a scalar or an enum; nil for none.
func chosenBy(field protoreflect.FieldDescriptor, rules *validate.FieldRules) any {
	typed := typeRules(rules)
	if typed == nil {
		return nil
	}
	message := typed.ProtoReflect()
	if rule := message.Descriptor().Fields().ByName("const"); rule != nil && message.Has(rule) {
		return inJSON(field, rule, message.Get(rule))
	}
	rule := message.Descriptor().Fields().ByName("in")
	if rule == nil || !rule.IsList() {
		return nil
	}
	for i := range message.Get(rule).List().Len() {
		if one := message.Get(rule).List().Get(i); one.Interface() != "" {
			return inJSON(field, rule, one)
		}
	}
	return nil
}

// numberExample returns a number between the bounds that rules set, close to a usual one.
func numberExample(rules proto.Message, usual float64) float64 {
	if rules == nil {
		return usual
	}
	low, high, step := math.Inf(-1), math.Inf(1), 1.0
	if usual != math.Trunc(usual) {
		step = 0.25
	}
	message := rules.ProtoReflect()
	message.Range(func(rule protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch rule.Name() {
		case "gte":
			low = asNumber(value)
		case "gt":
			low = asNumber(value) + step
		case "lte":
			high = asNumber(value)
		case "lt":
			high = asNumber(value) - step
		}
		return true
	})
	if low > high { // outside of the bounds
		return low
	}
	return math.Max(low, math.Min(high, usual))
}

func bytesExample(rules *validate.BytesRules) any {
	length := max(rules.GetLen(), rules.GetMinLen(), 3)
	if rules.MaxLen != nil {
		length = min(length, rules.GetMaxLen())
	}
	if length > maxExampleBytes {
		return nil
	}
	return base64.StdEncoding.EncodeToString([]byte(strings.Repeat("a", int(length)))) //nolint:gosec // it is small
}

// maxExampleBytes bounds what is made for a rule.
const maxExampleBytes = 256

// textExample returns a text that the rules allow; nil if none is found.
func textExample(field protoreflect.FieldDescriptor, rules *validate.StringRules) any {
	switch {
	case rules.GetEmail():
		return "ada@example.com"
	case rules.GetUuid():
		return exampleID
	case rules.GetTuuid():
		return strings.ReplaceAll(exampleID, "-", "")
	case rules.GetHostname(), rules.GetAddress():
		return "www.example.com"
	case rules.GetHostAndPort():
		return "www.example.com:443"
	case rules.GetIp(), rules.GetIpv4():
		return "203.0.113.7"
	case rules.GetIpv6():
		return "2001:db8::7"
	case rules.GetUri(), rules.GetUriRef():
		return "https://www.example.com/"
	}
	for _, text := range append([]string{words(string(field.Name()))}, simpleTexts...) {
		text = rules.GetPrefix() + strings.ToLower(text) + rules.GetContains() + rules.GetSuffix()
		if text = resize(text, rules); matches(text, rules) {
			return text
		}
		if text = strings.ToUpper(text); matches(text, rules) {
			return text
		}
	}
	return nil
}

// simpleTexts are tried for patterns.
var simpleTexts = []string{"example", "a", "1", "a1", "en", "0.1", "a-1", "a_1", "2026-03-01", "09:30", "/a", "+441632960001", "sku-1"}

// resize brings a text to a length that the rules allow.
func resize(text string, rules *validate.StringRules) string {
	least, most := rules.GetMinLen(), uint64(maxExampleBytes)
	if rules.MaxLen != nil {
		most = rules.GetMaxLen()
	}
	if rules.Len != nil {
		least, most = rules.GetLen(), rules.GetLen()
	}
	runes := []rune(text)
	for uint64(len(runes)) < least && len(runes) < maxExampleBytes {
		runes = append(runes, 'a')
	}
	if uint64(len(runes)) > most {
		runes = runes[:most]
	}
	return string(runes)
}

func matches(text string, rules *validate.StringRules) bool {
	length := uint64(utf8.RuneCountInString(text)) //nolint:gosec // not negative
	if length < rules.GetMinLen() || rules.Len != nil && length != rules.GetLen() || rules.MaxLen != nil && length > rules.GetMaxLen() {
		return false
	}
	if !strings.HasPrefix(text, rules.GetPrefix()) || !strings.HasSuffix(text, rules.GetSuffix()) || !strings.Contains(text, rules.GetContains()) {
		return false
	}
	pattern, err := regexp.Compile(rules.GetPattern())
	return err == nil && pattern.MatchString(text)
}

// wellKnownExample returns an example of a message with a JSON form of its own; nil for
// others, for wrappers and for field masks, whose paths nobody can guess.
func wellKnownExample(message protoreflect.MessageDescriptor) any {
	switch message.FullName() {
	case "google.protobuf.Timestamp":
		return "2026-03-01T09:30:00Z"
	case "google.protobuf.Duration":
		return "30s"
	case "google.protobuf.Empty":
		return object{}
	case "google.protobuf.Struct":
		return object{{"name", "value"}}
	case "google.protobuf.Value":
		return "value"
	case "google.protobuf.ListValue":
		return []any{"value"}
	case "google.protobuf.Any":
		return object{{"@type", "type.googleapis.com/google.protobuf.Duration"}, {"value", "30s"}}
	}
	return nil
}

// valid reports whether an example is a request that a method's rules allow.
func valid(method *policy.Method, example any) bool {
	encoded, err := encode(example)
	return err == nil && method.CheckExample(encoded) == nil
}
