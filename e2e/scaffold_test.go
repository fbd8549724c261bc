package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gatehouse/internal/testneed"
)

// scaffold is a copy of the tree in which services are added and removed.
type scaffold struct {
	tree string
	env  []string
}

func newScaffold(t *testing.T) scaffold {
	t.Helper()
	testneed.Program(t, "git")
	tree, _ := folderForTree(t)
	copyTree(t, tree)
	s := scaffold{tree, append(os.Environ(), "GIT_CEILING_DIRECTORIES="+filepath.Dir(tree))}
	s.must(t, "git", "init", "--quiet")
	s.must(t, "git", "add", "--all")
	return s
}

func (s scaffold) run(name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env = s.tree, s.env
	said, err := cmd.CombinedOutput()
	return string(said), err
}

func (s scaffold) must(t *testing.T, name string, args ...string) string {
	t.Helper()
	said, err := s.run(name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, said)
	}
	return said
}

func (s scaffold) service(args ...string) (string, error) {
	return s.run("go", append([]string{"-C", "tools", "run", "./service"}, args...)...)
}

// changes are the files that differ from the tree that was copied.
func (s scaffold) changes(t *testing.T) string {
	t.Helper()
	return s.must(t, "git", "diff", "--name-only") + s.must(t, "git", "ls-files", "--others", "--exclude-standard")
}

// What is edited is not removed, and what is in the way is not overwritten.
func TestAServiceIsRemovedOnlyUnedited(t *testing.T) {
	s := newScaffold(t)
	for _, args := range [][]string{
		{"add", "..", "users"}, {"add", "..", "Orders"}, {"add", "..", "type"}, {"add", "..", "fish"}, {"add", "..", "orders", "singular=user"},
		{"add", "..", "orders", "person=maybe"}, {"add", "..", "orders", "person=no", "part=yes"},
		{"add", "..", "orders", "database=no", "person=yes"}, {"add", "..", "factors"}, {"add", "..", "transport", "singular=lorry"}, {"remove", "..", "orders"}, {"remove", "..", "users"},
	} {
		if said, err := s.service(args...); err == nil {
			t.Errorf("%s is not refused: %s", strings.Join(args, " "), said)
		}
	}
	if changed := s.changes(t); changed != "" {
		t.Fatalf("what was refused has changed %s", changed)
	}
	if said, err := s.service("add", "..", "orders", "part=yes"); err != nil {
		t.Fatalf("add: %v\n%s", err, said)
	}
	before := s.changes(t)
	for name, edit := range map[string]func(path string) error{
		"orders/read.go": func(path string) error { return os.WriteFile(path, []byte("package orders\n"), 0o644) },
		"clients/typescript/src/services.ts": func(path string) error {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return os.WriteFile(path, []byte(strings.Replace(string(text), "  orders: OrderService", "  sales: OrderService", 1)), 0o644)
		},
		"orders/extra.go": func(path string) error { return os.WriteFile(path, []byte("package orders\n"), 0o644) },
		"proto/bff/v1/account_service.proto": func(path string) error {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return os.WriteFile(path, []byte(strings.Replace(string(text), "repeated Order orders =", "repeated Order last_orders =", 1)), 0o644)
		},
	} {
		path := filepath.Join(s.tree, name)
		original, readErr := os.ReadFile(path)
		if err := edit(path); err != nil {
			t.Fatal(err)
		}
		if said, err := s.service("remove", "..", "orders"); err == nil || !strings.Contains(said, name) {
			t.Errorf("with %s edited: got %v, want a refusal that names it: %s", name, err, said)
		}
		restore := os.Remove(path)
		if readErr == nil {
			restore = os.WriteFile(path, original, 0o644)
		}
		if restore != nil {
			t.Fatal(restore)
		}
	}
	if after := s.changes(t); after != before {
		t.Errorf("refusals have changed the tree: %s, before %s", after, before)
	}
	if said, err := s.service("remove", "..", "orders"); err != nil {
		t.Fatalf("remove: %v\n%s", err, said)
	}
	if changed := s.changes(t); changed != "" {
		t.Errorf("it has left %s", changed)
	}
}

