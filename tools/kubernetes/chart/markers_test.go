package chart

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	labelrules "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"
)

// words are the values of each type of the API that its source marks with +enum, by the
// path of the package and the name of the type.
var words = sync.OnceValues(func() (map[string][]string, error) {
	listed, err := exec.Command("go", "list", "-f", "{{.ImportPath}} {{.Dir}}", "k8s.io/api/core/v1", "k8s.io/api/apps/v1", "k8s.io/api/batch/v1",
		"k8s.io/api/networking/v1", "k8s.io/api/policy/v1", "k8s.io/api/autoscaling/v2", "k8s.io/apimachinery/pkg/apis/meta/v1").Output()
	if err != nil {
		return nil, err
	}
	found := map[string][]string{}
	for line := range strings.Lines(string(listed)) {
		path, folder, _ := strings.Cut(strings.TrimSpace(line), " ")
		files, err := filepath.Glob(filepath.Join(folder, "types*.go"))
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			if err := addWords(found, path, file); err != nil {
				return nil, err
			}
		}
	}
	return found, nil
})

func addWords(found map[string][]string, path, file string) error {
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
	if err != nil {
		return err
	}
	marked, values := map[string]bool{}, map[string][]string{}
	for _, declaration := range parsed.Decls {
		general, ok := declaration.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, spec := range general.Specs {
			switch spec := spec.(type) {
			case *ast.TypeSpec:
				for _, comments := range []*ast.CommentGroup{general.Doc, spec.Doc} {
					// CommentGroup.Text leaves out markers.
					if comments != nil && slices.ContainsFunc(comments.List, func(c *ast.Comment) bool { return strings.Contains(c.Text, "+enum") }) {
						marked[spec.Name.Name] = true
					}
				}
			case *ast.ValueSpec:
				for _, value := range spec.Values {
					// Either X Type = "word", or X = Type("word").
					of := spec.Type
					if call, ok := value.(*ast.CallExpr); ok && len(call.Args) == 1 {
						of, value = call.Fun, call.Args[0]
					}
					name, typed := of.(*ast.Ident)
					if literal, ok := value.(*ast.BasicLit); ok && typed && literal.Kind == token.STRING {
						word, err := strconv.Unquote(literal.Value)
						if err != nil {
							return err
						}
						values[name.Name] = append(values[name.Name], word)
					}
				}
			}
		}
	}
	for name := range marked {
		// The constants of one type, IPFamilyPolicyType, have another one.
		if len(values[name]) > 0 {
			found[path+"."+name] = values[name]
		}
	}
	return nil
}

// obeyed returns how an object breaks what the types of the API say: a field that is always
// encoded is required, and a type marked with +enum has the values that are declared.
func obeyed(text string) error {
	object, err := decode(text)
	if err != nil {
		return err
	}
	enums, err := words()
	if err != nil {
		return err
	}
	var given any
	if err := yaml.Unmarshal([]byte(text), &given); err != nil {
		return err
	}
	var problems []error
	var walk func(path string, value reflect.Value, given any)
	walk = func(path string, value reflect.Value, given any) {
		for value.Kind() == reflect.Pointer && !value.IsNil() {
			value = value.Elem()
		}
		switch value.Kind() {
		case reflect.String:
			allowed, ok := enums[value.Type().PkgPath()+"."+value.Type().Name()]
			if ok && value.String() != "" && !slices.Contains(allowed, value.String()) {
				problems = append(problems, fmt.Errorf("%s is %q, want one of %q", path, value, allowed))
			}
		case reflect.Slice:
			items, _ := given.([]any)
			for i := range min(value.Len(), len(items)) {
				walk(fmt.Sprintf("%s[%d]", path, i), value.Index(i), items[i])
			}
		case reflect.Struct:
			fields, ok := given.(map[string]any)
			if !ok {
				return // it has an encoding of its own, such as a quantity
			}
			for i := range value.NumField() {
				name, options, _ := strings.Cut(value.Type().Field(i).Tag.Get("json"), ",")
				switch _, present := fields[name]; {
				case name == "" && value.Type().Field(i).Anonymous:
					walk(path, value.Field(i), given)
				case name == "" || name == "-":
				case present:
					walk(path+"."+name, value.Field(i), fields[name])
				case !strings.Contains(options, "omitempty") && !strings.Contains(options, "omitzero"):
					problems = append(problems, fmt.Errorf("%s.%s is required", path, name))
				}
			}
		}
	}
	walk("", reflect.ValueOf(object), given)
	problems = append(problems, named(object.(metav1.Object)))
	return errors.Join(problems...)
}

