package audit_test

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/reference/audit.md anew")

const auditPage = `# Audit events

Made from the events' comments in ` + "`auth/audit`" + `; a test compares this page with them.

What changes or tries an identity is written down in the transaction that changes it, so that both are there or neither.
An event names who it concerns and who acted by their ids, with the session, the address, the user agent and the request's id; never an email, a password or a token.
Its outcome is ` + "`succeeded`" + `, or ` + "`refused`" + ` with the reason that the caller was given ([errors.md](errors.md)).
Refusals of one event, for one reason and one account or network, are one event a minute: the count of that one says how many they were, and the rest tells of the first.
Administrators list them with ` + "`ListAuditEvents`" + `, and everybody their own with ` + "`ListMyAuditEvents`" + `; they are kept for ` + "`GATEHOUSE_AUDIT_LIFE`" + `.
auth's role in Postgres may add events and not change them, but for that count, which a function of the tables' owner raises.

| event | what happened |
| --- | --- |
`

func TestTheAuditPageHasEveryEvent(t *testing.T) {
	t.Parallel()
	var rows []string
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(node ast.Node) bool {
			constant, ok := node.(*ast.ValueSpec)
			if !ok {
				return true
			}
			if kind, ok := constant.Type.(*ast.Ident); !ok || kind.Name != "Event" {
				return true
			}
			event, err := strconv.Unquote(constant.Values[0].(*ast.BasicLit).Value)
			said := strings.TrimSpace(constant.Comment.Text())
			if err != nil || said == "" {
				t.Errorf("%s: %s has no comment that says what happened", name, constant.Names[0])
			}
			rows = append(rows, fmt.Sprintf("| `%s` | %s |\n", event, said))
			return true
		})
	}
	slices.Sort(rows)
	want := auditPage + strings.Join(rows, "")
	const path = "../../docs/reference/audit.md"
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	committed, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(committed) != want {
		t.Errorf("%s is not current. Write it anew: go test ./auth/audit -run %s -update\nwant:\n%s", path, t.Name(), want)
	}
}
