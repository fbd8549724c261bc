// Package composefile reads compose.yaml for tests, as Docker Compose reads it,
// with the secrets that deploy/env.sh generates. No container engine is needed.
// The working directory is the root of the repository.
package composefile

import (
	"context"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/dotenv"
	"github.com/compose-spec/compose-go/v2/types"

	"gatehouse/app"
)

// Optional lists the variables of compose.yaml that may be empty. deploy/env.sh writes an
// empty line for each, so that Docker Compose does not warn about it.
func Optional(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, found := range regexp.MustCompile(`\$\{([A-Z_]+)\}`).FindAllStringSubmatch(string(text), -1) {
		names = append(names, found[1])
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Image is the name of our image, Binary the path of the program in it.
const (
	Image  = "gatehouse"
	Binary = "/gatehouse"
)

// EnvScript is a copy of deploy/env.sh and compose.yaml in a folder of their own.
type EnvScript struct{ dir string }

// NewEnvScript copies the script into a folder that ends with the test.
func NewEnvScript(t *testing.T) EnvScript {
	t.Helper()
	script, err := os.ReadFile("deploy/env.sh")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "deploy"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "deploy", "env.sh"), script, 0o600); err != nil {
		t.Fatal(err)
	}
	compose, err := os.ReadFile("compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "compose.yaml"), compose, 0o600); err != nil {
		t.Fatal(err)
	}
	return EnvScript{dir}
}

// Run runs the script and returns the path of .env and its variables.
func (s EnvScript) Run(t *testing.T) (string, map[string]string) {
	t.Helper()
	path, _, secrets := s.RunVerbose(t)
	return path, secrets
}

// RunVerbose is Run that also returns the output of the script.
func (s EnvScript) RunVerbose(t *testing.T) (path, output string, secrets map[string]string) {
	t.Helper()
	printed, err := exec.CommandContext(t.Context(), "sh", filepath.Join(s.dir, "deploy", "env.sh")).CombinedOutput()
	if err != nil {
		t.Fatalf("deploy/env.sh: %v: %s", err, printed)
	}
	path = filepath.Join(s.dir, ".env")
	if secrets, err = dotenv.Read(path); err != nil {
		t.Fatal(err)
	}
	return path, string(printed), secrets
}

// Load reads compose.yaml with the variables of env; it ignores .env.
func Load(ctx context.Context, env map[string]string, options ...cli.ProjectOptionsFn) (*types.Project, error) {
	return load(ctx, []string{"compose.yaml"}, env, options...)
}

func load(ctx context.Context, files []string, env map[string]string, options ...cli.ProjectOptionsFn) (*types.Project, error) {
	project, err := cli.NewProjectOptions(files, options...)
	if err != nil {
		return nil, err
	}
	project.Environment = maps.Clone(env) // the loader adds to it
	return project.LoadProject(ctx)
}

// Fresh loads compose.yaml with newly generated secrets.
func Fresh(t *testing.T) *types.Project {
	t.Helper()
	_, secrets := NewEnvScript(t).Run(t)
	project, err := Load(t.Context(), secrets)
	if err != nil {
		t.Fatalf("load compose.yaml: %v", err)
	}
	return project
}

// FreshPair loads compose.yaml without and with another file, with the same secrets.
func FreshPair(t *testing.T, other string) (alone, both *types.Project) {
	t.Helper()
	_, secrets := NewEnvScript(t).Run(t)
	alone, err := Load(t.Context(), secrets)
	if err != nil {
		t.Fatalf("load compose.yaml: %v", err)
	}
	if both, err = load(t.Context(), []string{"compose.yaml", other}, secrets); err != nil {
		t.Fatalf("load compose.yaml with %s: %v", other, err)
	}
	return alone, both
}

// Services returns the services that run the image of gatehouse.
func Services(t *testing.T, project *types.Project) map[string]types.ServiceConfig {
	t.Helper()
	found := map[string]types.ServiceConfig{}
	for name, service := range project.Services {
		if service.Image == Image {
			found[name] = service
		}
	}
	want := []string{"schema"}
	for _, service := range app.Services() {
		want = append(want, service.Name)
	}
	if slices.Sort(want); !slices.Equal(slices.Sorted(maps.Keys(found)), want) {
		t.Fatalf("the services %q run the image %s, want %q", slices.Sorted(maps.Keys(found)), Image, want)
	}
	return found
}
