package admission

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A second statement that writes sessions, or a second use of this one, would be a way
// around what admit checks.
func TestOneStatementBeginsSessionsAndOneFunctionRunsIt(t *testing.T) {
	t.Parallel()
	inserts, uses := 0, map[string][]string{}
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (strings.HasPrefix(entry.Name(), ".") && path != root && entry.Name() != ".." || entry.Name() == "node_modules"):
			return filepath.SkipDir
		case filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		inserts += strings.Count(strings.Join(strings.Fields(strings.ToLower(string(text))), " "), "insert into auth.sessions")
		if filepath.Dir(path) == filepath.Join(root, "auth", "admission") {
			return usesIn(path, uses)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if inserts != 1 {
		t.Errorf("%d statements insert into auth.sessions, want 1", inserts)
	}
	for name, want := range map[string][]string{"insertSession": {"admitAccount"}, "admitAccount": {"admit"}, "admit": {"Admit", "AdmitAlone", "AdmitAlone"}} {
		if got := uses[name]; strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("%s is used by %v, want %v", name, got, want)
		}
	}
}

// usesIn adds, for each name that is used in a file, the functions and constants that use
// it.
func usesIn(path string, uses map[string][]string) error {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	if err != nil {
		return err
	}
	note := func(user string, node ast.Node) {
		ast.Inspect(node, func(n ast.Node) bool {
			if name, ok := n.(*ast.Ident); ok {
				uses[name.Name] = append(uses[name.Name], user)
			}
			return true
		})
	}
	for _, declaration := range file.Decls {
		switch d := declaration.(type) {
		case *ast.FuncDecl:
			note(d.Name.Name, d.Body)
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				if values, ok := spec.(*ast.ValueSpec); ok {
					for i, value := range values.Values {
						note(values.Names[i].Name, value)
					}
				}
			}
		}
	}
	return nil
}

func TestWhatProofsAreWorth(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		before []string
		kind   Kind
		level  int
		amr    string
		ok     bool
	}{
		{"a password", nil, Password, 1, "pwd", true},
		{"a passkey", nil, Passkey, 2, "mfa pop user", true},
		{"a code of an app first", nil, TOTP, 0, "otp", false},
		{"a recovery code first", nil, RecoveryCode, 0, "rec", false},
		{"a mailed code", nil, EmailCode, 1, "email", true},
		{"a link", nil, Link, 1, "email", true},
		{"another provider", nil, Federated, 1, "fed", true},
		{"a password, then a code", []string{"pwd"}, TOTP, 2, "mfa otp pwd", true},
		{"a password, then a recovery code", []string{"pwd"}, RecoveryCode, 2, "mfa pwd rec", true},
		{"a password, then a passkey", []string{"pwd"}, Passkey, 2, "mfa pop pwd user", true},
		{"another provider, then a code", []string{"fed"}, TOTP, 2, "fed mfa otp", true},
		{"a password twice", []string{"pwd"}, Password, 0, "", false},
		{"a password, then a mailbox", []string{"pwd"}, EmailCode, 0, "", false},
		{"a password, then a link", []string{"pwd"}, Link, 0, "", false},
	} {
		level, amr, ok := assess(test.before, Proof{Kind: test.kind})
		if ok != test.ok || ok && (level != test.level || strings.Join(amr, " ") != test.amr) {
			t.Errorf("%s: got level %d, %v, %t; want %d, %s, %t", test.name, level, amr, ok, test.level, test.amr, test.ok)
		}
	}
}
