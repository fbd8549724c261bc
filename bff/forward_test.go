package bff

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// setLater are fields that are set after the message is made.
var setLater = map[string]bool{"bffv1.GetErasureResponse.services": true}

// A method of the gateway passes on every field that auth's method of the same name has
// too, in the request and in the answer. One that is forgotten is silently empty.
func TestFieldsOfTheSameNameArePassedOn(t *testing.T) {
	t.Parallel()
	set := literals(t)
	var compared int
	for name, keys := range set {
		from, to, ok := strings.Cut(name, ".")
		other := map[string]string{"authv1": "bff.v1.", "bffv1": "auth.v1."}[from]
		if !ok || other == "" || from == "authv1" && !strings.HasSuffix(to, "Request") || from == "bffv1" && !strings.HasSuffix(to, "Response") {
			continue
		}
		made, source := message(strings.TrimSuffix(from, "v1")+".v1."+to), message(other+to)
		if made == nil || source == nil {
			continue
		}
		for i := range made.Fields().Len() {
			field := made.Fields().Get(i)
			if same := source.Fields().ByName(field.Name()); same == nil || same.ContainingOneof() != nil || field.ContainingOneof() != nil {
				continue
			}
			compared++
			if !keys[goName(string(field.Name()))] && !setLater[name+"."+string(field.Name())] {
				t.Errorf("%s: the field %s is not set, and %s has it too", name, field.Name(), source.FullName())
			}
		}
	}
	if compared < 50 {
		t.Errorf("%d fields were compared, want at least 50", compared)
	}
}

// literals returns the keys of the composite literals of generated messages in this
// package, by the type.
func literals(t *testing.T) map[string]map[string]bool {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]map[string]bool{}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(node ast.Node) bool {
			if literal, ok := node.(*ast.CompositeLit); ok {
				add(found, literal)
			}
			return true
		})
	}
	return found
}

func add(found map[string]map[string]bool, literal *ast.CompositeLit) {
	selector, ok := literal.Type.(*ast.SelectorExpr)
	if !ok {
		return
	}
	name := selector.X.(*ast.Ident).Name + "." + selector.Sel.Name
	if found[name] == nil {
		found[name] = map[string]bool{}
	}
	for _, element := range literal.Elts {
		if pair, ok := element.(*ast.KeyValueExpr); ok {
			if key, ok := pair.Key.(*ast.Ident); ok {
				found[name][key.Name] = true
			}
		}
	}
}

func message(name string) protoreflect.MessageDescriptor {
	found, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(name))
	if err != nil {
		return nil
	}
	return found.Descriptor()
}

// goName returns the name of a field in Go: EmailCode of email_code.
func goName(field string) string {
	var name strings.Builder
	for word := range strings.SplitSeq(field, "_") {
		name.WriteString(strings.ToUpper(word[:1]) + word[1:])
	}
	return name.String()
}
