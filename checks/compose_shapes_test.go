package checks

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"

	"gatehouse/app"
	"gatehouse/checks/composefile"
)

const (
	serveFile = "compose.serve.yaml"
	scaleFile = "compose.scale.yaml"
)

// shapes are the published ports of each file that stands alone.
var shapes = map[string]map[string]string{
	serveFile: {"serve": "127.0.0.1:8001", "mailpit": "127.0.0.1:8025"},
	scaleFile: {"haproxy": "127.0.0.1:8001", "mailpit": "127.0.0.1:8025"},
}

// Each file passes each setting that its services read, from .env or as it needs it, and no
// other one.
func TestComposePassesEachSetting(t *testing.T) {
	t.Parallel()
	_, secrets := composefile.NewEnvScript(t).Run(t)
	for _, path := range []string{"compose.yaml", serveFile, scaleFile} {
		for name, service := range composefile.FreshFile(t, path).Services {
			if service.Image != composefile.Image {
				continue
			}
			reads := settingsOf(t, service.Command)
			for _, setting := range reads {
				given := service.Environment[setting] != nil
				// The schema is applied with the URLs of the file alone.
				if reason := app.ComposeLeftOut(setting); !given && reason == "" && name != "schema" {
					t.Errorf("%s: %s is not given %s: pass it, or add it to composeLeftOut with a reason", path, name, setting)
				}
			}
			for setting, value := range service.Environment {
				if !slices.Contains(reads, setting) && !strings.HasPrefix(setting, "OTEL_") {
					t.Errorf("%s: %s is given %s, which gatehouse %s does not read", path, name, setting, strings.Join(service.Command, " "))
				}
				if _, optional := secrets[setting]; *value == "" && !optional {
					t.Errorf("%s: %s is given no value for %s, and .env has no line for it", path, name, setting)
				}
			}
			for _, setting := range []string{"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_HEADERS"} {
				if name != "schema" && service.Environment[setting] == nil {
					t.Errorf("%s: %s is not given %s", path, name, setting)
				}
			}
		}
	}
}

// What .env says reaches the services, in each file.
func TestComposePassesTheValuesOfEnv(t *testing.T) {
	t.Parallel()
	_, secrets := composefile.NewEnvScript(t).Run(t)
	values := map[string]string{
		"GATEHOUSE_OPS_LISTEN": ":9001", "GATEHOUSE_OPS_HOSTS": "metrics.example.com", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector.example.com:4318",
		"GATEHOUSE_PASSKEYS": "off", "GATEHOUSE_BRAND": "/etc/gatehouse/bff/brand", "GATEHOUSE_PROVIDERS": "/etc/gatehouse/auth/providers.yaml",
		"GATEHOUSE_SESSION_IDLE": "7d", "GATEHOUSE_LOG_LEVEL": "warn",
	}
	maps.Copy(secrets, values)
	for _, path := range []string{"compose.yaml", serveFile, scaleFile} {
		passed := map[string]bool{}
		for name, service := range composefile.LoadFile(t, path, secrets).Services {
			if service.Image != composefile.Image {
				continue
			}
			for setting, value := range service.Environment {
				if want, ok := values[setting]; ok {
					if passed[setting] = true; *value != want {
						t.Errorf("%s: %s is given %s=%s, want %s", path, name, setting, *value, want)
					}
				}
			}
		}
		if len(passed) != len(values) {
			t.Errorf("%s passes %q of %q", path, slices.Sorted(maps.Keys(passed)), slices.Sorted(maps.Keys(values)))
		}
	}
}

// Each file or folder that a setting names is in the container of the service that reads it, at
// one path in each file, and in that of no other service.
func TestComposeMountsTheFilesOfSettings(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("deploy/compose/files/README.md")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile(`(?m)^([A-Z_]+)=(/etc/gatehouse/(\w+)/\S+)$`).FindAllStringSubmatch(string(readme), -1)
	if len(named) < 6 {
		t.Fatalf("the README names %d settings", len(named))
	}
	mounted := func(service types.ServiceConfig, path string) bool {
		return slices.ContainsFunc(service.Volumes, func(v types.ServiceVolumeConfig) bool {
			if !strings.HasPrefix(path, v.Target+"/") || !v.ReadOnly {
				return false
			}
			folder := filepath.Join(v.Source, filepath.Dir(strings.TrimPrefix(path, v.Target)))
			info, err := os.Stat(folder)
			return err == nil && info.IsDir()
		})
	}
	for _, path := range []string{"compose.yaml", serveFile, scaleFile} {
		project := composefile.FreshFile(t, path)
		for _, one := range named {
			setting, file, reader := one[1], one[2], one[3]
			for name, service := range project.Services {
				want := name == reader || name == "serve"
				if got := mounted(service, file); got != want {
					t.Errorf("%s: %s sees %s: %t, want %t", path, name, file, got, want)
				}
				if want && service.Environment[setting] == nil {
					t.Errorf("%s: %s is not given %s", path, name, setting)
				}
			}
		}
	}
}

