package checks

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"

	"gatehouse/app"
	"gatehouse/checks/composefile"
)

func TestEnvScriptMakesSecretsOnce(t *testing.T) {
	t.Parallel()
	script := composefile.NewEnvScript(t)
	path, first := script.Run(t)
	if _, second := script.Run(t); !maps.Equal(first, second) {
		t.Error("a second run made other secrets: the database would refuse them")
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf(".env has the mode %v, want 0600", info.Mode())
	}
	seen := map[string]bool{}
	for name, secret := range first {
		if slices.Contains(composefile.Optional(t), name) {
			continue
		}
		if !regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString(secret) || seen[secret] {
			t.Errorf("%s is %q, want 32 bytes in hex of its own", name, secret)
		}
		seen[secret] = true
	}
}

// settingsOf returns the environment names that a command reads.
func settingsOf(t *testing.T, command []string) []string {
	t.Helper()
	parser, err := app.CommandLine()
	if err != nil {
		t.Fatal(err)
	}
	// The path alone: what parsing would make of this process's environment
	// doesn't matter.
	path, err := kong.Trace(parser, command)
	if err != nil || path.Error != nil || path.Selected() == nil {
		t.Fatalf("gatehouse has no command %q: %v", command, path.Error)
	}
	var names []string
	for _, group := range path.Selected().AllFlags(true) {
		for _, flag := range group {
			names = append(names, flag.Envs...)
		}
	}
	return names
}

func TestComposeStartsInOrderAndWatchesOverWhatRuns(t *testing.T) {
	t.Parallel()
	project := composefile.Fresh(t)
	type order struct{ service, on, condition string }
	wants := []order{
		{"schema", "postgres", types.ServiceConditionHealthy},
		{"bff", "auth", types.ServiceConditionHealthy},
		{"bff", "users", types.ServiceConditionHealthy},
		{"pgadmin", "postgres", types.ServiceConditionHealthy},
		{"pgadmin", "schema", types.ServiceConditionCompletedSuccessfully},
	}
	for _, service := range app.Services() {
		if service.HasTables() {
			wants = append(wants, order{service.Name, "schema", types.ServiceConditionCompletedSuccessfully})
		}
	}
	for _, want := range wants {
		if got := project.Services[want.service].DependsOn[want.on]; got.Condition != want.condition || !got.Required {
			t.Errorf("%s waits for %s until %q, want %q", want.service, want.on, got.Condition, want.condition)
		}
	}
	for name, service := range project.Services {
		if name == "schema" {
			if service.Restart != "" || service.HealthCheck != nil {
				t.Error("schema ends by itself: it needs neither a restart nor a health check")
			}
			continue
		}
		if service.Restart != types.RestartPolicyUnlessStopped {
			t.Errorf("%s has the restart policy %q", name, service.Restart)
		}
		check := service.HealthCheck
		if check == nil || check.Disable || len(check.Test) < 2 || check.Test[0] != "CMD" {
			t.Errorf("%s has no health check of the form CMD: %v", name, check)
			continue
		}
		if service.Image == composefile.Image && !slices.Equal(check.Test[1:], []string{composefile.Binary, "healthcheck"}) {
			t.Errorf("the health check of %s is %q", name, check.Test)
		}
	}
}

func TestComposePublishesTheGatewayPgAdminAndTheMailboxAlone(t *testing.T) {
	t.Parallel()
	project := composefile.Fresh(t)
	want := map[string]string{"bff": "127.0.0.1:8001", "pgadmin": "127.0.0.1:5050", "mailpit": "127.0.0.1:8025"}
	for name, service := range project.Services {
		var got []string
		for _, port := range service.Ports {
			got = append(got, port.HostIP+":"+port.Published)
			inside := cmp.Or(service.Environment["GATEHOUSE_LISTEN"], service.Environment["PGADMIN_LISTEN_PORT"], service.Environment["MP_UI_BIND_ADDR"])
			if inside == nil || !strings.HasSuffix(*inside, fmt.Sprint(port.Target)) {
				t.Errorf("%s publishes its port %d, but doesn't listen there", name, port.Target)
			}
		}
		if published := strings.Join(got, " "); published != want[name] {
			t.Errorf("%s is published on %q, want %q", name, published, want[name])
		}
		if service.NetworkMode != "" {
			t.Errorf("%s has the network mode %q", name, service.NetworkMode)
		}
	}
	networks := map[string][]string{
		"postgres": {"database", "pgadmin-database"},
		"schema":   {"database"},
		"pgadmin":  {"pgadmin", "pgadmin-database"},
		"mailpit":  {"default"},
	}
	for _, service := range app.Services() {
		networks[service.Name] = []string{"default"}
		if service.HasTables() {
			networks[service.Name] = []string{"database", "default"}
		}
	}
	for service, want := range networks {
		if got := slices.Sorted(maps.Keys(project.Services[service].Networks)); !slices.Equal(got, want) {
			t.Errorf("%s is in the networks %q, want %q", service, got, want)
		}
	}
	if len(project.Services) != len(networks) {
		t.Errorf("there are %d services, want %q", len(project.Services), slices.Sorted(maps.Keys(networks)))
	}
	// Postgres isn't reached from outside. A port can't be published from an
	// internal network, so those who publish one have another as well.
	for name, network := range project.Networks {
		if want := strings.HasSuffix(name, "database"); network.Internal != want {
			t.Errorf("the network %s is internal: %t, want %t", name, network.Internal, want)
		}
	}
}

