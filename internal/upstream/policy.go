package upstream

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	policyv1 "gatehouse/gen/policy/v1"
)

// addPolicies puts the file's policies into the options of their methods, as if the
// proto stated them.
func (d *describer) addPolicies(byProcedure map[string]*candidate, policies *yaml.Node) {
	if policies == nil {
		return
	}
	for key, value := range mappingOf(d.problems, policies, "policy") {
		procedure := "/" + strings.TrimPrefix(key.Value, "/")
		d.upstream.policyLine[procedure] = key.Line
		c := byProcedure[procedure]
		switch {
		case c == nil:
			d.problems.add(key.Line, "write one of "+some(byProcedure, procedure), "upstream %s has no method %s", d.upstream.Name, key.Value)
			continue
		case policyOf(c.method.GetOptions()) != nil:
			d.problems.add(key.Line, "leave one out", "%s has a policy in its proto and in the file", key.Value)
			continue
		case c.internal:
			d.problems.add(key.Line, "leave its policy out", "%s is for the gateway alone", key.Value)
			continue
		}
		if c.method.Options == nil {
			c.method.Options = &descriptorpb.MethodOptions{}
		}
		value, ok := d.takeOptions(value, c.method.GetOptions(), key.Value)
		if !ok {
			continue
		}
		text, ok := d.policyJSON(value, (*policyv1.Method)(nil).ProtoReflect().Descriptor(), key.Value)
		if !ok {
			continue
		}
		policy := &policyv1.Method{}
		encoded, err := json.Marshal(text)
		if err == nil {
			err = protojson.Unmarshal(encoded, policy)
		}
		if err != nil {
			d.problems.add(key.Line, "see the fields of policy.v1.Method in policy.proto", "the policy of %s can't be read: %s", key.Value, strings.TrimPrefix(strings.ReplaceAll(err.Error(), "\u00a0", " "), "proto: "))
			continue
		}
		if policy.GetAccess().GetWho() == nil {
			d.problems.add(key.Line, "add access: with anyone, signed_in, self or roles", "the policy of %s doesn't say who may call it", key.Value)
			continue
		}
		proto.SetExtension(c.method.GetOptions(), policyv1.E_Method, policy)
	}
}

// takeOptions applies the keys that stand for options of a proto: idempotency_level, and
// http for google.api.http. It returns the mapping without them.
func (d *describer) takeOptions(node *yaml.Node, options *descriptorpb.MethodOptions, what string) (*yaml.Node, bool) {
	if node.Kind != yaml.MappingNode {
		return node, true // reported by its reader
	}
	rest, valid := *node, true
	rest.Content = nil
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		switch key.Value {
		case "idempotency_level":
			level, known := descriptorpb.MethodOptions_IdempotencyLevel_value[value.Value]
			switch {
			case options.IdempotencyLevel != nil:
				d.problems.add(key.Line, "leave one out", "%s has an idempotency_level in its proto and in the file", what)
				valid = false
			case !known || level == 0:
				d.problems.add(value.Line, "write NO_SIDE_EFFECTS or IDEMPOTENT", "idempotency_level of %s is %q", what, value.Value)
				valid = false
			}
			options.IdempotencyLevel = descriptorpb.MethodOptions_IdempotencyLevel(level).Enum()
		case "http":
			valid = d.setRule(key, value, options, what) && valid
		default:
			rest.Content = append(rest.Content, key, value)
		}
	}
	return &rest, valid
}

// setRule sets the REST path of a method.
func (d *describer) setRule(key, value *yaml.Node, options *descriptorpb.MethodOptions, what string) bool {
	if proto.HasExtension(options, annotations.E_Http) {
		d.problems.add(key.Line, "leave one out", "%s has a REST path in its proto and in the file", what)
		return false
	}
	rule := &annotations.HttpRule{}
	text, ok := d.policyJSON(value, rule.ProtoReflect().Descriptor(), what)
	if !ok {
		return false
	}
	encoded, err := json.Marshal(text)
	if err == nil {
		err = protojson.Unmarshal(encoded, rule)
	}
	if err != nil {
		d.problems.add(key.Line, "write one such as http: {get: /api/v1/things/{id}}, in quotes", "the REST path of %s can't be read", what)
		return false
	}
	proto.SetExtension(options, annotations.E_Http, rule)
	return true
}

