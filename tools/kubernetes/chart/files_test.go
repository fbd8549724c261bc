package chart

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// What make gen writes for the chart is current, and there is no further file among it.
func TestTheFilesOfTheChartAreCurrent(t *testing.T) {
	files := map[string][]byte{}
	for _, derive := range []func(string) (map[string][]byte, error){Copies, Derived, Plain} {
		some, err := derive(root)
		if err != nil {
			t.Fatal(err)
		}
		maps.Copy(files, some)
	}
	for path, want := range files {
		if got, err := os.ReadFile(filepath.Join(root, path)); err != nil || string(got) != string(want) {
			t.Errorf("%s is stale: run make gen (%v)", path, err)
		}
	}
	copies, err := filepath.Glob(filepath.Join(root, Folder, "files/dashboards/*"))
	if err != nil || len(copies) < 4 {
		t.Errorf("%d dashboards: %v", len(copies), err)
	}
	for _, path := range copies {
		if files[Folder+"/files/dashboards/"+filepath.Base(path)] == nil {
			t.Errorf("%s is a copy of nothing: remove it", path)
		}
	}
}

// A value without a comment, or with a type that no schema can have, is refused.
func TestEachValueIsDocumented(t *testing.T) {
	for values, want := range map[string]string{
		"a: 1":                        "a has no comment",
		"# A.\na: 1\nb: {c: 1, d: 2}": "b has no comment",
		"b:\n  # C.\n  c: 1\n  d: 2":  "b.d has no comment",
	} {
		if _, err := describe([]byte(values)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", values, err, want)
		}
	}
	described, err := describe([]byte("# A.\na: null"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := described.schema(); err == nil {
		t.Error("null has a type")
	}
}

// kustomize builds the plain manifests and the overlay, whose patches arrive.
func TestKustomizeBuildsTheManifests(t *testing.T) {
	build := func(folder string) installation {
		t.Helper()
		built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), filepath.Join(root, folder))
		if err != nil {
			t.Fatal(err)
		}
		one := installation{}
		for _, resource := range built.Resources() {
			text, err := resource.AsYAML()
			if err != nil {
				t.Fatal(err)
			}
			decoded, err := decode(string(text))
			if err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			one.objects = append(one.objects, decoded)
		}
		return one
	}
	plain, overlay := build(Manifests), build("deploy/kubernetes-overlay")
	if want := len(install(t, minimal).objects); len(plain.objects) != want || len(overlay.objects) != want {
		t.Fatalf("%d and %d objects, want %d", len(plain.objects), len(overlay.objects), want)
	}
	for _, deployment := range of[*appsv1.Deployment](overlay) {
		pod := pod{deployment, deployment.Spec.Template}
		environment, command := pod.environment(), pod.command()
		if deployment.Namespace != "accounts" || pod.container().Image != "registry.example.com/gatehouse:1.0.0" {
			t.Errorf("%s is in %s with %s", command, deployment.Namespace, pod.container().Image)
		}
		if got := environment["GATEHOUSE_PUBLIC_URL"]; got != map[string]string{"auth": "https://login.example.org", "bff": "https://login.example.org"}[command] {
			t.Errorf("%s has the public URL %q", command, got)
		}
		if (command == "bff") != (environment["GATEHOUSE_TRUSTED_PROXIES"] != "") || (command == "bff") != (*deployment.Spec.Replicas == 4) {
			t.Errorf("%s: %d copies, %v", command, *deployment.Spec.Replicas, environment)
		}
	}
}

// The one example that is no value set names what the values with it expect. No published
// Go module has its types.
func TestTheExampleOfADatabaseFitsItsValues(t *testing.T) {
	cluster, err := Values([]byte(read(t, filepath.Join(root, Manifests, "examples/cloudnative-pg.yaml"))))
	if err != nil {
		t.Fatal(err)
	}
	values := install(t, read(t, filepath.Join(root, Examples, "cloudnative-pg.yaml"))).values
	name := cluster["metadata"].(map[string]any)["name"].(string)
	owner := values["schema"].(map[string]any)["databaseUrl"].(map[string]any)
	if owner["secret"] != name+"-app" || owner["key"] != "uri" {
		t.Errorf("the owner's URL is in %v, and the operator writes it into %s-app, uri", owner, name)
	}
	synchronous := cluster["spec"].(map[string]any)["postgresql"].(map[string]any)["synchronous"].(map[string]any)
	if synchronous["dataDurability"] != "required" || synchronous["number"].(float64) < 1 || cluster["spec"].(map[string]any)["instances"].(float64) < 3 {
		t.Errorf("a failover may lose commits: %v", synchronous)
	}
}