// podman-compose 1.0.3 knows no empty default, no network without a body, and no configs.
func TestComposeIsReadByPodmanCompose(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"compose.yaml", observabilityFile, serveFile, scaleFile} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, unknown := range []string{`\$\{\w+:?-\}`, `(?m)^networks:\n(  .*\n)*?  [\w-]+:[ ]*(#.*)?\n(  \w|\n|\z)`, `(?m)^ *(configs|secrets|include):.*`} {
			if found := regexp.MustCompile(unknown).Find(text); found != nil {
				t.Errorf("%s has %q", path, found)
			}
		}
	}
}

func TestComposeConfinesItsContainers(t *testing.T) {
	t.Parallel()
	for name, service := range composefile.Fresh(t).Services {
		if !slices.Equal(service.CapDrop, []string{"ALL"}) || !slices.Contains(service.SecurityOpt, "no-new-privileges:true") || service.Privileged {
			t.Errorf("%s: cap_drop %q, security_opt %q, privileged %t", name, service.CapDrop, service.SecurityOpt, service.Privileged)
		}
		if !service.ReadOnly && name != "pgadmin" {
			t.Errorf("%s may write to its image", name)
		}
		if service.User != "" && (service.User == "root" || strings.HasPrefix(service.User, "0")) {
			t.Errorf("%s runs as %s", name, service.User)
		}
	}
}

func TestComposeHoldsNoSecret(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"compose.yaml", observabilityFile, serveFile, scaleFile, "Dockerfile", "deploy/env.sh", "deploy/pgadmin-servers.json"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if found := regexp.MustCompile(`(?i)[0-9a-f]{32,}|[0-9a-z+/]{40,}`).Find(text); found != nil {
			t.Errorf("%s holds %q", file, found)
		}
	}

	// Whatever is a secret comes from outside, and what is missing is said.
	_, secrets := composefile.NewEnvScript(t).Run(t)
	written, err := composefile.Load(t.Context(), secrets, cli.WithInterpolation(false))
	if err != nil {
		t.Fatal(err)
	}
	required := regexp.MustCompile(`^\$\{[A-Z_]+:\?make \.env with \./deploy/env\.sh\}$`)
	secret := regexp.MustCompile(`(KEY|PASSWORD|SECRET|TOKEN)$`)
	for name, service := range written.Services {
		for setting, value := range service.Environment {
			password := ""
			if _, rest, ok := strings.Cut(*value, "://"); ok && strings.Contains(rest, "@") {
				credentials, _, _ := strings.Cut(rest, "@")
				_, password, _ = strings.Cut(credentials, ":")
			} else if setting == "PGPASS" {
				password = (*value)[max(0, strings.LastIndex(*value, "${")):]
			} else if secret.MatchString(setting) {
				password = *value
			} else {
				continue
			}
			if !required.MatchString(password) {
				t.Errorf("%s: %s is %q, want the secret from a variable that is asked for", name, setting, *value)
			}
		}
	}
	for name := range secrets {
		if slices.Contains(composefile.Optional(t), name) {
			continue
		}
		rest := maps.Clone(secrets)
		delete(rest, name)
		if _, err := composefile.Load(t.Context(), rest); err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "deploy/env.sh") {
			t.Errorf("without %s: %v, want an error with its name and deploy/env.sh", name, err)
		}
	}
	for _, file := range []string{".gitignore", ".dockerignore"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(strings.Fields(string(text)), ".env") {
			t.Errorf("%s doesn't leave out .env", file)
		}
	}
}

