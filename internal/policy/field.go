package policy

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	policyv1 "gatehouse/gen/policy/v1"
)

// FieldPath is the path from a message to one of its string fields, or to one of a
// message in it.
type FieldPath []protoreflect.FieldDescriptor

// In returns the value of the field in a message; "" where it is not set.
func (f FieldPath) In(message proto.Message) string {
	at := message.ProtoReflect()
	last := len(f) - 1
	for _, field := range f[:last] {
		at = at.Get(field).Message()
	}
	return at.Get(f[last]).String()
}

// findField finds the string field that a path such as "user.id" names.
func findField(message protoreflect.MessageDescriptor, path string) (FieldPath, error) {
	whole := message.Name()
	var fields FieldPath
	for step := range strings.SplitSeq(path, ".") {
		var field protoreflect.FieldDescriptor
		if message != nil {
			field = message.Fields().ByName(protoreflect.Name(step))
		}
		if field == nil || field.IsList() || field.IsMap() {
			return nil, fmt.Errorf("%s has no single field %q", whole, path)
		}
		fields = append(fields, field)
		message = field.Message()
	}
	if fields[len(fields)-1].Kind() != protoreflect.StringKind {
		return nil, fmt.Errorf("the field %q is not a string", path)
	}
	return fields, nil
}

// fieldPolicy returns the policy of a field; nil when it has none.
func fieldPolicy(field protoreflect.FieldDescriptor) *policyv1.Field {
	if !proto.HasExtension(field.Options(), policyv1.E_Field) {
		return nil
	}
	policy, _ := proto.GetExtension(field.Options(), policyv1.E_Field).(*policyv1.Field)
	return policy
}

// reachable visits the fields of a message and of every message in it, each once, until
// visit returns false.
func reachable(message protoreflect.MessageDescriptor, visit func(protoreflect.FieldDescriptor) bool) {
	seen := map[protoreflect.FullName]bool{}
	var walk func(protoreflect.MessageDescriptor) bool
	walk = func(message protoreflect.MessageDescriptor) bool {
		if message == nil || seen[message.FullName()] {
			return true
		}
		seen[message.FullName()] = true
		fields := message.Fields()
		for i := range fields.Len() {
			if !visit(fields.Get(i)) || !walk(fields.Get(i).Message()) {
				return false
			}
		}
		return true
	}
	walk(message)
}

// Fields returns the fields of all messages that the methods take and return,
// by name.
func Fields(methods []*Method) []protoreflect.FieldDescriptor {
	found := map[protoreflect.FullName]protoreflect.FieldDescriptor{}
	for _, m := range methods {
		for _, message := range []protoreflect.MessageDescriptor{m.Descriptor.Input(), m.Descriptor.Output()} {
			reachable(message, func(field protoreflect.FieldDescriptor) bool {
				found[field.FullName()] = field
				return true
			})
		}
	}
	return slices.SortedFunc(maps.Values(found), func(a, b protoreflect.FieldDescriptor) int {
		return strings.Compare(string(a.FullName()), string(b.FullName()))
	})
}

// firstRedacted returns a redacted field of the message or of a message in it; nil if
// there is none.
func firstRedacted(message protoreflect.MessageDescriptor) (found protoreflect.FieldDescriptor) {
	reachable(message, func(field protoreflect.FieldDescriptor) bool {
		if fieldPolicy(field).GetRedact() {
			found = field
		}
		return found == nil
	})
	return found
}

// checkFields finds field policies that cannot be enforced.
func checkFields(message protoreflect.MessageDescriptor) error {
	var faults []error
	reachable(message, func(field protoreflect.FieldDescriptor) bool {
		if normalize := fieldPolicy(field).GetNormalize(); normalize != nil {
			if err := checkNormalize(field, normalize); err != nil {
				faults = append(faults, fmt.Errorf("%s: its policy %w", field.FullName(), err))
			}
		}
		return true
	})
	return errors.Join(faults...)
}

func checkNormalize(field protoreflect.FieldDescriptor, n *policyv1.Normalize) error {
	others := n.GetTrim() || n.GetCollapseSpaces() || n.GetLowerCase() || n.Form != nil
	switch {
	case field.Kind() != protoreflect.StringKind || field.ContainingMessage().IsMapEntry():
		return errors.New("normalizes a field that is not a string")
	case n.GetEmail() && others:
		return errors.New("combines email with other normalizations: email includes them, so remove the others")
	case !n.GetEmail() && !others:
		return errors.New("has an empty normalization: add a step, or remove it")
	case n.Form != nil && n.GetForm() != policyv1.UnicodeForm_UNICODE_FORM_NFC && n.GetForm() != policyv1.UnicodeForm_UNICODE_FORM_NFKC:
		return errors.New("has an unknown Unicode normalization form: use NFC or NFKC")
	}
	return nil
}