func TestComposeShapesAreConfinedAndWatched(t *testing.T) {
	t.Parallel()
	for path, published := range shapes {
		project := composefile.FreshFile(t, path)
		for name, service := range project.Services {
			var got []string
			for _, port := range service.Ports {
				got = append(got, port.HostIP+":"+port.Published)
			}
			if strings.Join(got, " ") != published[name] {
				t.Errorf("%s: %s is published on %q, want %q", path, name, got, published[name])
			}
			if !service.ReadOnly || !slices.Equal(service.CapDrop, []string{"ALL"}) || !slices.Contains(service.SecurityOpt, "no-new-privileges:true") || service.Privileged {
				t.Errorf("%s: %s: read_only %t, cap_drop %q, security_opt %q", path, name, service.ReadOnly, service.CapDrop, service.SecurityOpt)
			}
			if name != "schema" && (service.Restart != types.RestartPolicyUnlessStopped || service.HealthCheck == nil) {
				t.Errorf("%s: %s has the restart policy %q and the health check %v", path, name, service.Restart, service.HealthCheck)
			}
			for _, mount := range service.Volumes {
				if _, err := os.Stat(mount.Source); mount.Type == types.VolumeTypeBind && (err != nil || !mount.ReadOnly) {
					t.Errorf("%s: %s mounts %s, read-only: %t: %v", path, name, mount.Source, mount.ReadOnly, err)
				}
			}
			if _, reached := service.Networks["default"]; !reached && len(service.Ports) > 0 {
				t.Errorf("%s: %s publishes a port from an internal network", path, name)
			}
		}
		if !project.Networks["database"].Internal {
			t.Errorf("%s: Postgres is reached from outside", path)
		}
	}
}

func TestComposeScaleHasTwoOfEach(t *testing.T) {
	t.Parallel()
	project := composefile.FreshFile(t, scaleFile)
	for _, service := range app.Services() {
		composed := project.Services[service.Name]
		if composed.Deploy == nil || composed.Deploy.Replicas == nil || *composed.Deploy.Replicas != 2 {
			t.Errorf("%s has not two containers: %+v", service.Name, composed.Deploy)
		}
		// Each URL leads to the primary, whichever server that is, or to the standby.
		for setting, value := range composed.Environment {
			at := "@postgres:5432,standby:5432/gatehouse?sslmode=disable&target_session_attrs=read-write"
			if strings.HasSuffix(setting, "_READ_DATABASE_URL") {
				at = "@standby:5432,postgres:5432/gatehouse?sslmode=disable&target_session_attrs=prefer-standby"
			}
			if strings.HasSuffix(setting, "DATABASE_URL") && !strings.HasSuffix(*value, at) {
				t.Errorf("%s: %s is %q, want one that ends in %q", service.Name, setting, *value, at)
			}
		}
	}
	bff := project.Services["bff"]
	if got := bff.Environment["REDIS_URL"]; got == nil || *got != "redis://valkey:6379" {
		t.Errorf("the gateways share no rates through valkey: REDIS_URL is %v", got)
	}
	if got := bff.Environment["GATEHOUSE_TRUSTED_PROXIES"]; got == nil || *got == "" {
		t.Error("all callers have the load balancer's address")
	}
	cfg, err := os.ReadFile("deploy/compose/haproxy.cfg")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`(?m)^    server-template bff \d+ bff` + *bff.Environment["GATEHOUSE_LISTEN"] + `$`, `(?m)^    bind :8001$`, `set-header X-Forwarded-For %\[src\]`, `httpchk GET /readyz`} {
		if !regexp.MustCompile(want).Match(cfg) {
			t.Errorf("haproxy.cfg has no %s", want)
		}
	}
	// Clients wait and try again after an answer of HAProxy itself, as after one of Gatehouse.
	for _, status := range []string{"502", "503", "504"} {
		file := regexp.MustCompile(`(?m)^    errorfile ` + status + ` (\S+)$`).FindSubmatch(cfg)
		if file == nil {
			t.Errorf("haproxy.cfg has no errorfile for %s", status)
			continue
		}
		i := slices.IndexFunc(project.Services["haproxy"].Volumes, func(v types.ServiceVolumeConfig) bool { return v.Target == string(file[1]) })
		if i < 0 {
			t.Errorf("haproxy reads %s, which it does not mount", file[1])
			continue
		}
		if answer, err := os.ReadFile(project.Services["haproxy"].Volumes[i].Source); err != nil || !strings.Contains(string(answer), "\nRetry-After: ") {
			t.Errorf("the answer of HAProxy for %s has no Retry-After (%v): %s", status, err, answer)
		}
	}
	for service, on := range map[string][]string{"schema": {"postgres", "standby"}, "standby": {"postgres"}, "haproxy": {"bff"}} {
		if got := slices.Sorted(maps.Keys(project.Services[service].DependsOn)); !slices.Equal(got, on) {
			t.Errorf("%s waits for %q, want %q", service, got, on)
		}
	}
}

// Mail holds links that sign people in, and a page that points its own name at this machine
// reads what asks for no password.
func TestTheMailboxAsksForAPasswordAndReceivesTheMail(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"compose.yaml", serveFile, scaleFile} {
		project := composefile.FreshFile(t, path)
		mailpit := project.Services["mailpit"].Environment
		if login := mailpit["MP_UI_AUTH"]; login == nil || !regexp.MustCompile(`^mailpit:[0-9a-f]{64}$`).MatchString(*login) {
			t.Errorf("%s: the mailbox asks for no password", path)
		}
		sender := project.Services["auth"]
		if path == serveFile {
			sender = project.Services["serve"]
		}
		if got, want := *sender.Environment["SMTP_URL"], "smtp://mailpit"+strings.TrimPrefix(*mailpit["MP_SMTP_BIND_ADDR"], "0.0.0.0")+"?tls=none"; got != want {
			t.Errorf("%s: mail goes to %s, want %s", path, got, want)
		}
	}
}
