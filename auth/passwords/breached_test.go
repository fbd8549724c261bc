package passwords

import (
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"gatehouse/internal/fault"
)

// listOf writes a file of the list. SHA-1 of "correct horse battery staple" is
// ABF7AAD6438836DBE526AA231ABDE2D0EEF74D42, and of "correct horse battery"
// begins with another prefix.
func listOf(t *testing.T, lines string) *BreachedList {
	t.Helper()
	folder := t.TempDir()
	for name, content := range map[string]string{"00000.txt": "", "ABF7A.txt": lines} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return &BreachedList{Folder: folder}
}

const staple = "correct horse battery staple"

func TestABreachedPasswordIsRefused(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		lines  string
		reason string
	}{
		"in the list, with CRLF": {"0000000000000000000000000000000000A:3\r\nAD6438836DBE526AA231ABDE2D0EEF74D42:111\r\n", "PASSWORD_BREACHED"},
		"at the end, lower case": {"ad6438836dbe526aa231abde2d0eef74d42:1", "PASSWORD_BREACHED"},
		"not in the list":        {"BD6438836DBE526AA231ABDE2D0EEF74D42:5\n", ""},
		"padding":                {"AD6438836DBE526AA231ABDE2D0EEF74D42:0\n", ""},
	} {
		checker := &Checker{Min: 8, Breached: listOf(t, test.lines)}
		if err := checker.CheckNew("password", staple, "ada@example.com"); fault.Reason(err) != test.reason {
			t.Errorf("%s: got %v, want the reason %q", name, err, test.reason)
		}
	}
	if err := (&Checker{Min: 8}).CheckNew("password", staple, "ada@example.com"); err != nil {
		t.Errorf("without a list: got %v, want none", err)
	}
	// A password whose file is missing cannot be checked: it is neither accepted nor
	// called breached.
	err := (&Checker{Min: 8, Breached: listOf(t, "")}).CheckNew("password", "seven purple elephants", "ada@example.com")
	if err == nil || fault.Reason(err) != "" {
		t.Errorf("an incomplete list: got %v, want an internal error", err)
	}
}

func TestAFolderWithoutTheListIsNoList(t *testing.T) {
	t.Parallel()
	if err := (BreachedList{Folder: t.TempDir()}).Check(); err == nil {
		t.Error("an empty folder: got no error")
	}
	if err := listOf(t, "").Check(); err != nil {
		t.Errorf("a list: got %v, want none", err)
	}
}

// The list is looked up in its files, and nowhere else.
func TestTheListIsReadWithoutTheNetwork(t *testing.T) {
	t.Parallel()
	file, err := parser.ParseFile(token.NewFileSet(), "breached.go", nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	for _, imported := range file.Imports {
		if path, err := strconv.Unquote(imported.Path.Value); err != nil || strings.HasPrefix(path, "net") || strings.Contains(path, "connect") {
			t.Errorf("breached.go imports %s", imported.Path.Value)
		}
	}
}
