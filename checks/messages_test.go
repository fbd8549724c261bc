package checks

import (
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"gatehouse/checks/pages"
)

// said is what the program can say: the texts in its source, with … for what it fills in.
type said struct {
	all    map[string]bool
	warned map[string]bool // texts that are only logged, and below the level of errors
}

var verb = regexp.MustCompile(`%(?:\[\d+\])?[-+# 0]*[\d.]*[a-zA-Z]`)

// readSaid reads the production code.
func readSaid(t *testing.T) said {
	t.Helper()
	found := said{map[string]bool{}, map[string]bool{}}
	for _, file := range tracked(t, ".go") {
		if strings.HasSuffix(file, "_test.go") || !strings.Contains(file, "/") || slices.Contains([]string{"tools", "bench", "e2e", "checks", "examples", "clients"}, file[:strings.Index(file, "/")]) {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		logged := map[ast.Expr]bool{}
		ast.Inspect(parsed, func(node ast.Node) bool {
			switch n := node.(type) {
			case *ast.CallExpr:
				method, ok := n.Fun.(*ast.SelectorExpr)
				if ok && slices.Contains([]string{"Debug", "Info", "Warn"}, method.Sel.Name) && len(n.Args) > 0 {
					logged[n.Args[0]] = true
				}
			case *ast.BasicLit:
				if text, err := strconv.Unquote(n.Value); err == nil && n.Kind == token.STRING {
					text = verb.ReplaceAllString(text, "…")
					found.all[text] = true
					if logged[n] {
						found.warned[text] = true
					}
				}
			}
			return true
		})
	}
	if len(found.all) < 2000 || len(found.warned) < 10 {
		t.Fatalf("found %d texts, of which %d are warnings, fewer than expected: does this test still find them?", len(found.all), len(found.warned))
	}
	return found
}

// like returns a text of the program that is a message, in which … is any text; empty
// without one.
func (s said) like(message string) string {
	if s.all[message] {
		return message
	}
	var parts []string
	for part := range strings.SplitSeq(message, "…") {
		parts = append(parts, regexp.QuoteMeta(part))
	}
	pattern := regexp.MustCompile("^" + strings.Join(parts, ".+") + "$")
	for text := range s.all {
		if pattern.MatchString(text) {
			return text
		}
	}
	return ""
}

// within reports whether a text of the program contains words to search for.
func (s said) within(words string) bool {
	for text := range s.all {
		if strings.Contains(text, words) {
			return true
		}
	}
	return false
}

// ofOthers are messages of Postgres and of the operating system.
var ofOthers = []string{"password authentication failed", "address already in use"}

var (
	inlineCode = regexp.MustCompile("`([^`\n]+)`")
	// ofSetting precedes what is wrong with a setting.
	ofSetting = regexp.MustCompile(`^[A-Z][A-Z_…]+: `)
	command   = regexp.MustCompile(`^(gatehouse|schema|keys|pg_restore|severity:) ?`)
)

// messagesIn returns the messages that a text quotes, whole.
func messagesIn(text string) (quoted []string) {
	for _, code := range inlineCode.FindAllStringSubmatch(text, -1) {
		message := ofSetting.ReplaceAllString(code[1], "")
		plain := message[0] >= 'a' && message[0] <= 'z' && strings.Contains(message, " ")
		if plain && !command.MatchString(message) && !slices.Contains(ofOthers, message) {
			quoted = append(quoted, message)
		}
	}
	return quoted
}

// The messages that the page on troubleshooting quotes are those of the program, and what
// keeps a process from starting is not one that only warns. Other pages name words to
// search the log for.
func TestTheQuotedMessagesAreThoseOfTheProgram(t *testing.T) {
	t.Parallel()
	program := readSaid(t)
	const page = "docs/how-to/troubleshooting.md"
	checked := 0
	for section := range strings.SplitSeq(pages.Read(t, page), "\n## ") {
		for row := range strings.Lines(section) {
			cells := strings.Split(row, "|")
			if len(cells) < 4 {
				continue
			}
			for _, message := range messagesIn(cells[1]) {
				checked++
				text := program.like(message)
				if text == "" {
					t.Errorf("%s quotes %q, which the program does not say", page, message)
				}
				if strings.HasPrefix(section, "It does not start") && program.warned[text] {
					t.Errorf("%s says that a process does not start with %q, which only warns", page, message)
				}
			}
		}
	}
	if checked < 10 {
		t.Errorf("%s quotes %d messages, fewer than expected: does this test still find them?", page, checked)
	}
	for _, page := range []string{"docs/how-to/alerts.md", "docs/how-to/backup.md"} {
		for _, words := range messagesIn(pages.Read(t, page)) {
			if !program.within(words) && program.like(words) == "" {
				t.Errorf("%s quotes %q, which the program does not say", page, words)
			}
		}
	}
}
