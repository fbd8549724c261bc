package checks

import (
	"fmt"
	"go/parser"
	"go/scanner"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// avoided lists words and phrases that readers cannot search for, with the standard
// term. Only those are here that have no correct use in this repository.
var avoided = []struct{ phrase, use string }{
	{`mend(s|ed|ing)?`, "fix"},
	{`anew`, "again"},
	{`(let|lets|letting) go of`, "prune, release, close"},
	{`counts? no more`, "is no longer valid"},
	{`no more counts?`, "is no longer valid"},
	{`so long as`, "while"},
	{`whoever`, "name the actor"},
	{`of what`, "name the thing"},
	{`what is where`, "name the thing"},
	{`(is|are|was|were) told`, "receives"},
	{`gives? up on`, "stops retrying"},
	{`hears? of`, "receives"},
	{`stands? in for`, "replaces"},
	{`(is|are|was|were) away`, "is unreachable"},
	{`in vain`, "without success"},
	{`amiss`, "wrong"},
	{`befalls?|befell`, "happens to"},
	{`thereby|therein|thereof|hitherto|henceforth`, "use a short clause"},
	{`as of now`, "now"},
	{`brought to`, "normalized to"},
	{`who may have`, "who may request"},
	{`(is|are|was|were) let in`, "is admitted"},
	{`of no (more )?use`, "unusable"},
	{`is no (fault|obstacle|hindrance|news)`, "say what holds instead"},
	{`has(n't| not) come`, "was not received"},
	{`as it stands`, "exactly as it is"},
	{`leads? nowhere`, "does not resolve"},
	{`for want of`, "because there is no"},
	{`houses?`, "stack, harness, fixture"},
	{`deaf`, "unresponsive"},
	{`worded`, "name the error"},
	{`kept answers?`, "cache entry, cached response"},
	{`passed over`, "avoided"},
	{`somebody else's`, "name the owner"},
	{`none the worse`, "is not affected"},
	{`makes? nothing of`, "ignores"},
	{`now and then`, "rarely, sometimes"},
	{`in one go`, "at once"},
	{`is there already`, "exists"},
}

// avoidedNames are words that no Go identifier contains, with the standard term.
var avoidedNames = map[string]string{
	"house": "stack, harness, fixture", "world": "fixture, options", "deaf": "unresponsive",
	"worded": "name the error", "mended": "fixed", "landed": "completed",
}

// avoidedWords matches any of them as whole words, over line breaks.
var avoidedWords = func() *regexp.Regexp {
	var all []string
	for _, one := range avoided {
		all = append(all, strings.ReplaceAll(one.phrase, " ", `[\s/#*]+`))
	}
	return regexp.MustCompile(`(?i)\b(` + strings.Join(all, "|") + `)\b`)
}()

func suggestion(found string) string {
	found = strings.Join(strings.FieldsFunc(found, func(r rune) bool { return strings.ContainsRune(" \t\n/#*", r) }), " ")
	for _, one := range avoided {
		if regexp.MustCompile(`(?i)^(` + one.phrase + `)$`).MatchString(found) {
			return `"` + found + `": ` + one.use
		}
	}
	return found
}

// TestTheLanguageIsStandard refuses the avoided words in comments, strings and identifiers
// of Go, in the contract, in documents, in pages, and in scripts.
func TestTheLanguageIsStandard(t *testing.T) {
	t.Parallel()
	for _, path := range tracked(t, ".go", ".md", ".proto", ".html", ".ts", ".js", ".sql", ".sh", ".yaml", "Makefile", "Dockerfile") {
		if strings.Contains(path, "node_modules/") || strings.HasPrefix(path, "web/vendor") || path == "checks/language_test.go" || filepath.Base(path) == "package-lock.json" {
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if filepath.Ext(path) == ".go" {
			for _, problem := range wrongNames(path, text) {
				t.Error(problem)
			}
			text = prose(t, path, text)
		}
		for _, found := range avoidedWords.FindAllIndex(text, -1) {
			line := 1 + strings.Count(string(text[:found[0]]), "\n")
			t.Errorf("%s:%d: %s", path, line, suggestion(string(text[found[0]:found[1]])))
		}
	}
}

// prose blanks out all of a Go file but its comments and strings. Lines stay.
func prose(t *testing.T, path string, text []byte) []byte {
	t.Helper()
	if _, err := parser.ParseFile(token.NewFileSet(), path, text, parser.PackageClauseOnly); err != nil {
		t.Fatal(err)
	}
	files := token.NewFileSet()
	file := files.AddFile(path, files.Base(), len(text))
	var s scanner.Scanner
	s.Init(file, text, nil, scanner.ScanComments)
	kept := make([]byte, len(text))
	for i, c := range text {
		if kept[i] = ' '; c == '\n' {
			kept[i] = c
		}
	}
	for {
		position, kind, literal := s.Scan()
		switch kind {
		case token.EOF:
			return kept
		case token.COMMENT, token.STRING:
			copy(kept[file.Offset(position):], literal)
		}
	}
}

var wordOfName = regexp.MustCompile(`[A-Z]?[a-z]+`)

// wrongNames returns a problem for each identifier with one of the avoidedNames.
func wrongNames(path string, text []byte) []string {
	files := token.NewFileSet()
	file := files.AddFile(path, files.Base(), len(text))
	var s scanner.Scanner
	s.Init(file, text, nil, 0)
	var problems []string
	for {
		position, kind, name := s.Scan()
		if kind == token.EOF {
			return problems
		}
		if kind != token.IDENT {
			continue
		}
		for _, word := range wordOfName.FindAllString(name, -1) {
			if use := avoidedNames[strings.ToLower(word)]; use != "" {
				problems = append(problems, fmt.Sprintf("%s: %q in %s: %s", files.Position(position), strings.ToLower(word), name, use))
			}
		}
	}
}
