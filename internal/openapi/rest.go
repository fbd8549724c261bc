package openapi

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// braced matches a path parameter of google.api.http.
var braced = regexp.MustCompile(`\{([A-Za-z0-9_.]+)(?:=([^}]*))?\}`)

func (d *document) addREST(m *method) error {
	rule := httpRule(m)
	verb, path := verbOf(rule)
	switch {
	case verb == "" && d.lenient:
		return nil
	case !d.lenient && (verb == "" || len(rule.GetAdditionalBindings()) > 0 || rule.GetResponseBody() != ""):
		return errors.New("its google.api.http has to give one path, and the whole answer")
	}
	// The other fields of a message with a field in the path are in the body.
	var parameters []any
	var inPath []string
	elsewhere := map[protoreflect.Name]bool{}
	for _, match := range braced.FindAllStringSubmatch(path, -1) {
		field, err := fieldAt(m.Input(), match[1])
		if err != nil {
			return err
		}
		inPath = append(inPath, jsonPath(m.Input(), match[1]))
		elsewhere[field.Name()] = elsewhere[field.Name()] || !strings.Contains(match[1], ".")
		parameter, err := d.fieldParameter(field, strings.ReplaceAll(match[1], ".", "_"), "path")
		if err != nil {
			return err
		}
		parameters = append(parameters, parameter)
		for _, name := range segmentNames(match)[1:] {
			parameters = append(parameters, object{
				{"name", name}, {"in", "path"}, {"description", "A further segment of " + match[1] + "."}, {"required", true},
				{"schema", object{{"type", "string"}}}, {"example", "1"},
			})
		}
	}
	given, err := d.restBody(m, rule.GetBody(), elsewhere, inPath)
	if err != nil {
		return err
	}
	if rule.GetBody() != "*" {
		query, err := d.queryParameters(m, func(field protoreflect.FieldDescriptor) bool {
			return !elsewhere[field.Name()] && string(field.Name()) != rule.GetBody()
		})
		if err != nil {
			return err
		}
		parameters = append(parameters, query...)
	}
	operation, err := d.operation(m, rest, parameters, given)
	if err != nil {
		return err
	}
	d.addOperation(plainPath(path), verb, operation)
	return nil
}

// queryParameters returns the parameters for some of a request's fields.
func (d *document) queryParameters(m *method, some func(protoreflect.FieldDescriptor) bool) (parameters []any, err error) {
	for i := range m.Input().Fields().Len() {
		field := m.Input().Fields().Get(i)
		if !some(field) || d.lenient && !inURL(field) {
			continue
		}
		parameter, err := d.fieldParameter(field, field.JSONName(), "query")
		if err != nil {
			return nil, err
		}
		parameters = append(parameters, parameter)
	}
	return parameters, nil
}

// jsonPath returns a path of fields by their names in JSON.
func jsonPath(message protoreflect.MessageDescriptor, path string) string {
	var names []string
	for name := range strings.SplitSeq(path, ".") {
		field := message.Fields().ByName(protoreflect.Name(name))
		names = append(names, field.JSONName())
		message = field.Message()
	}
	return strings.Join(names, ".")
}

// segmentNames returns the names of the parameters for a field in a path, which
// braced matched: one, or one for each variable segment of a field such as
// {name=shops/*/items/*}.
func segmentNames(match []string) []string {
	name := strings.ReplaceAll(match[1], ".", "_")
	names := []string{name}
	for i := 2; i <= len(anySegment.FindAllString(match[2], -1)); i++ {
		names = append(names, fmt.Sprintf("%s_%d", name, i))
	}
	return names
}

// anySegment matches a variable segment of a field in a path.
var anySegment = regexp.MustCompile(`\*\*?`)

// plainPath returns the path of a google.api.http rule with parameters that hold one
// segment each.
func plainPath(path string) string {
	return braced.ReplaceAllStringFunc(path, func(variable string) string {
		match := braced.FindStringSubmatch(variable)
		names := segmentNames(match)
		if !strings.Contains(match[2], "*") {
			return "{" + names[0] + "}"
		}
		return anySegment.ReplaceAllStringFunc(match[2], func(string) string {
			name := names[0]
			names = names[1:]
			return "{" + name + "}"
		})
	})
}

