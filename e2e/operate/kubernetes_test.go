package operate

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/pgtest"
	"gatehouse/internal/schema"
)

// workload is what a Job or a Deployment runs.
type workload struct {
	Kind     string
	Metadata struct{ Name string }
	Spec     struct {
		Template struct {
			Spec struct {
				Containers []container
				Volumes    []volume
			}
		}
	}
}

type container struct {
	Args         []string
	Env          []struct{ Name, Value string }
	VolumeMounts []struct {
		Name string
		Path string `yaml:"mountPath"`
	} `yaml:"volumeMounts"`
	StartupProbe   *probe `yaml:"startupProbe"`
	LivenessProbe  *probe `yaml:"livenessProbe"`
	ReadinessProbe *probe `yaml:"readinessProbe"`
}

type probe struct {
	HTTPGet struct{ Path, Port string } `yaml:"httpGet"`
}

type volume struct {
	Name      string
	Projected struct {
		Sources []struct {
			Secret struct {
				Name  string
				Items []struct{ Key, Path string }
			}
		}
	}
}

// The manifests of Kubernetes, less their containers: the Job of the schema and the roles
// run with the commands, settings, mounted secrets and probes that stand there, and
// somebody signs in. Only addresses and folders are others.
func TestTheKubernetesManifestsWorkTogether(t *testing.T) {
	t.Parallel()
	secrets := kubernetesSecrets(t)
	jobs, roles := workloads(t, "deploy/kubernetes/schema.yaml"), workloads(t, "deploy/kubernetes/gatehouse.yaml")
	at := map[string]string{} // by the URL of a Service
	listens := map[string]string{}
	for _, role := range roles {
		listens[role.Metadata.Name] = harness.FreeAddress(t)
		at["http://"+role.Metadata.Name+role.setting("GATEHOUSE_LISTEN")] = "http://" + listens[role.Metadata.Name]
	}
	if len(jobs) != 1 || len(roles) < 3 {
		t.Fatalf("%d Jobs and %d Deployments", len(jobs), len(roles))
	}
	if status, said := harness.RunCommand(t, jobs[0].environment(t, secrets, nil, ""), jobs[0].container().Args...); status != 0 {
		t.Fatalf("%s: exit status %d: %s", jobs[0].Metadata.Name, status, said)
	}
	processes, settings := map[string]*harness.Process{}, map[string][]string{}
	for _, role := range roles {
		name := role.Metadata.Name
		settings[name] = role.environment(t, secrets, at, listens[name])
		processes[name] = harness.StartProcess(t, settings[name], role.container().Args...)
	}
	for _, role := range roles {
		name := role.Metadata.Name
		for _, one := range []*probe{role.container().StartupProbe, role.container().LivenessProbe, role.container().ReadinessProbe} {
			harness.Eventually(t, 60*time.Second, fmt.Sprintf("answer %s of %s", one.HTTPGet.Path, name), func() error {
				if processes[name].HasEnded() {
					t.Fatalf("%s ended: %s%s", name, processes[name].Stdout.String(), processes[name].Stderr.String())
				}
				response, err := http.Get("http://" + listens[name] + one.HTTPGet.Path)
				if err != nil {
					return err
				}
				defer response.Body.Close()
				if response.StatusCode != http.StatusOK {
					return errors.New(response.Status)
				}
				return nil
			})
		}
	}

	// As the guide does it, in a pod of auth.
	inPod := append(settings["gatehouse-auth"], "GATEHOUSE_NEW_PASSWORD="+harness.AdminPassword)
	if status, said := harness.RunCommand(t, inPod, "admin", "create", harness.AdminEmail); status != 0 {
		t.Fatalf("admin create: exit status %d: %s", status, said)
	}
	admin := (&harness.System{URL: "http://" + listens["gatehouse-bff"]}).Admin(t)
	harness.Eventually(t, 10*time.Second, "see the administrator's account and profile", func() error {
		me, err := admin.Client().Account.GetMe(t.Context(), &bffv1.GetMeRequest{})
		if err == nil && len(me.GetErrors()) > 0 {
			err = fmt.Errorf("parts are missing: %v", me.GetErrors())
		}
		return err
	})
}

// kubernetesSecrets are the two Secrets of docs/how-to/kubernetes.md, by SECRET/KEY, for a
// new database.
func kubernetesSecrets(t *testing.T) map[string]string {
	t.Helper()
	owner := pgtest.Empty(t)
	parsed, err := url.Parse(owner)
	if err != nil {
		t.Fatal(err)
	}
	secrets := map[string]string{
		"gatehouse-owner/DATABASE_URL":     owner,
		"gatehouse/GATEHOUSE_SECRET_KEY":   strings.Repeat("ab", 32),
		"gatehouse/GATEHOUSE_INTERNAL_KEY": strings.Repeat("cd", 32),
	}
	services, err := pgtest.SchemaConfig(t, owner).Services()
	if err != nil {
		t.Fatal(err)
	}
	for _, service := range services {
		login, err := schema.ServiceURL(owner, schema.RoleName(parsed.Path[1:], service), "password-of-"+service)
		if err != nil {
			t.Fatal(err)
		}
		secrets["gatehouse/"+strings.ToUpper(service)+"_DATABASE_URL"] = login
	}
	return secrets
}

// workloads are the Jobs and Deployments of a file.
func workloads(t *testing.T, path string) []workload {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var found []workload
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var one workload
		if err := decoder.Decode(&one); errors.Is(err, io.EOF) {
			return found
		} else if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if one.Kind == "Job" || one.Kind == "Deployment" {
			found = append(found, one)
		}
	}
}

func (w workload) container() container { return w.Spec.Template.Spec.Containers[0] }

func (w workload) setting(name string) string {
	for _, variable := range w.container().Env {
		if variable.Name == name {
			return variable.Value
		}
	}
	return ""
}

// environment writes the secrets that the pod mounts, and returns its settings with the
// addresses of this machine.
func (w workload) environment(t *testing.T, secrets, at map[string]string, listen string) []string {
	t.Helper()
	folder := t.TempDir()
	for _, mount := range w.container().VolumeMounts {
		for _, volume := range w.Spec.Template.Spec.Volumes {
			if volume.Name != mount.Name {
				continue
			}
			for _, source := range volume.Projected.Sources {
				for _, item := range source.Secret.Items {
					value, ok := secrets[source.Secret.Name+"/"+item.Key]
					if !ok {
						t.Fatalf("%s mounts the key %s of %s, which the guide does not create", w.Metadata.Name, item.Key, source.Secret.Name)
					}
					file := filepath.Join(folder, path.Join(mount.Path, item.Path))
					if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
						t.Fatal(err)
					}
					if err := os.WriteFile(file, []byte(value+"\n"), 0o600); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	}
	var settings []string
	for _, variable := range w.container().Env {
		value := variable.Value
		switch local, isAddress := at[value]; {
		case variable.Name == "GATEHOUSE_LISTEN":
			value = listen
		case variable.Name == "GATEHOUSE_OPS_LISTEN":
			value = harness.FreeAddress(t)
		case strings.HasSuffix(variable.Name, "_FILE"):
			value = filepath.Join(folder, value)
		case isAddress:
			value = local
		case strings.HasPrefix(value, "http://"):
			t.Fatalf("%s: %s=%s leads to no Service", w.Metadata.Name, variable.Name, value)
		}
		settings = append(settings, variable.Name+"="+value)
	}
	return settings
}
