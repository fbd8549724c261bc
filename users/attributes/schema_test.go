package attributes_test

import (
	"errors"
	"strings"
	"testing"

	"gatehouse/users/attributes"
)

const schemaText = `{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "properties": {
    "attributes": {
      "type": "object",
      "properties": {
        "theme": {"enum": ["light", "dark"]},
        "email": {"type": "string", "format": "email"},
        "age": {"type": "integer", "minimum": 0, "multipleOf": 0.1},
        "address": {"$ref": "#/$defs/address"}
      },
      "required": ["theme"],
      "additionalProperties": false
    },
    "app_attributes": {
      "type": "object",
      "properties": {"plan": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 8}},
      "maxProperties": 3
    }
  },
  "$defs": {
    "address": {"type": "object", "properties": {"city": {"type": "string", "minLength": 1}}, "required": ["city"]}
  }
}`

func compiled(t *testing.T, document string) *attributes.Schema {
	t.Helper()
	schema, err := attributes.Compile([]byte(document))
	if err != nil {
		t.Fatalf("compile the schema: %v", err)
	}
	return schema
}

func TestASchemaRefusesChangesThatViolateIt(t *testing.T) {
	t.Parallel()
	schema := compiled(t, schemaText)
	stored := attributes.Pair{Person: `{"theme":"dark"}`, App: `{}`}
	for _, test := range []struct{ object, patch, want string }{
		{attributes.Person, `{"theme":"hidden"}`, "attributes.theme: must be one of the values that the schema lists"},
		{attributes.Person, `{"theme":null}`, "attributes.theme: is required"},
		{attributes.Person, `{"email":"hidden"}`, "attributes.email: must be a valid email"},
		{attributes.Person, `{"age":-1}`, "attributes.age: must be at least 0"},
		{attributes.Person, `{"age":"hidden"}`, "attributes.age: must be of type integer"},
		{attributes.Person, `{"hidden":1}`, "attributes.hidden: is not a key that the schema knows"},
		{attributes.Person, `{"address":{}}`, "attributes.address.city: is required"},
		{attributes.Person, `{"address":{"city":""}}`, "attributes.address.city: must have at least 1 characters"},
		{attributes.App, `{"plan":"HIDDEN"}`, "app_attributes.plan: must match the pattern ^[a-z]+$"},
		{attributes.App, `{"a":1,"b":2,"c":3,"d":4}`, "app_attributes: must have at most 3 keys"},
		{attributes.Person, `{"theme":1,"age":"hidden"}`, "attributes.age: must be of type integer; attributes.theme: must be one of the values that the schema lists"},
	} {
		_, err := attributes.Apply(schema, stored, attributes.Patch{Object: test.object, Text: test.patch})
		wantReason(t, test.patch, err, "ATTRIBUTES_INVALID")
		if err == nil || !strings.HasSuffix(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %s", test.patch, err, test.want)
		}
		if err != nil && test.patch != `{"hidden":1}` && strings.Contains(strings.ToLower(err.Error()), "hidden") {
			t.Errorf("%s: the error contains the value: %v", test.patch, err)
		}
	}
	for _, patch := range []string{`{"theme":"light"}`, `{"age":3,"email":"ada@example.com"}`, `{"address":{"city":"London","zip":1}}`} {
		if _, err := attributes.Apply(schema, stored, attributes.Patch{Object: attributes.Person, Text: patch}); err != nil {
			t.Errorf("%s: %v", patch, err)
		}
	}
}