func inURL(field protoreflect.FieldDescriptor) bool {
	return !field.IsMap() && (field.Message() == nil || isText(field))
}

func httpRule(m *method) *annotations.HttpRule {
	rule, _ := proto.GetExtension(m.Options(), annotations.E_Http).(*annotations.HttpRule)
	return rule
}

func verbPath(m *method) string {
	_, path := verbOf(httpRule(m))
	return path
}

func verbOf(rule *annotations.HttpRule) (verb, path string) {
	switch pattern := rule.GetPattern().(type) {
	case *annotations.HttpRule_Get:
		return "get", pattern.Get
	case *annotations.HttpRule_Post:
		return "post", pattern.Post
	case *annotations.HttpRule_Patch:
		return "patch", pattern.Patch
	case *annotations.HttpRule_Put:
		return "put", pattern.Put
	case *annotations.HttpRule_Delete:
		return "delete", pattern.Delete
	}
	return "", ""
}

func fieldAt(message protoreflect.MessageDescriptor, path string) (field protoreflect.FieldDescriptor, err error) {
	for name := range strings.SplitSeq(path, ".") {
		if message == nil || message.Fields().ByName(protoreflect.Name(name)) == nil {
			return nil, fmt.Errorf("there is no field %s", path)
		}
		field = message.Fields().ByName(protoreflect.Name(name))
		message = field.Message()
	}
	return field, nil
}

// body returns the request body.
type body struct {
	schema   object
	example  any // nil for none
	required bool
}

// restBody returns the part of the request in the body; nil for none.
func (d *document) restBody(m *method, rule string, elsewhere map[protoreflect.Name]bool, inPath []string) (*body, error) {
	if rule == "" {
		return nil, nil
	}
	whole, err := d.schemas.request(m)
	if err != nil {
		return nil, err
	}
	given := &body{required: true, example: requestBody(whole, rule, inPath)}
	if rule != "*" {
		field, err := fieldAt(m.Input(), rule)
		if err != nil {
			return nil, err
		}
		given.example = requestBody(whole, field.JSONName(), inPath)
		given.schema, err = d.fieldBody(field)
		return given, err
	}
	schema, err := d.schemas.object(m.Input(), elsewhere)
	switch {
	case err != nil:
		return nil, err
	case schema.get("properties") == nil:
		return &body{schema: object{{"type", "object"}}, example: object{}}, nil
	case len(elsewhere) == 0:
		given.schema, err = d.schemas.ref(m.Input())
		return given, err
	}
	name := m.name + "Body"
	d.schemas.named[name] = schema
	given.schema = schemaRef(name)
	return given, nil
}

// fieldBody returns the schema of a body that is one field of the request. Rules on
// fields in the path don't apply to it.
func (d *document) fieldBody(field protoreflect.FieldDescriptor) (object, error) {
	if field.Message() != nil && !field.IsList() && !field.IsMap() {
		return d.schemas.ref(field.Message())
	}
	schema, _, err := d.schemas.field(field)
	return schema, err
}

// fieldParameter returns the parameter for a field in the path or the query.
func (d *document) fieldParameter(field protoreflect.FieldDescriptor, name, in string) (object, error) {
	if !inURL(field) {
		return nil, fmt.Errorf("%s can't be given in a %s", field.FullName(), in)
	}
	schema, needed, err := d.schemas.field(field)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", field.FullName(), err)
	}
	example, err := d.schemas.scalarExample(field)
	if err != nil {
		return nil, err
	}
	text, _ := schema.get("description").(string)
	parameter := object{{"name", name}, {"in", in}, {"description", cmp.Or(text, words(string(field.Name()))+".")}}
	if needed || in == "path" {
		parameter.set("required", true)
	}
	parameter.set("schema", schema.without("description", "examples", "readOnly"))
	// What an example of an optional query asks for may not be there.
	if (in == "path" || needed) && example != nil {
		parameter.set("example", example)
	}
	return parameter, nil
}
