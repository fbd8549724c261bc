package chart

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	k8slabels "k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/kubernetes/scheme"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"
)

const root = "../../.."

// strict decodes objects, and refuses fields that their types do not have.
var strict = func() runtime.Decoder {
	all := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{scheme.AddToScheme, monitoringv1.AddToScheme, gatewayv1.Install} {
		if err := add(all); err != nil {
			panic(err)
		}
	}
	return serializer.NewCodecFactory(all, serializer.EnableStrict).UniversalDeserializer()
}()

func decode(text string) (runtime.Object, error) {
	decoded, _, err := strict.Decode([]byte(text), nil, nil)
	return decoded, err
}

// installation is a chart rendered with one set of values.
type installation struct {
	values  map[string]any
	objects []runtime.Object
	texts   []string // of the objects
}

// minimal are the default values with what they require.
const minimal = "settings: {GATEHOUSE_PUBLIC_URL: https://accounts.example.com}\n"

// valueSets are the examples, by name, and the default values.
func valueSets(t *testing.T) map[string]string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(root, Examples, "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	sets := map[string]string{"default": minimal}
	for _, path := range paths {
		sets[strings.TrimSuffix(filepath.Base(path), ".yaml")] = read(t, path)
	}
	if len(sets) < 7 {
		t.Fatalf("%d sets of values, want 7 or more", len(sets))
	}
	return sets
}

// eachSet runs a test for each set of values.
func eachSet(t *testing.T, test func(t *testing.T, one installation)) {
	sets := valueSets(t)
	for _, name := range slices.Sorted(maps.Keys(sets)) {
		t.Run(name, func(t *testing.T) { test(t, install(t, sets[name])) })
	}
}

func install(t *testing.T, text string) installation {
	t.Helper()
	values, err := Values([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	manifests, err := Render(filepath.Join(root, Folder), values)
	if err != nil {
		t.Fatal(err)
	}
	one := installation{values: values}
	for _, manifest := range manifests {
		decoded, err := decode(manifest.Text)
		if err != nil {
			t.Fatalf("%s: %v\n%s", manifest.Template, err, manifest.Text)
		}
		one.objects = append(one.objects, decoded)
		one.texts = append(one.texts, manifest.Text)
	}
	return one
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// of returns the objects of one type.
func of[T any](one installation) []T {
	var found []T
	for _, object := range one.objects {
		if typed, ok := object.(T); ok {
			found = append(found, typed)
		}
	}
	return found
}

// pod is what a Deployment or Job starts.
type pod struct {
	owner metav1.Object
	spec  corev1.PodTemplateSpec
}

func (p pod) container() corev1.Container { return p.spec.Spec.Containers[0] }

func (p pod) command() string {
	return strings.TrimSuffix(strings.Join(p.container().Args, " "), " --allow-destructive")
}

func (p pod) environment() map[string]string {
	all := map[string]string{}
	for _, variable := range p.container().Env {
		all[variable.Name] = variable.Value
	}
	return all
}

// mounted are the keys of Secrets that the pod reads, as SECRET/KEY, by the path of the file.
func (p pod) mounted() map[string]string {
	files := map[string]string{}
	for _, volume := range p.spec.Spec.Volumes {
		if volume.Projected == nil {
			continue
		}
		for _, mount := range p.container().VolumeMounts {
			if mount.Name != volume.Name {
				continue
			}
			for _, source := range volume.Projected.Sources {
				for _, item := range source.Secret.Items {
					files[mount.MountPath+"/"+item.Path] = source.Secret.Name + "/" + item.Key
				}
			}
		}
	}
	return files
}

func (p pod) port(name string) (int32, bool) {
	for _, port := range p.container().Ports {
		if port.Name == name {
			return port.ContainerPort, true
		}
	}
	return 0, false
}

func pods(one installation) []pod {
	var all []pod
	for _, deployment := range of[*appsv1.Deployment](one) {
		all = append(all, pod{deployment, deployment.Spec.Template})
	}
	for _, job := range of[*batchv1.Job](one) {
		all = append(all, pod{job, job.Spec.Template})
	}
	return all
}

// selected are the pods that a selector matches.
func selected(t *testing.T, one installation, selector *metav1.LabelSelector) []pod {
	t.Helper()
	match, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		t.Fatal(err)
	}
	var found []pod
	for _, pod := range pods(one) {
		if match.Matches(k8slabels.Set(pod.spec.Labels)) {
			found = append(found, pod)
		}
	}
	return found
}

// exists reports whether an object of a type has that name.
func exists[T metav1.Object](one installation, name string) bool {
	return slices.ContainsFunc(of[T](one), func(o T) bool { return o.GetName() == name })
}

var settingRow = regexp.MustCompile("(?m)^\\| `([A-Z_]+)` \\| `--[a-z-]+` \\| [^|]+ \\| ([^|]+) \\|")

// readers are the commands that read each setting, as the reference says.
func readers(t *testing.T) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	for _, row := range settingRow.FindAllStringSubmatch(read(t, root+"/docs/reference/settings.md"), -1) {
		for command := range strings.SplitSeq(row[2], ", ") {
			found[row[1]] = append(found[row[1]], strings.Trim(command, "`"))
		}
	}
	if len(found) < 30 {
		t.Fatalf("found %d settings in the reference", len(found))
	}
	return found
}

// custom are the services that the values define, with the settings that they read.
func custom(t *testing.T, one installation) map[string][]string {
	t.Helper()
	known := map[string]any{}
	if err := yaml.Unmarshal([]byte(read(t, filepath.Join(root, Folder, "files/services.yaml"))), &known); err != nil {
		t.Fatal(err)
	}
	found := map[string][]string{}
	services, _ := one.values["services"].(map[string]any)
	for name, service := range services {
		definition, ok := service.(map[string]any)["definition"].(map[string]any)
		if !ok {
			continue
		}
		for _, setting := range known["common"].([]any) {
			found[name] = append(found[name], setting.(string))
		}
		own, _ := definition["settings"].([]any)
		for _, setting := range own {
			found[name] = append(found[name], setting.(string))
		}
		found[name] = append(found[name], "GATEHOUSE_LISTEN", "GATEHOUSE_OPS_LISTEN", strings.ToUpper(name)+"_DATABASE_URL")
		calls, _ := definition["calls"].([]any)
		for _, call := range calls {
			found[name] = append(found[name], strings.ToUpper(call.(string))+"_URL")
		}
	}
	return found
}