// named returns which names and labels of an object the API refuses.
func named(object metav1.Object) error {
	var problems []error
	add := func(what, name string, refused []string) {
		for _, reason := range refused {
			problems = append(problems, fmt.Errorf("the %s %q: %s", what, name, reason))
		}
	}
	add("name", object.GetName(), validation.IsDNS1123Subdomain(object.GetName()))
	for _, refused := range labelrules.ValidateLabels(object.GetLabels(), field.NewPath("labels")) {
		problems = append(problems, refused)
	}
	if service, ok := object.(*corev1.Service); ok {
		add("name", service.Name, validation.IsDNS1035Label(service.Name))
	}
	for _, pod := range pods(installation{objects: []runtime.Object{object.(runtime.Object)}}) {
		for _, refused := range labelrules.ValidateLabels(pod.spec.Labels, field.NewPath("labels of the pods")) {
			problems = append(problems, refused)
		}
		for _, variable := range pod.container().Env {
			add("variable", variable.Name, validation.IsEnvVarName(variable.Name))
		}
		for _, port := range pod.container().Ports {
			add("port", port.Name, validation.IsValidPortName(port.Name))
		}
		for _, volume := range pod.spec.Spec.Volumes {
			add("volume", volume.Name, validation.IsDNS1123Label(volume.Name))
		}
	}
	return errors.Join(problems...)
}

// Each object obeys the types of the API, and has names that it accepts.
func TestTheObjectsObeyTheTypesOfTheAPI(t *testing.T) {
	enums, err := words()
	if err != nil || len(enums) < 40 || len(enums["k8s.io/api/core/v1.Protocol"]) != 3 {
		t.Fatalf("found the values of %d types (%v), of Protocol %q", len(enums), err, enums["k8s.io/api/core/v1.Protocol"])
	}
	eachSet(t, func(t *testing.T, one installation) {
		for _, text := range one.texts {
			if err := obeyed(text); err != nil {
				t.Errorf("%v\n%s", err, text)
			}
		}
	})
}

// What an API server would refuse is found: a field that is missing, a value that is none, a
// name that is none.
func TestMistakesInTheObjectsAreFound(t *testing.T) {
	documents, err := loadSchemas()
	if err != nil {
		t.Fatal(err)
	}
	byDocuments := func(text string) error { _, err := documents.check(text); return err }
	for _, row := range []struct {
		example, kind, good, bad string
		check                    func(text string) error
		want                     string
	}{
		{"default", "Deployment", "selector:", "paused: false\n  x-selector:", byDocuments, "missing property 'selector'"},
		{"default", "Deployment", "containerPort: 8002", "hostPort: 8002", byDocuments, "missing property 'containerPort'"},
		{"default", "Deployment", "replicas: 2", "replicas: two", byDocuments, "want integer"},
		{"default", "Job", "template:", "x-template:", byDocuments, "missing property 'template'"},
		{"gateway-api", "HTTPRoute", "type: PathPrefix", "type: Prefix", byDocuments, "value must be one of"},
		{"gateway-api", "HTTPRoute", "name: public", "namespace: public", byDocuments, "missing property 'name'"},
		{"default", "NetworkPolicy", "protocol: TCP", "protocol: HTTP", obeyed, `is "HTTP", want one of`},
		{"default", "NetworkPolicy", "cidr: 0.0.0.0/0", "", obeyed, "cidr is required"},
		{"default", "Deployment", "imagePullPolicy: IfNotPresent", "imagePullPolicy: Sometimes", obeyed, `is "Sometimes"`},
		{"gateway-api", "HorizontalPodAutoscaler", "maxReplicas: 12", "", obeyed, "maxReplicas is required"},
		{"ingress", "Ingress", "pathType: Prefix", "pathType: Exactly", obeyed, `is "Exactly"`},
		{"ingress", "Ingress", "pathType: Prefix", "", obeyed, "pathType is required"},
		{"default", "Service", "name: gatehouse-", "name: Gatehouse_", obeyed, "must consist of lower case"},
		{"default", "PodDisruptionBudget", "app.kubernetes.io/component: auth", "app.kubernetes.io/component: of auth", obeyed, "valid label"},
		{"default", "Deployment", "name: ops,", "name: operators-listener,", obeyed, "no more than 15"},
		{"default", "Deployment", "name: GATEHOUSE_LISTEN,", "name: GATEHOUSE LISTEN,", obeyed, "environment variable"},
	} {
		one := install(t, valueSets(t)[row.example])
		i := slices.IndexFunc(one.texts, func(text string) bool { return kindOf(text) == row.kind && strings.Contains(text, row.good) })
		if i < 0 {
			t.Errorf("no %s has %q", row.kind, row.good)
			continue
		}
		text := strings.Replace(one.texts[i], row.good, row.bad, 1)
		if err := row.check(text); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s with %q instead of %q: got %v, want %q", row.kind, row.bad, row.good, err, row.want)
		}
	}
}
