package attributes

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"connectrpc.com/connect/v2"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"gatehouse/internal/fault"
)

// Schema is a JSON Schema (draft 2020-12) of both objects: it describes an object with
// the properties attributes and app_attributes.
type Schema struct{ compiled *jsonschema.Schema }

// SchemaError is a mistake in a schema's document.
type SchemaError struct {
	Line, Column int
	// Problem is the mistake, and Fix the correction.
	Problem, Fix string
}

func (e *SchemaError) Error() string {
	return fmt.Sprintf("%d:%d: %s: %s", e.Line, e.Column, e.Problem, e.Fix)
}

const (
	draft = "https://json-schema.org/draft/2020-12/schema"
	// documentURL is what a relative $ref is relative to. Nothing is loaded from it.
	documentURL = "https://gatehouse.invalid/user-schema"
)

// Compile compiles a schema's document. Its errors are of type *[SchemaError].
func Compile(document []byte) (*Schema, error) {
	parsed, err := jsonschema.UnmarshalJSON(strings.NewReader(string(document)))
	if err != nil {
		return nil, syntaxError(document, err)
	}
	if failure := checkShape(document, parsed); failure != nil {
		return nil, failure
	}
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	compiler.AssertFormat()
	compiler.UseLoader(noLoader{})
	if err := compiler.AddResource(documentURL, parsed); err != nil {
		return nil, compileError(document, err)
	}
	compiled, err := compiler.Compile(documentURL)
	if err != nil {
		return nil, compileError(document, err)
	}
	return &Schema{compiled: compiled}, nil
}

// noLoader refuses other documents: a schema is one file.
type noLoader struct{}

var errRemote = errors.New("schemas in other documents are not loaded")

func (noLoader) Load(string) (any, error) { return nil, errRemote }

// checkShape refuses a document that does not describe the two objects.
func checkShape(document []byte, parsed any) *SchemaError {
	root, ok := parsed.(map[string]any)
	if !ok {
		return at(document, nil, "the schema is not a JSON object", `write an object with "properties": {"attributes": …, "app_attributes": …}`)
	}
	if declared, ok := root["$schema"]; ok && strings.TrimSuffix(fmt.Sprint(declared), "#") != draft {
		return at(document, []string{"$schema"}, "the draft is not 2020-12", `set "$schema" to "`+draft+`", or leave it out`)
	}
	properties, _ := root["properties"].(map[string]any)
	for name := range properties {
		if name != Person && name != App {
			return at(document, []string{"properties", name}, fmt.Sprintf("%q is not a property of the document", name),
				`describe the person's attributes in "properties": {"attributes": …} and those of administrators in "app_attributes"`)
		}
	}
	if len(properties) == 0 {
		return at(document, nil, "neither attributes nor app_attributes is described", `add "properties": {"attributes": …, "app_attributes": …}`)
	}
	return nil
}

// violation is a place in a document that a schema refuses. It is the same before and
// after a change if its key is.
type violation struct {
	place   path
	key     string
	problem string
}

// check refuses a change that causes a violation, or leaves one where it changed a
// value. Other violations were there before: the stored values are older than the
// schema.
func (s *Schema) check(before, after objects, changed []path) error {
	found, err := s.violations(after)
	if err != nil || len(found) == 0 {
		return err
	}
	known, err := s.violations(before)
	if err != nil {
		return err
	}
	found = slices.DeleteFunc(found, func(v violation) bool {
		there := slices.ContainsFunc(known, func(old violation) bool { return old.key == v.key })
		touched := slices.ContainsFunc(changed, func(place path) bool { return v.place.within(place) })
		return there && !touched
	})
	if len(found) == 0 {
		return nil
	}
	return refusal(found)
}

// maxViolations is how many violations an error lists.
const maxViolations = 10