// What make gen cannot finish leaves the tree as it was, so that it still compiles.
func TestAGenerationThatFailsChangesNothing(t *testing.T) {
	s := newScaffold(t)
	path := filepath.Join(s.tree, "proto/bff/v1/account_service.proto")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	broken := strings.Replace(string(text), "message GetMeResponse {", "message GetMeResponse {\n  // It does not exist.\n  Missing missing = 99;", 1)
	if err := os.WriteFile(path, []byte(broken), 0o644); err != nil {
		t.Fatal(err)
	}
	before := s.changes(t)
	if said, err := s.run("scripts/generate.sh"); err == nil || !strings.Contains(said, "Missing") {
		t.Errorf("generate.sh: got %v, want a failure that names the message: %s", err, said)
	}
	if after := s.changes(t); after != before {
		t.Errorf("it has changed %s, want only %s", after, before)
	}
}

// refusesAFieldThatNobodyFills takes the part out of the definition, and puts it back.
func (s scaffold) refusesAFieldThatNobodyFills(t *testing.T) {
	t.Helper()
	path := filepath.Join(s.tree, "app/service_orders.go")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	without := strings.Replace(string(text), ", Me: bff.OrdersOfMe()", "", 1)
	if err := os.WriteFile(path, []byte(without), 0o644); err != nil {
		t.Fatal(err)
	}
	said, err := s.run("go", "test", "./app", "-run", "TestEveryFieldOfGetMeIsFilled")
	if err == nil || !strings.Contains(said, `has the field "orders", which no service fills`) {
		t.Errorf("with a field of GetMe that nobody fills: got %v, want a failure that names it: %s", err, said)
	}
	if err := os.WriteFile(path, text, 0o644); err != nil {
		t.Fatal(err)
	}
}

// Services of each kind compile, pass their tests, run in one process and apart, answer
// the same on every surface, and leave nothing behind.
func TestAServiceOfItsOwnRunsBeforeItIsEdited(t *testing.T) {
	s := newScaffold(t)
	_, said, _ := strings.Cut(s.must(t, "make", "service", "NAME=orders", "PART=yes"), "\norders runs in")
	said, _, _ = strings.Cut(said, "\nThen run")
	page, err := os.ReadFile(filepath.Join(s.tree, "docs/how-to/add-a-service.md"))
	if err != nil || said == "" || !strings.Contains(string(page), strings.TrimSpace(said)) {
		t.Errorf("docs/how-to/add-a-service.md does not show what make service says (%v):%s", err, said)
	}
	// make service generates for both.
	if said, err := s.service("add", "..", "rates", "database=no"); err != nil {
		t.Fatalf("add rates: %v\n%s", err, said)
	}
	s.must(t, "make", "service", "NAME=parts", "PERSON=no", "FEED=no")
	if said, err := s.service("sums", "..", "rates"); err != nil {
		t.Fatalf("sums of rates: %v\n%s", err, said)
	}
	s.must(t, "go", "vet", "./orders", "./parts", "./rates", "./bff", "./app", "./e2e", ".")
	s.must(t, "go", "test", "./orders", "./parts", "./rates", "./app", "./app/reference", "./checks")
	s.must(t, "go", "test", "./e2e", "-run", "TestOrdersFromSignUpToErasure|TestOrdersArePartOfGetMe|TestRatesWithoutADatabase")
	s.must(t, "go", "test", "./e2e/contract", "-run", "^TestParity$", "-surfaces", "connect json,rest")
	// The gateway's own tests do not know of the part.
	s.must(t, "go", "test", "./bff", "-run", "GetMe|Part|Cache|Policy|REST|Composition|OpenAPI")
	s.refusesAFieldThatNobodyFills(t)
	for _, name := range []string{"orders", "rates"} {
		if said, err := s.service("remove", "..", name); err != nil {
			t.Fatalf("remove %s: %v\n%s", name, err, said)
		}
	}
	s.must(t, "make", "remove-service", "NAME=parts")
	if changed := s.changes(t); changed != "" {
		t.Errorf("it has left %s", changed)
	}
}