func TestTheImageIsTheBinaryAlone(t *testing.T) {
	t.Parallel()
	build := composefile.Fresh(t).Services["schema"].Build
	if build == nil {
		t.Fatal("no service builds the image")
	}
	text, err := os.ReadFile(filepath.Join(build.Context, build.Dockerfile))
	if err != nil {
		t.Fatal(err)
	}
	// Stages, each from its FROM on.
	var stages [][]string
	for line := range strings.Lines(strings.ReplaceAll(string(text), "\\\n", " ")) {
		words := strings.Fields(line)
		switch {
		case len(words) == 0 || strings.HasPrefix(words[0], "#"):
			continue
		case words[0] == "FROM":
			stages = append(stages, nil)
		case words[0] == "ADD":
			t.Errorf("%s: ADD fetches and unpacks: use COPY", strings.Join(words, " "))
		case words[0] == "USER" && (words[1] == "root" || strings.HasPrefix(words[1], "0")):
			t.Errorf("%s: the image must not run as root", strings.Join(words, " "))
		case words[0] == "ARG" || words[0] == "ENV":
			if regexp.MustCompile(`(?i)key|password|secret|token`).MatchString(line) {
				t.Errorf("%s: it would stay in the image", strings.Join(words, " "))
			}
		}
		stages[len(stages)-1] = append(stages[len(stages)-1], strings.Join(words, " "))
	}
	if len(stages) != 2 {
		t.Fatalf("the Dockerfile has %d stages, want 2", len(stages))
	}

	for name, value := range build.Args {
		if value == nil || *value != "unknown" || !slices.Contains(stages[0], "ARG "+name+"="+*value) {
			t.Errorf("compose.yaml builds with %s=%v, want unknown, as in the Dockerfile", name, value)
		}
	}
	if len(build.Args) != 2 {
		t.Errorf("compose.yaml builds with %d arguments, want the commit and its time", len(build.Args))
	}

	mod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	toolchain := regexp.MustCompile(`(?m)^toolchain go(\S+)$`).FindStringSubmatch(string(mod))
	if toolchain == nil || !strings.HasSuffix(stages[0][0], " golang:"+toolchain[1]+" AS build") {
		t.Errorf("the build is %q, want go.mod's toolchain %q", stages[0][0], toolchain)
	}
	compile := stages[0][len(stages[0])-1]
	for _, want := range []string{"CGO_ENABLED=0", "-trimpath", `-ldflags "-s -w -X gatehouse/app.commit=$COMMIT -X gatehouse/app.commitTime=$COMMIT_TIME"`, "-o " + composefile.Binary + " ."} {
		if !strings.Contains(compile, want) {
			t.Errorf("%q lacks %s", compile, want)
		}
	}
	want := []string{
		"FROM gcr.io/distroless/static-debian12:nonroot",
		"COPY --from=build " + composefile.Binary + " " + composefile.Binary,
		fmt.Sprintf("ENTRYPOINT [%q]", composefile.Binary),
	}
	if !slices.Equal(stages[1], want) {
		t.Errorf("the image is made by %q, want %q", stages[1], want)
	}
}

// Nobody here builds the image, so nobody would notice a source that .dockerignore
// leaves out.
func TestTheBuildContextHoldsEverySource(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(".dockerignore")
	if err != nil {
		t.Fatal(err)
	}
	const files = `{{if and .Module .Module.Main}}{{$dir := .Dir}}{{range .GoFiles}}{{$dir}}/{{.}}{{"\n"}}{{end}}{{range .EmbedFiles}}{{$dir}}/{{.}}{{"\n"}}{{end}}{{end}}`
	listed, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", files, ".").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	root, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	sources := []string{"go.mod", "go.sum"}
	for _, file := range strings.Fields(string(listed)) {
		file, err := filepath.Rel(root, file)
		if err != nil {
			t.Fatal(err)
		}
		sources = append(sources, file)
	}
	if !slices.Contains(sources, "schema.sql") || !slices.Contains(sources, filepath.Join("auth", "auth.go")) {
		t.Fatalf("go list found %q only", sources)
	}
	for pattern := range strings.Lines(string(text)) {
		pattern = strings.TrimSpace(pattern)
		if pattern == "" || strings.HasPrefix(pattern, "#") {
			continue
		}
		pattern, anywhere := strings.CutPrefix(pattern, "**/")
		for _, source := range sources {
			parts := strings.Split(filepath.ToSlash(source), "/")
			if !anywhere {
				parts = parts[:1]
			}
			for _, part := range parts {
				if matched, err := filepath.Match(pattern, part); matched || err != nil {
					t.Errorf(".dockerignore's %s leaves out %s (%v)", pattern, source, err)
				}
			}
		}
	}
}

// The services stand in one list, from which these files are made.
func TestFilesNameTheServicesOfTheList(t *testing.T) {
	t.Parallel()
	for path, make := range map[string]func(string) (string, error){
		"compose.yaml": app.Compose, observabilityFile: app.ComposeObservability, serveFile: app.ComposeServe, scaleFile: app.ComposeScale,
	} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if want, err := make(string(text)); err != nil || want != string(text) {
			t.Errorf("%s does not have the services of the list (%v): run make gen", path, err)
		}
	}
	atlas, err := os.ReadFile("atlas.hcl")
	if err != nil {
		t.Fatal(err)
	}
	if string(atlas) != app.AtlasHCL() {
		t.Error("atlas.hcl doesn't name the schemas of all services: run make gen")
	}
}
