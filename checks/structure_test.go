package checks

import (
	"os"
	"os/exec"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "gatehouse"

// mayDependOn lists, by the folder at the root, which trees of ours the packages in
// it may depend on, directly or not, besides their own. A folder that is not listed
// is a service, on which main and app may depend too.
var mayDependOn = map[string][]string{
	"":         {"app/...", "bff/...", "internal/...", "gen/...", "web"},
	"app":      {"bff/...", "internal/...", "gen/...", "web"},
	"e2e":      {"..."},
	"checks":   {"..."},
	"bff":      {"internal/...", "gen/...", "web"},
	"bench":    {"bff/...", "internal/...", "gen/...", "web"},
	"clients":  {"gen/..."},
	"internal": {"gen/..."},
	"gen":      nil,
	"web":      nil,
}

var service = []string{"internal/...", "gen/..."}

// in reports whether a package is in a tree: "a" is a alone, "a/..." with all below.
func in(tree, pkg string) bool {
	root, whole := strings.CutSuffix(tree, "/...")
	return pkg == root || whole && strings.HasPrefix(pkg, root+"/")
}

// goList prints every package of the module through a template.
func goList(t *testing.T, template string) []string {
	t.Helper()
	listed, err := exec.CommandContext(t.Context(), "go", "list", "-f", template, "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	return strings.Split(strings.TrimSpace(string(listed)), "\n")
}

// TestDependenciesPointDown checks the direction of dependencies, transitively:
// main, app, services, internal, gen. No service depends on another, and the
// gateway on no database driver.
func TestDependenciesPointDown(t *testing.T) {
	t.Parallel()
	packages := goList(t, `{{.ImportPath}}{{range .Deps}} {{.}}{{end}}`)
	var services []string
	for _, line := range packages {
		pkg, _, _ := strings.Cut(line, " ")
		folder, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(pkg, module), "/"), "/")
		if _, listed := mayDependOn[folder]; !listed {
			services = append(services, folder+"/...")
		}
	}
	for _, line := range packages {
		names := strings.Fields(line)
		pkg := names[0]
		folder, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(pkg, module), "/"), "/")
		may, listed := mayDependOn[folder]
		if !listed {
			may = service
		}
		may = append(slices.Clone(may), folder+"/...")
		if folder == "" || folder == "app" {
			may = append(may, services...)
		}
		for _, dependency := range names[1:] {
			if in("github.com/jackc/pgx/v5/...", dependency) && in(module+"/bff/...", pkg) {
				t.Errorf("%s depends on %s: the gateway stores nothing", pkg, dependency)
			}
			if in(module+"/...", dependency) && !slices.ContainsFunc(may, func(tree string) bool { return tree == "..." || in(module+"/"+tree, dependency) }) {
				t.Errorf("%s depends on %s, and may depend on %v only", pkg, dependency, may)
			}
		}
	}
	if len(packages) < 8 {
		t.Errorf("go list found %d packages only", len(packages))
	}
}

// TestMainImportsTheAppAlone checks that the root package imports nothing else of
// ours and is one file.
func TestMainImportsTheAppAlone(t *testing.T) {
	t.Parallel()
	for _, line := range goList(t, `{{.ImportPath}}{{range .Imports}} {{.}}{{end}}`) {
		names := strings.Fields(line)
		if names[0] != module {
			continue
		}
		for _, imported := range names[1:] {
			if in(module+"/...", imported) && imported != module+"/app" {
				t.Errorf("the root package imports %s", imported)
			}
		}
	}
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, file := range files {
		if path.Ext(file.Name()) == ".go" {
			found = append(found, file.Name())
		}
	}
	if !slices.Equal(found, []string{"main.go"}) {
		t.Errorf("Go files at the root: %v, want main.go alone", found)
	}
}

// TestEveryDependencyIsExplained checks that docs/dependencies.md names every module
// that we require directly.
func TestEveryDependencyIsExplained(t *testing.T) {
	t.Parallel()
	explained, err := os.ReadFile("docs/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	direct := regexp.MustCompile(`(?m)^\t(\S+) v\S+$`)
	for _, file := range []string{"go.mod", "tools/go.mod", "tools/kubernetes/go.mod", "clients/go/go.mod"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		found := direct.FindAllStringSubmatch(string(text), -1)
		if len(found) == 0 {
			t.Errorf("%s: no direct requirement found", file)
		}
		for _, module := range found {
			if !strings.Contains(string(explained), "`"+module[1]+"`") {
				t.Errorf("docs/dependencies.md does not explain %s", module[1])
			}
		}
	}
}
