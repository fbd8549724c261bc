package checks

import (
	"bytes"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"gatehouse/checks/pages"
)

var (
	fence   = regexp.MustCompile("(?ms)^```.*?^```$")
	link    = regexp.MustCompile(`\[[^\]]*\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.+)$`)
)

// TestLinksInTheDocumentsResolve checks that every link within the repository
// names an existing file and, if it has a fragment, an existing heading.
func TestLinksInTheDocumentsResolve(t *testing.T) {
	t.Parallel()
	found := 0
	for _, path := range pages.All(t) {
		text := fence.ReplaceAllString(pages.Read(t, path), "")
		for _, match := range link.FindAllStringSubmatch(text, -1) {
			target, err := url.Parse(match[1])
			if err != nil || target.IsAbs() {
				continue
			}
			found++
			to := path
			if target.Path != "" {
				to = filepath.Join(filepath.Dir(path), target.Path)
			}
			if _, err := os.Stat(to); err != nil {
				t.Errorf("%s links to %s: %v", path, match[1], err)
				continue
			}
			if target.Fragment != "" && !slices.Contains(anchors(pages.Read(t, to)), target.Fragment) {
				t.Errorf("%s links to %s: no such heading", path, match[1])
			}
		}
	}
	if found < 100 {
		t.Errorf("found %d links in the documents, fewer than expected: does this test still find them?", found)
	}
}

// anchors returns the fragments of a page's headings.
func anchors(text string) []string {
	var names []string
	for _, match := range heading.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		names = append(names, strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
				return unicode.ToLower(r)
			}
			return -1
		}, match[1]))
	}
	return names
}

var shown = regexp.MustCompile("(?ms)^" + pages.FromMark + "(\\S+) -->\n```\\w*\n(.*?)^```$")

// TestTheDocumentsQuoteFilesExactly checks that a block that quotes a file equals
// the file.
func TestTheDocumentsQuoteFilesExactly(t *testing.T) {
	t.Parallel()
	found := 0
	for _, path := range pages.All(t) {
		text := pages.Read(t, path)
		blocks := shown.FindAllStringSubmatch(text, -1)
		found += len(blocks)
		if marks := strings.Count(text, pages.FromMark); marks != len(blocks) {
			t.Errorf("%s has %d marks of quoted files and %d blocks", path, marks, len(blocks))
		}
		for _, block := range blocks {
			if want := pages.Read(t, block[1]); block[2] != want {
				t.Errorf("%s quotes an outdated %s. Paste the current text:\n%s", path, block[1], want)
			}
		}
	}
	if found == 0 {
		t.Error("no page quotes a file: this test finds nothing")
	}
}

var (
	comment  = regexp.MustCompile(`(?s)<!--.*?-->`)
	used     = regexp.MustCompile(`\$\{?([A-Z][A-Z_0-9]+)`)
	assigned = regexp.MustCompile(`(?m)(?:^|[\s;(&|])([A-Z][A-Z_0-9]+)=|\bfor ([A-Z_0-9]+) in|\bread (?:-r )?([A-Z_0-9]+)`)
	before   = regexp.MustCompile(`(?s)## Before you begin\n(.*?)\n## `)
)

// TestPagesSayWhichVariablesTheirCommandsNeed checks that a page's section "Before
// you begin" names every variable that its commands use and do not set: none may
// come from a comment or from the test.
func TestPagesSayWhichVariablesTheirCommandsNeed(t *testing.T) {
	t.Parallel()
	found := 0
	for _, page := range pages.WithCommands(t) {
		var commands strings.Builder
		for _, one := range page.Snippets {
			if one.NotRun == "" {
				commands.WriteString(one.Commands)
			}
		}
		set := map[string]bool{}
		for _, match := range assigned.FindAllStringSubmatch(commands.String(), -1) {
			set[match[1]+match[2]+match[3]] = true
		}
		var visible string
		if section := before.FindStringSubmatch(comment.ReplaceAllString(pages.Read(t, "docs/"+page.Name+".md"), "")); section != nil {
			visible = section[1]
		}
		for _, match := range used.FindAllStringSubmatch(commands.String(), -1) {
			name := match[1]
			if set[name] {
				continue
			}
			found++
			if !strings.Contains(visible, name) {
				t.Errorf("docs/%s.md uses $%s, and its section \"Before you begin\" doesn't say where that comes from", page.Name, name)
			}
		}
		needsDatabase := page.Fixture != pages.WhileUp && page.Fixture != pages.InTree
		for _, name := range []string{"DATABASE_URL"} {
			if needsDatabase && strings.Contains(commands.String(), "gatehouse ") && !strings.Contains(visible, name) {
				t.Errorf("docs/%s.md needs %s, and its section \"Before you begin\" doesn't say so", page.Name, name)
			}
		}
		if page.Fixture == pages.WhileUp && !strings.Contains(visible, "gatehouse up") {
			t.Errorf("docs/%s.md needs a running gatehouse up, and its section \"Before you begin\" doesn't say so", page.Name)
		}
	}
	if found < 5 {
		t.Errorf("found %d variables that pages need, fewer than expected: does this test still find them?", found)
	}
}

// TestTheExamplesUseOnePassword checks that Ada's password is the same in every
// example, so that an account created on one page can sign in on another.
func TestTheExamplesUseOnePassword(t *testing.T) {
	t.Parallel()
	pair := regexp.MustCompile(`ada[\w.$()+%' ]*@example\.com"[^{}]{0,40}?"?[pP]assword"?\s*:\s*"([^"]+)"`)
	files := append(pages.All(t), "web/index.html", "web/openapi.json")
	found := map[string]int{}
	for _, path := range files {
		text, err := os.ReadFile(filepath.FromSlash(path))
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range pair.FindAllSubmatch(bytes.ReplaceAll(text, []byte(`\"`), []byte(`"`)), -1) {
			found[path]++
			if got := string(match[1]); got != "correct horse battery" || !bytes.HasPrefix(match[0], []byte("ada@")) {
				t.Errorf("%s has %s", path, match[0])
			}
		}
	}
	for _, path := range []string{"README.md", "web/index.html", "web/openapi.json", "docs/tutorial/first-five-minutes.md"} {
		if found[path] == 0 {
			t.Errorf("found no example of Ada's password in %s, fewer than expected: does this test still find them?", path)
		}
	}
}
