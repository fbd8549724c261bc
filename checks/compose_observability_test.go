package checks

import (
	"fmt"
	"maps"
	"net/url"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"
	"go.yaml.in/yaml/v3"

	"gatehouse/app"
	"gatehouse/checks/composefile"
)

const observabilityFile = "compose.observability.yaml"

// added are the services that compose.observability.yaml adds, with the port that each
// publishes.
var added = map[string]string{"collector": "", "jaeger": "127.0.0.1:16686", "prometheus": "127.0.0.1:9090", "grafana": "127.0.0.1:3000"}

// TestObservabilityChangesTwoSettings checks that the file gives each service an
// operators' listener and a collector, and changes nothing else of compose.yaml.
func TestObservabilityChangesTwoSettings(t *testing.T) {
	t.Parallel()
	alone, both := composefile.FreshPair(t, observabilityFile)
	ours := map[string]bool{}
	for _, service := range app.Services() {
		ours[service.Name] = true
	}
	for name, before := range alone.Services {
		after := both.Services[name]
		if ours[name] {
			if !slices.Contains(settingsOf(t, after.Command), "GATEHOUSE_OPS_LISTEN") {
				t.Errorf("gatehouse %v does not read GATEHOUSE_OPS_LISTEN", after.Command)
			}
			for _, setting := range []string{"GATEHOUSE_OPS_LISTEN", "OTEL_EXPORTER_OTLP_ENDPOINT"} {
				without, with := before.Environment[setting], after.Environment[setting]
				if without == nil || *without != "" || with == nil || *with == "" {
					t.Errorf("%s: %s is %v without %s, want it empty, and %v with it, want a value", name, setting, without, observabilityFile, with)
				}
				delete(before.Environment, setting)
				delete(after.Environment, setting)
			}
		}
		if !reflect.DeepEqual(before, after) {
			t.Errorf("%s is\n%+v\nand was\n%+v", name, after, before)
		}
	}
	if got, want := len(both.Services), len(alone.Services)+len(added); got != want {
		t.Errorf("%d services, want %d", got, want)
	}
}

// TestObservabilityIsWired checks that each address in the files leads to a service that
// listens there.
func TestObservabilityIsWired(t *testing.T) {
	t.Parallel()
	_, project := composefile.FreshPair(t, observabilityFile)
	var targets []struct{ Targets []string }
	prometheus := project.Services["prometheus"]
	i := slices.IndexFunc(prometheus.Volumes, func(v types.ServiceVolumeConfig) bool { return v.Target == "/etc/gatehouse/targets.yaml" })
	if i < 0 {
		t.Fatalf("Prometheus mounts %+v, want its targets", prometheus.Volumes)
	}
	readYAML(t, prometheus.Volumes[i].Source, &targets)
	if len(targets) != 1 {
		t.Fatalf("the targets are %v", targets)
	}
	if text, err := os.ReadFile(prometheus.Volumes[i].Source); err != nil || string(text) != app.ComposeTargets() {
		t.Errorf("%s is stale: run make gen (%v)", prometheus.Volumes[i].Source, err)
	}
	var want []string
	for _, service := range app.Services() {
		environment := project.Services[service.Name].Environment
		want = append(want, service.Name+*environment["GATEHOUSE_OPS_LISTEN"])
		if got := *environment["OTEL_EXPORTER_OTLP_ENDPOINT"]; got != "http://collector:4318" {
			t.Errorf("%s sends traces to %s", service.Name, got)
		}
	}
	if !slices.Equal(targets[0].Targets, want) {
		t.Errorf("Prometheus scrapes %q, want %q", targets[0].Targets, want)
	}

	var collector struct {
		Receivers map[string]struct {
			Protocols map[string]struct{ Endpoint string }
		}
		Processors, Exporters map[string]struct{ Endpoint string }
		Service               struct {
			Pipelines map[string]struct{ Receivers, Processors, Exporters []string }
		}
	}
	readYAML(t, observability+"collector.yaml", &collector)
	traces := collector.Service.Pipelines["traces"]
	if got := collector.Receivers["otlp"].Protocols["http"].Endpoint; got != "0.0.0.0:4318" || !slices.Equal(traces.Receivers, []string{"otlp"}) {
		t.Errorf("the collector receives traces by %q at %q", traces.Receivers, got)
	}
	for _, name := range traces.Processors {
		if _, ok := collector.Processors[name]; !ok {
			t.Errorf("the collector has no processor %s", name)
		}
	}
	for _, name := range traces.Exporters {
		if got := collector.Exporters[name].Endpoint; got != "jaeger:4317" {
			t.Errorf("the collector exports traces to %q", got)
		}
	}
}

