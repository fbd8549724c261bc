package gatehouse_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	gatehouse "gatehouse.example/client"
	bffv1 "gatehouse.example/client/gen/bff/v1"
)

// TestAProgramOutsideTheRepositoryUsesTheClient builds a program in a folder of its own
// that names this module by replace, as the README says, and runs it against the
// gateway. It needs nothing of the server's module.
func TestAProgramOutsideTheRepositoryUsesTheClient(t *testing.T) {
	t.Parallel()
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	program, err := os.ReadFile(filepath.Join("testdata", "outside", "main.go"))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"main.go": string(program),
		"go.mod":  "module outside.example\n\ngo 1.26.0\n\nrequire gatehouse.example/client v0.0.0\n\nreplace gatehouse.example/client => " + here + "\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(name string, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	run("go", "mod", "tidy")
	run("go", "build", "-o", "outside", ".")
	if got, want := run("./outside", gatewayURL), "Ada Lovelace, 1 session, new token: true\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if modules := run("go", "list", "-m", "all"); strings.Contains(modules, "gatehouse\n") || strings.Contains(modules, "connectrpc.com/vanguard") {
		t.Errorf("the program depends on the server's module:\n%s", modules)
	}
}

// The README lists them without Refresh, whose key is that of the session.
func TestTheReadmeNamesTheKeyedMethods(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	list := regexp.MustCompile("The client adds a key to (.*), unless").FindSubmatch(readme)
	if list == nil {
		t.Fatal("the README does not name the methods to which the client adds a key")
	}
	var got, want []string
	for _, name := range regexp.MustCompile("`([A-Za-z]+)`").FindAllSubmatch(list[1], -1) {
		got = append(got, string(name[1]))
	}
	for procedure := range gatehouse.Keyed {
		if procedure != bffv1.AuthServiceRefreshProcedure {
			want = append(want, path.Base(procedure))
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the README names %v, want %v", got, want)
	}
}

// The methods to which the client adds an Idempotency-Key are those that take one.
func TestKeyedMethodsAreThoseOfTheGateway(t *testing.T) {
	t.Parallel()
	response, err := http.Get(gatewayURL + "/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var document struct {
		Paths map[string]struct {
			Post struct {
				Parameters []struct {
					Ref string `json:"$ref"`
				} `json:"parameters"`
			} `json:"post"`
		} `json:"paths"`
	}
	if err := json.NewDecoder(response.Body).Decode(&document); err != nil {
		t.Fatal(err)
	}
	var want []string
	for path, operations := range document.Paths {
		if !strings.HasPrefix(path, "/bff.v1.") {
			continue // the REST path of a method that is also here
		}
		for _, parameter := range operations.Post.Parameters {
			if strings.HasSuffix(parameter.Ref, "/Idempotency-Key") {
				want = append(want, path)
			}
		}
	}
	slices.Sort(want)
	got := slices.Sorted(maps.Keys(gatehouse.Keyed))
	if !slices.Equal(got, want) || !slices.Contains(got, bffv1.AuthServiceRegisterProcedure) {
		t.Errorf("got %v, want %v", got, want)
	}
}
