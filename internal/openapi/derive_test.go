package openapi

import (
	"testing"

	validate "buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	policyv1 "gatehouse/gen/policy/v1"
)

// newField returns a field called code with rules and an example of its own.
func newField(t testing.TB, kind descriptorpb.FieldDescriptorProto_Type, rules *validate.FieldRules, given *policyv1.Field) protoreflect.FieldDescriptor {
	t.Helper()
	options := &descriptorpb.FieldOptions{}
	if rules != nil {
		proto.SetExtension(options, validate.E_Field, rules)
	}
	if given != nil {
		proto.SetExtension(options, policyv1.E_Field, given)
	}
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: new("a.proto"), Package: new("a.v1"), Syntax: new("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{{Name: new("A"), Field: []*descriptorpb.FieldDescriptorProto{
			{Name: new("code"), Number: new(int32(1)), Type: kind.Enum(), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(), Options: options},
		}}},
	}, nil)
	wantNoError(t, err)
	return file.Messages().Get(0).Fields().Get(0)
}

func TestExamplesFollowTypeAndRules(t *testing.T) {
	t.Parallel()
	texts := func(rules *validate.StringRules) *validate.FieldRules {
		return &validate.FieldRules{Type: &validate.FieldRules_String_{String_: rules}}
	}
	numbers := func(rules *validate.Int32Rules) *validate.FieldRules {
		return &validate.FieldRules{Type: &validate.FieldRules_Int32{Int32: rules}}
	}
	const text, number = descriptorpb.FieldDescriptorProto_TYPE_STRING, descriptorpb.FieldDescriptorProto_TYPE_INT32
	for name, c := range map[string]struct {
		kind  descriptorpb.FieldDescriptorProto_Type
		rules *validate.FieldRules
		given *policyv1.Field
		want  string
	}{
		"a text":                  {kind: text, want: `"code"`},
		"a long text":             {kind: text, rules: texts(&validate.StringRules{MinLen: new(uint64(6))}), want: `"codeaa"`},
		"a short text":            {kind: text, rules: texts(&validate.StringRules{MaxLen: new(uint64(2))}), want: `"co"`},
		"an email":                {kind: text, rules: texts(&validate.StringRules{WellKnown: &validate.StringRules_Email{Email: true}}), want: `"ada@example.com"`},
		"one of several":          {kind: text, rules: texts(&validate.StringRules{In: []string{"", "red"}}), want: `"red"`},
		"a constant":              {kind: text, rules: texts(&validate.StringRules{Const: new("v1")}), want: `"v1"`},
		"a prefix":                {kind: text, rules: texts(&validate.StringRules{Prefix: new("shops/")}), want: `"shops/code"`},
		"a pattern":               {kind: text, rules: texts(&validate.StringRules{Pattern: new("^[A-Z]{4}$")}), want: `"CODE"`},
		"a pattern of its own":    {kind: text, rules: texts(&validate.StringRules{Pattern: new("^x{17}y$")}), want: "null"},
		"an example of the rules": {kind: text, rules: texts(&validate.StringRules{Pattern: new("^x{17}y$"), Example: []string{"x"}}), want: `"x"`},
		"a given example":         {kind: text, rules: texts(&validate.StringRules{Example: []string{"x"}}), given: &policyv1.Field{Example: new("given")}, want: `"given"`},
		"left out":                {kind: text, given: &policyv1.Field{Example: new("")}, want: "null"},
		"a number":                {kind: number, want: "1"},
		"a number above":          {kind: number, rules: numbers(&validate.Int32Rules{GreaterThan: &validate.Int32Rules_Gt{Gt: 7}}), want: "8"},
		"a number below":          {kind: number, rules: numbers(&validate.Int32Rules{LessThan: &validate.Int32Rules_Lt{Lt: -3}}), want: "-4"},
		"a number outside": {kind: number, rules: numbers(&validate.Int32Rules{
			GreaterThan: &validate.Int32Rules_Gte{Gte: 9}, LessThan: &validate.Int32Rules_Lte{Lte: 2},
		}), want: "9"},
		"a given number": {kind: number, given: &policyv1.Field{Example: new("25")}, want: "25"},
		"a large number": {kind: descriptorpb.FieldDescriptorProto_TYPE_INT64, want: `"1"`},
		"a yes or no":    {kind: descriptorpb.FieldDescriptorProto_TYPE_BOOL, want: "true"},
	} {
		got, err := encode(fieldExample(newField(t, c.kind, c.rules, c.given)))
		wantNoError(t, err)
		if string(got) != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
	}
}

// A pattern that is none is described in words, as a rule that JSON Schema lacks.
func TestAPatternThatIsNoneIsANote(t *testing.T) {
	t.Parallel()
	rules := &validate.FieldRules{Type: &validate.FieldRules_String_{String_: &validate.StringRules{Pattern: new("(")}}}
	field := newField(t, descriptorpb.FieldDescriptorProto_TYPE_STRING, rules, nil)
	d := newDocument(Config{Lenient: true})
	schema, needed, err := d.schemas.field(field)
	wantNoError(t, err)
	got, err := encode(schema)
	wantNoError(t, err)
	if want := "{\"type\":\"string\",\"description\":\"Further rules: `pattern (`.\"}"; string(got) != want || needed {
		t.Errorf("got %s, needed %t, want %s", got, needed, want)
	}
	if _, _, err := newDocument(Config{}).schemas.field(field); err == nil {
		t.Error("got no error of a document that may leave nothing out")
	}
}