// TestGrafanaFindsItsFiles checks that the data sources lead to services, and that
// Grafana's paths exist in the folder that it mounts.
func TestGrafanaFindsItsFiles(t *testing.T) {
	t.Parallel()
	_, project := composefile.FreshPair(t, observabilityFile)
	var sources struct {
		Datasources []struct{ UID, Type, URL string }
	}
	readYAML(t, observability+"grafana/datasources/gatehouse.yaml", &sources)
	for _, source := range sources.Datasources {
		to, err := url.Parse(source.URL)
		if err != nil || !strings.HasSuffix(added[to.Hostname()], ":"+to.Port()) || to.Hostname() != source.Type || source.UID != source.Type {
			t.Errorf("the data source %+v does not lead to a service: %v", source, err)
		}
	}
	var providers struct {
		Providers []struct{ Options struct{ Path string } }
	}
	readYAML(t, observability+"grafana/dashboards/gatehouse.yaml", &providers)
	grafana := project.Services["grafana"]
	mounted := slices.IndexFunc(grafana.Volumes, func(v types.ServiceVolumeConfig) bool {
		return v.Target == "/etc/gatehouse" && strings.HasSuffix(v.Source+"/", "/"+observability)
	})
	if mounted < 0 {
		t.Errorf("Grafana mounts %+v, want %s", grafana.Volumes, observability)
	}
	for _, path := range []string{
		*grafana.Environment["GF_PATHS_PROVISIONING"] + "/datasources/gatehouse.yaml",
		*grafana.Environment["GF_PATHS_PROVISIONING"] + "/dashboards/gatehouse.yaml",
		*grafana.Environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"],
		providers.Providers[0].Options.Path + "/overview.json",
	} {
		below, ok := strings.CutPrefix(path, "/etc/gatehouse/")
		if _, err := os.Stat(observability + below); !ok || err != nil {
			t.Errorf("Grafana reads %s: %v", path, err)
		}
	}
}

func readYAML(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// TestObservabilityIsConfined checks that the added services are published on this
// machine only, have no capability, write to no image, and reach no database.
func TestObservabilityIsConfined(t *testing.T) {
	t.Parallel()
	_, project := composefile.FreshPair(t, observabilityFile)
	for name, want := range added {
		service := project.Services[name]
		published := ""
		for _, port := range service.Ports {
			published += port.HostIP + ":" + port.Published
			if fmt.Sprint(port.Target) != port.Published {
				t.Errorf("%s publishes its port %d as %s", name, port.Target, port.Published)
			}
		}
		if published != want {
			t.Errorf("%s is published on %q, want %q", name, published, want)
		}
		if !service.ReadOnly || !slices.Equal(service.CapDrop, []string{"ALL"}) || !slices.Contains(service.SecurityOpt, "no-new-privileges:true") || service.Privileged {
			t.Errorf("%s: read_only %t, cap_drop %q, security_opt %q, privileged %t", name, service.ReadOnly, service.CapDrop, service.SecurityOpt, service.Privileged)
		}
		if got := slices.Collect(maps.Keys(service.Networks)); !slices.Equal(got, []string{"default"}) {
			t.Errorf("%s is in the networks %q", name, got)
		}
		if !regexp.MustCompile(`:v?\d+\.\d+\.\d+$`).MatchString(service.Image) || service.Restart != types.RestartPolicyUnlessStopped {
			t.Errorf("%s has the image %s and the restart policy %q", name, service.Image, service.Restart)
		}
		for _, mount := range service.Volumes {
			if _, err := os.Stat(mount.Source); mount.Type == types.VolumeTypeBind && (err != nil || !mount.ReadOnly) {
				t.Errorf("%s mounts %s, read-only: %t: %v", name, mount.Source, mount.ReadOnly, err)
			}
		}
	}
}