// some names methods for a message: of the service of a procedure like it, if it has any.
func some(byProcedure map[string]*candidate, like string) string {
	const most = 6
	names := methodNames(byProcedure)
	service := strings.TrimPrefix(like[:strings.LastIndex(like, "/")+1], "/")
	if near := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return !strings.HasPrefix(name, service) }); len(near) > 0 {
		names = near
	}
	if len(names) > most {
		names = append(names[:most], "…")
	}
	return strings.Join(names, ", ")
}

// methodNames are the names of all methods, as the file writes them.
func methodNames(byProcedure map[string]*candidate) (names []string) {
	for procedure := range byProcedure {
		names = append(names, strings.TrimPrefix(procedure, "/"))
	}
	slices.Sort(names)
	return names
}

// policyJSON turns YAML into the JSON of a message, and reports keys that the message
// does not have, each with its line. Times may be as Go writes them, such as 500ms, and
// values of enums without their prefix.
func (d *describer) policyJSON(node *yaml.Node, message protoreflect.MessageDescriptor, what string) (any, bool) {
	if node.Kind == yaml.ScalarNode && node.Tag == "!!null" && message.Fields().Len() == 0 {
		return map[string]any{}, true // anyone: and signed_in: have nothing below them
	}
	object, valid := map[string]any{}, node.Kind == yaml.MappingNode
	for key, value := range mappingOf(d.problems, node, "the policy of "+what) {
		field := message.Fields().ByName(protoreflect.Name(key.Value))
		if field == nil {
			field = message.Fields().ByJSONName(key.Value)
		}
		if field == nil {
			d.problems.add(key.Line, "the keys are "+fieldNames(message), "the policy of %s has no key %q here", what, key.Value)
			valid = false
			continue
		}
		read, ok := d.valueJSON(value, field, what)
		object[key.Value], valid = read, valid && ok
	}
	return object, valid
}

func (d *describer) valueJSON(node *yaml.Node, field protoreflect.FieldDescriptor, what string) (any, bool) {
	if field.IsList() {
		if node.Kind != yaml.SequenceNode {
			d.problems.add(node.Line, "write it as [A, B]", "%s in the policy of %s is not a list", field.Name(), what)
			return nil, false
		}
		list := []any{}
		for _, item := range node.Content {
			list = append(list, item.Value)
		}
		return list, true
	}
	switch {
	case field.Message() != nil && field.Message().FullName() == "google.protobuf.Duration":
		length, err := time.ParseDuration(node.Value)
		if err != nil {
			d.problems.add(node.Line, "write one such as 500ms or 5s", "%s in the policy of %s is %q, which is no time", field.Name(), what, node.Value)
			return nil, false
		}
		return strconv.FormatFloat(length.Seconds(), 'f', -1, 64) + "s", true
	case field.Message() != nil:
		return d.policyJSON(node, field.Message(), what)
	case node.Kind != yaml.ScalarNode:
		d.problems.add(node.Line, "write one word", "%s in the policy of %s is not a single value", field.Name(), what)
		return nil, false
	case field.Enum() != nil:
		prefix := strings.TrimSuffix(string(field.Enum().Values().Get(0).Name()), "UNSPECIFIED")
		name := prefix + strings.TrimPrefix(node.Value, prefix)
		if value := field.Enum().Values().ByName(protoreflect.Name(name)); value == nil || value.Number() == 0 {
			d.problems.add(node.Line, "write "+enumNames(field.Enum(), prefix), "%s in the policy of %s is %q", field.Name(), what, node.Value)
			return nil, false
		}
		return name, true
	case field.Kind() == protoreflect.BoolKind && node.Tag == "!!bool":
		return node.Value == "true", true
	case field.Kind() == protoreflect.Int32Kind && node.Tag == "!!int":
		return json.Number(node.Value), true
	case field.Kind() == protoreflect.StringKind:
		return node.Value, true
	}
	d.problems.add(node.Line, fmt.Sprintf("write a %s", field.Kind()), "%s in the policy of %s is %q", field.Name(), what, node.Value)
	return nil, false
}

func fieldNames(message protoreflect.MessageDescriptor) string {
	var names []string
	for i := range message.Fields().Len() {
		names = append(names, string(message.Fields().Get(i).Name()))
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

func enumNames(enum protoreflect.EnumDescriptor, prefix string) string {
	var names []string
	for i := 1; i < enum.Values().Len(); i++ {
		names = append(names, strings.TrimPrefix(string(enum.Values().Get(i).Name()), prefix))
	}
	return strings.Join(names, " or ")
}
