package chart

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"k8s.io/client-go/openapi/openapitest"
	"sigs.k8s.io/yaml"
)

// schemas finds the schema of a kind in the documents of the API: the OpenAPI of the groups
// that client-go has it of, and the definitions of the Gateway API.
type schemas struct {
	compiler *jsonschema.Compiler
	places   map[string]string // by apiVersion and kind
	compiled map[string]*jsonschema.Schema
}

var loadSchemas = sync.OnceValues(func() (*schemas, error) {
	s := &schemas{compiler: jsonschema.NewCompiler(), places: map[string]string{}, compiled: map[string]*jsonschema.Schema{}}
	paths, err := openapitest.NewEmbeddedFileClient().Paths()
	if err != nil {
		return nil, err
	}
	for path, group := range paths {
		text, err := group.Schema("application/json")
		if err != nil {
			return nil, err
		}
		if err := s.addOpenAPI("https://api.invalid/"+path, text); err != nil {
			return nil, fmt.Errorf("read the OpenAPI of %s: %w", path, err)
		}
	}
	folder, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/gateway-api").Output()
	if err != nil {
		return nil, err
	}
	return s, s.addDefinition(filepath.Join(strings.TrimSpace(string(folder)), "config/crd/standard/gateway.networking.k8s.io_httproutes.yaml"))
})

func (s *schemas) addOpenAPI(at string, text []byte) error {
	document, err := jsonschema.UnmarshalJSON(strings.NewReader(string(text)))
	if err != nil {
		return err
	}
	components := document.(map[string]any)["components"].(map[string]any)["schemas"].(map[string]any)
	for name, component := range components {
		kinds, _ := component.(map[string]any)["x-kubernetes-group-version-kind"].([]any)
		for _, kind := range kinds {
			of := kind.(map[string]any)
			version := strings.TrimPrefix(fmt.Sprintf("%s/%s", of["group"], of["version"]), "/")
			s.places[version+" "+of["kind"].(string)] = at + "#/components/schemas/" + name
		}
	}
	return s.compiler.AddResource(at, document)
}

func (s *schemas) addDefinition(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var definition struct {
		Spec struct {
			Group    string
			Names    struct{ Kind string }
			Versions []struct {
				Name   string
				Schema struct{ OpenAPIV3Schema json.RawMessage }
			}
		}
	}
	if err := yaml.Unmarshal(text, &definition); err != nil {
		return err
	}
	for _, version := range definition.Spec.Versions {
		document, err := jsonschema.UnmarshalJSON(strings.NewReader(string(version.Schema.OpenAPIV3Schema)))
		if err != nil {
			return err
		}
		at := "https://api.invalid/" + definition.Spec.Group + "/" + version.Name
		s.places[definition.Spec.Group+"/"+version.Name+" "+definition.Spec.Names.Kind] = at
		if err := s.compiler.AddResource(at, document); err != nil {
			return err
		}
	}
	return nil
}

// check checks an object against the schema of its kind, and reports whether there is one.
func (s *schemas) check(text string) (known bool, err error) {
	encoded, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		return false, err
	}
	object, err := jsonschema.UnmarshalJSON(strings.NewReader(string(encoded)))
	if err != nil {
		return false, err
	}
	fields := object.(map[string]any)
	kind := fmt.Sprintf("%s %s", fields["apiVersion"], fields["kind"])
	place, known := s.places[kind]
	if !known {
		return false, nil
	}
	if s.compiled[kind] == nil {
		if s.compiled[kind], err = s.compiler.Compile(place); err != nil {
			return true, err
		}
	}
	return true, s.compiled[kind].Validate(object)
}

// Each object has what the API's own documents require, as far as published modules have
// these documents. make check-kubernetes asks an API server about all of it.
func TestTheObjectsMeetTheSchemasOfTheAPI(t *testing.T) {
	documents, err := loadSchemas()
	if err != nil {
		t.Fatal(err)
	}
	checked := map[string]int{}
	eachSet(t, func(t *testing.T, one installation) {
		for _, text := range one.texts {
			known, err := documents.check(text)
			if err != nil {
				t.Errorf("%v\n%s", err, text)
			}
			if known {
				checked[kindOf(text)]++
			}
		}
	})
	for _, kind := range []string{"ConfigMap", "Deployment", "HTTPRoute", "Job", "Service", "ServiceAccount"} {
		if checked[kind] == 0 {
			t.Errorf("no %s was checked", kind)
		}
	}
}

func kindOf(text string) string {
	var object struct{ Kind string }
	if err := yaml.Unmarshal([]byte(text), &object); err != nil {
		return err.Error()
	}
	return object.Kind
}
