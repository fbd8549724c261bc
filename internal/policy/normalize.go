package policy

import (
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
	"google.golang.org/protobuf/reflect/protoreflect"

	policyv1 "gatehouse/gen/policy/v1"
	"gatehouse/internal/email"
)

// normalizer normalizes the text fields of one message.
type normalizer struct {
	texts    []textField
	messages []messageField
}

type textField struct {
	field protoreflect.FieldDescriptor
	form  func(string) string
}

type messageField struct {
	field protoreflect.FieldDescriptor
	form  *normalizer
}

// newNormalizer compiles the normalizations of a message's fields; nil if there are none.
func newNormalizer(message protoreflect.MessageDescriptor) *normalizer {
	return compileNormalizer(message, map[protoreflect.FullName]*normalizer{})
}

func compileNormalizer(message protoreflect.MessageDescriptor, made map[protoreflect.FullName]*normalizer) *normalizer {
	if known, ok := made[message.FullName()]; ok {
		return known // the message type is recursive
	}
	if !hasText(message) {
		return nil
	}
	n := &normalizer{}
	made[message.FullName()] = n
	fields := message.Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		if policy := fieldPolicy(field).GetNormalize(); policy != nil {
			n.texts = append(n.texts, textField{field, textNormalizer(policy)})
		}
		inner := field.Message()
		if field.IsMap() {
			inner = field.MapValue().Message()
		}
		if inner == nil {
			continue
		}
		if form := compileNormalizer(inner, made); form != nil {
			n.messages = append(n.messages, messageField{field, form})
		}
	}
	return n
}

// hasText reports whether a message, or one in it, has a field to normalize.
func hasText(message protoreflect.MessageDescriptor) (found bool) {
	reachable(message, func(field protoreflect.FieldDescriptor) bool {
		found = fieldPolicy(field).GetNormalize() != nil
		return !found
	})
	return found
}

func (n *normalizer) apply(message protoreflect.Message) {
	for _, text := range n.texts {
		if !message.Has(text.field) {
			continue
		}
		if !text.field.IsList() {
			before := message.Get(text.field).String()
			if after := text.form(before); after != before {
				message.Set(text.field, protoreflect.ValueOfString(after))
			}
			continue
		}
		list := message.Mutable(text.field).List()
		for i := range list.Len() {
			list.Set(i, protoreflect.ValueOfString(text.form(list.Get(i).String())))
		}
	}
	for _, inner := range n.messages {
		if !message.Has(inner.field) {
			continue
		}
		eachMessage(message.Mutable(inner.field), inner.field, inner.form.apply)
	}
}

// eachMessage visits the messages that a set field holds.
func eachMessage(value protoreflect.Value, field protoreflect.FieldDescriptor, visit func(protoreflect.Message)) {
	switch {
	case field.IsMap():
		value.Map().Range(func(_ protoreflect.MapKey, value protoreflect.Value) bool {
			visit(value.Message())
			return true
		})
	case field.IsList():
		for i := range value.List().Len() {
			visit(value.List().Get(i).Message())
		}
	default:
		visit(value.Message())
	}
}

// textNormalizer compiles one field's steps.
func textNormalizer(policy *policyv1.Normalize) func(string) string {
	if policy.GetEmail() {
		return email.Normalize
	}
	var steps []func(string) string
	form := func(text string) string { return text }
	switch policy.GetForm() {
	case policyv1.UnicodeForm_UNICODE_FORM_NFC:
		form = norm.NFC.String
	case policyv1.UnicodeForm_UNICODE_FORM_NFKC:
		form = norm.NFKC.String
	}
	steps = append(steps, form)
	if policy.GetLowerCase() {
		// Lower case may denormalize a text.
		steps = append(steps, strings.ToLower, form)
	}
	if policy.GetCollapseSpaces() {
		steps = append(steps, collapseSpaces)
	}
	if policy.GetTrim() {
		steps = append(steps, strings.TrimSpace)
	}
	return func(text string) string {
		for _, step := range steps {
			text = step(text)
		}
		return text
	}
}

func collapseSpaces(text string) string {
	var out strings.Builder
	inside := false
	for _, c := range text {
		space := unicode.IsSpace(c)
		if space && inside {
			continue
		}
		if inside = space; space {
			c = ' '
		}
		out.WriteRune(c)
	}
	return out.String()
}