// The stored values are from before the schema.
func TestStoredValuesThatASchemaRefusesBlockOnlyTheirOwnChange(t *testing.T) {
	t.Parallel()
	schema := compiled(t, schemaText)
	stored := attributes.Pair{
		Person: `{"old":1,"older":2,"email":"none","address":{"street":"x"}}`, // without the required theme
		App:    `{"plan":"TOO LONG FOR IT","a":1,"b":2,"c":3}`,
	}
	for _, test := range []struct {
		object, patch string
		refused       string
	}{
		{attributes.Person, `{"age":3}`, ""},
		{attributes.App, `{"a":2}`, ""},
		{attributes.Person, `{"email":"none"}`, ""}, // it stays what it is
		{attributes.Person, `{"old":null}`, ""},
		{attributes.Person, `{"theme":"dark"}`, ""},
		{attributes.Person, `{"email":"ada@example.com"}`, ""},
		{attributes.Person, `{"address":{"street":"y"}}`, ""},
		{attributes.Person, `{"email":"neither"}`, "attributes.email"},
		{attributes.Person, `{"old":2}`, "attributes.old"},
		{attributes.Person, `{"new":2}`, "attributes.new"},
		{attributes.Person, `{"age":-3}`, "attributes.age"},
		{attributes.App, `{"plan":"ALSO TOO LONG"}`, "app_attributes.plan"},
	} {
		_, err := attributes.Apply(schema, stored, attributes.Patch{Object: test.object, Text: test.patch})
		if test.refused == "" {
			if err != nil {
				t.Errorf("%s: %v", test.patch, err)
			}
			continue
		}
		wantReason(t, test.patch, err, "ATTRIBUTES_INVALID")
		if err != nil && (!strings.Contains(err.Error(), test.refused+":") || strings.Contains(err.Error(), "theme")) {
			t.Errorf("%s: got %v, want it to be about %s alone", test.patch, err, test.refused)
		}
	}
}

func TestAFaultyDocumentIsRefusedWithItsPosition(t *testing.T) {
	t.Parallel()
	const begin = "{\n  \"properties\": {\n    \"attributes\": {\n      "
	for name, test := range map[string]struct {
		document     string
		line, column int
		says         string
	}{
		"no JSON":                   {"{\n  \"properties\": {,\n}", 2, 18, "not JSON"},
		"nothing":                   {"", 1, 1, "not JSON"},
		"no object":                 {"true", 1, 1, "not a JSON object"},
		"neither property":          {"{\"type\": \"object\"}", 1, 1, "neither attributes nor app_attributes"},
		"the schema of one object":  {"{\n  \"properties\": {\n    \"theme\": {}\n  }\n}", 3, 14, `"theme" is not a property`},
		"another draft":             {"{\n  \"$schema\": \"http://json-schema.org/draft-07/schema#\",\n  \"properties\": {\"attributes\": {}}\n}", 2, 14, "the draft is not 2020-12"},
		"a type that is none":       {begin + "\"type\": \"objekt\"\n    }\n  }\n}", 4, 15, "/properties/attributes/type"},
		"a regular expression":      {begin + "\"properties\": {\"a\": {\"pattern\": \"(\"}}\n    }\n  }\n}", 4, 39, "not a regular expression"},
		"a $ref to nowhere":         {begin + "\"$ref\": \"#/$defs/none\"\n    }\n  }\n}", 4, 15, "does not resolve"},
		"a $ref to an anchor":       {begin + "\"$ref\": \"#none\"\n    }\n  }\n}", 4, 15, "does not resolve"},
		"a remote $ref":             {begin + "\"$ref\": \"https://example.com/schema.json\"\n    }\n  }\n}", 4, 15, "in another document"},
		"a $ref to a file":          {begin + "\"$ref\": \"file:///etc/passwd\"\n    }\n  }\n}", 4, 15, "in another document"},
		"a $ref to a relative file": {begin + "\"$ref\": \"other.json\"\n    }\n  }\n}", 4, 15, "in another document"},
	} {
		_, err := attributes.Compile([]byte(test.document))
		fault, ok := errors.AsType[*attributes.SchemaError](err)
		if !ok {
			t.Errorf("%s: got %v, want a SchemaError", name, err)
			continue
		}
		if fault.Line != test.line || fault.Column != test.column || !strings.Contains(fault.Problem, test.says) || fault.Fix == "" {
			t.Errorf("%s: got %v (fix %q), want it at %d:%d to say %q", name, err, fault.Fix, test.line, test.column, test.says)
		}
	}
}