func refusal(found []violation) error {
	if len(found) == 1 {
		return invalid(found[0].place.String(), found[0].problem)
	}
	details, texts := &errdetails.BadRequest{}, []string{}
	for _, v := range found[:min(len(found), maxViolations)] {
		details.FieldViolations = append(details.FieldViolations, &errdetails.BadRequest_FieldViolation{
			Field: v.place.String(), Description: v.problem, Reason: fault.ReasonAttributes,
		})
		texts = append(texts, v.place.String()+": "+v.problem)
	}
	return fault.WithDetail(fault.New(connect.CodeInvalidArgument, fault.ReasonAttributes, strings.Join(texts, "; ")), details)
}

// violations returns what the schema refuses, by place.
func (s *Schema) violations(o objects) ([]violation, error) {
	pair, err := o.text()
	if err != nil {
		return nil, err
	}
	// The validator computes with the decimal numbers of the text.
	instance, err := jsonschema.UnmarshalJSON(strings.NewReader(fmt.Sprintf(`{%q:%s,%q:%s}`, Person, pair.Person, App, pair.App)))
	if err != nil {
		return nil, fmt.Errorf("decode the attributes: %w", err)
	}
	failure := s.compiled.Validate(instance)
	if failure == nil {
		return nil, nil
	}
	refused, ok := errors.AsType[*jsonschema.ValidationError](failure)
	if !ok {
		return nil, fmt.Errorf("validate the attributes: %w", failure)
	}
	var found []violation
	collect(refused, &found)
	slices.SortFunc(found, func(a, b violation) int { return strings.Compare(a.key, b.key) })
	return slices.CompactFunc(found, func(a, b violation) bool { return a.key == b.key }), nil
}

// collect adds the innermost violations, which have no more specific cause.
func collect(refused *jsonschema.ValidationError, found *[]violation) {
	for _, cause := range refused.Causes {
		collect(cause, found)
	}
	if len(refused.Causes) > 0 {
		return
	}
	add := func(problem, detail string, below ...string) {
		place := append(slices.Clone(path(refused.InstanceLocation)), below...)
		keyword := strings.Join(refused.ErrorKind.KeywordPath(), "/")
		*found = append(*found, violation{place: place, problem: problem, key: strings.Join([]string{place.String(), refused.SchemaURL, keyword, detail}, "\x00")})
	}
	switch what := refused.ErrorKind.(type) {
	case *kind.Required:
		for _, name := range what.Missing {
			add("is required", "", name)
		}
	case *kind.AdditionalProperties:
		for _, name := range what.Properties {
			add("is not a key that the schema knows", "", name)
		}
	case *kind.DependentRequired:
		for _, name := range what.Missing {
			add(fmt.Sprintf("is required with %s", what.Prop), what.Prop, name)
		}
	default:
		add(problemOf(refused.ErrorKind), "")
	}
}

// problemOf returns a sentence about a keyword that refused a value. The library's own
// text would contain the value.
func problemOf(what jsonschema.ErrorKind) string {
	switch what := what.(type) {
	case *kind.Type:
		return "must be of type " + strings.Join(what.Want, " or ")
	case *kind.Enum:
		return "must be one of the values that the schema lists"
	case *kind.Format:
		return "must be a valid " + what.Want
	case *kind.Pattern:
		return fmt.Sprintf("must match the pattern %s", what.Want)
	case *kind.MinLength:
		return fmt.Sprintf("must have at least %d characters", what.Want)
	case *kind.MaxLength:
		return fmt.Sprintf("must have at most %d characters", what.Want)
	case *kind.MinItems:
		return fmt.Sprintf("must have at least %d items", what.Want)
	case *kind.MaxItems:
		return fmt.Sprintf("must have at most %d items", what.Want)
	case *kind.MinProperties:
		return fmt.Sprintf("must have at least %d keys", what.Want)
	case *kind.MaxProperties:
		return fmt.Sprintf("must have at most %d keys", what.Want)
	case *kind.Minimum:
		return "must be at least " + what.Want.RatString()
	case *kind.Maximum:
		return "must be at most " + what.Want.RatString()
	case *kind.FalseSchema:
		return "is not allowed by the schema"
	}
	keyword := strings.Join(what.KeywordPath(), "/")
	if keyword == "" {
		keyword = "not"
	}
	return fmt.Sprintf("does not satisfy the schema's %q", keyword)
}
