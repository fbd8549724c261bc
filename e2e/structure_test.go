package e2e

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Dependencies point down: main knows app, app every service, services only what is
// internal and generated, and nothing internal knows a service.
func TestDependenciesPointDown(t *testing.T) {
	t.Parallel()
	listed, err := exec.CommandContext(t.Context(), "go", "list", "-f", `{{.ImportPath}}{{range .Imports}} {{.}}{{end}}`, "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	services := []string{"gatehouse/auth", "gatehouse/bff", "gatehouse/users"}
	// What a package of ours may import of ours, by its path or its folder.
	mayImport := func(pkg, imported string) bool {
		below := func(folders ...string) bool {
			return slices.ContainsFunc(folders, func(f string) bool { return imported == f || strings.HasPrefix(imported, f+"/") })
		}
		switch {
		case pkg == "gatehouse":
			return imported == "gatehouse/app"
		case pkg == "gatehouse/app" || pkg == "gatehouse/app/reference" || pkg == "gatehouse/e2e":
			return true
		case slices.Contains(services, pkg):
			return below("gatehouse/internal", "gatehouse/gen") || pkg == "gatehouse/bff" && below("gatehouse/web")
		case strings.HasPrefix(pkg, "gatehouse/gen/"):
			return below("gatehouse/gen")
		case strings.HasPrefix(pkg, "gatehouse/bench"):
			return below("gatehouse/internal", "gatehouse/gen", "gatehouse/bff")
		case strings.HasPrefix(pkg, "gatehouse/internal/"):
			return below("gatehouse/internal", "gatehouse/gen")
		default:
			return below("gatehouse/web")
		}
	}
	packages := 0
	for line := range strings.Lines(string(listed)) {
		names := strings.Fields(line)
		packages++
		for _, imported := range names[1:] {
			if (imported == "gatehouse" || strings.HasPrefix(imported, "gatehouse/")) && !mayImport(names[0], imported) {
				t.Errorf("%s imports %s", names[0], imported)
			}
		}
		// A service's facts are its own: it has the other's contract, not its tables.
		if names[0] == "gatehouse/bff" && slices.ContainsFunc(names[1:], func(i string) bool { return strings.HasPrefix(i, "github.com/jackc/pgx") }) {
			t.Error("the gateway imports the database driver: it owns no data")
		}
	}
	if packages < 8 {
		t.Errorf("go list found %d packages only", packages)
	}
}

// Each dependency earns its place in one line.
func TestEveryDependencyIsExplained(t *testing.T) {
	t.Parallel()
	explained, err := os.ReadFile("docs/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	direct := regexp.MustCompile(`(?m)^\t(\S+) v\S+$`)
	for _, file := range []string{"go.mod", "tools/go.mod"} {
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
				t.Errorf("docs/dependencies.md doesn't say what %s is for", module[1])
			}
		}
	}
}
