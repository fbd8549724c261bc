package postman

import (
	"encoding/json"
	"fmt"
	"strings"
)

// api is the part of the OpenAPI document that is used.
type api struct {
	operations map[string]*operation
	schemas    map[string]any
	parameters map[string]parameter
	tags       map[string]string // their descriptions
	// filled are values of request fields, by name.
	filled map[string]string
	// variables are those of operations that no chapter has.
	variables []keyValue
}

type operation struct {
	method, path string

	OperationID string
	Tags        []string
	Summary     string
	Description string
	Security    []map[string][]string
	Parameters  []parameter
	RequestBody *struct{ Content map[string]media }
	Responses   map[string]answer
}

type parameter struct {
	Ref         string `json:"$ref"`
	Name        string
	In          string
	Description string
	Required    bool
	Example     any
	Schema      struct{ Enum []any }
	Content     map[string]media
}

type answer struct{ Content map[string]media }

type media struct {
	Schema  any
	Example any
}

const jsonType = "application/json"

func readAPI(text []byte) (*api, error) {
	var document struct {
		Tags       []struct{ Name, Description string }
		Paths      map[string]map[string]json.RawMessage
		Components struct {
			Schemas    map[string]any
			Parameters map[string]parameter
		}
	}
	if err := json.Unmarshal(text, &document); err != nil {
		return nil, err
	}
	a := &api{operations: map[string]*operation{}, schemas: document.Components.Schemas, parameters: document.Components.Parameters, tags: map[string]string{}, filled: map[string]string{}}
	for _, tag := range document.Tags {
		a.tags[tag.Name] = tag.Description
	}
	for path, operations := range document.Paths {
		for method, encoded := range operations {
			one := operation{method: strings.ToUpper(method), path: path}
			if err := json.Unmarshal(encoded, &one); err != nil {
				return nil, fmt.Errorf("%s %s: %w", method, path, err)
			}
			for i, p := range one.Parameters {
				if name, ok := strings.CutPrefix(p.Ref, "#/components/parameters/"); ok {
					one.Parameters[i] = a.parameters[name]
				}
			}
			a.operations[one.OperationID] = &one
		}
	}
	return a, nil
}

func (o *operation) tag() string { return strings.Join(o.Tags, ", ") }

// takesJSON reports whether a call is one message in JSON. Streams are not.
func (o *operation) takesJSON() bool {
	if _, events := o.Responses["200"].Content["text/event-stream"]; events {
		return false
	}
	if o.RequestBody == nil {
		return true
	}
	_, ok := o.RequestBody.Content[jsonType]
	return ok
}

// wantsToken reports whether a call needs an access token.
func (o *operation) wantsToken() bool {
	for _, one := range o.Security {
		if _, ok := one["accessToken"]; ok {
			return true
		}
	}
	return false
}

// Keywords that document a schema instead of checking a response, or that Postman's
// validator, which implements an older draft of JSON Schema, doesn't know.
var unchecked = []string{"description", "examples", "format", "readOnly", "title"}

// inline returns a schema with its references replaced by the schemas.
func (a *api) inline(schema any, depth int) (any, error) {
	if depth > 32 {
		return nil, fmt.Errorf("a schema contains itself")
	}
	switch s := schema.(type) {
	case map[string]any:
		if ref, ok := s["$ref"].(string); ok {
			name, _ := strings.CutPrefix(ref, "#/components/schemas/")
			found, ok := a.schemas[name]
			if !ok {
				return nil, fmt.Errorf("no schema is called %s", ref)
			}
			return a.inline(found, depth+1)
		}
		whole := map[string]any{}
		for key, value := range s {
			var err error
			if whole[key], err = a.inline(value, depth+1); err != nil {
				return nil, err
			}
		}
		if _, ok := whole["type"].(string); ok { // not a map of properties
			for _, key := range unchecked {
				delete(whole, key)
			}
		}
		return whole, nil
	case []any:
		var whole []any
		for _, value := range s {
			one, err := a.inline(value, depth+1)
			if err != nil {
				return nil, err
			}
			whole = append(whole, one)
		}
		return whole, nil
	default:
		return schema, nil
	}
}
