// Package pages reads the Markdown documents of this repository, and the commands
// and files in them that tests run. The working directory is the root of the
// repository.
package pages

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// All returns the paths of the documents.
func All(t *testing.T) []string {
	t.Helper()
	all := []string{"README.md", "CONTRIBUTING.md", "SECURITY.md", "bench/README.md"}
	err := filepath.WalkDir("docs", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".md") {
			all = append(all, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// Read returns the text of a file.
func Read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A page states the fixture that its commands run against before the first of
// them. A block that no test runs states the reason before it; so does a session
// at a terminal (console).
const (
	CommandsMark = "<!-- commands: "
	WhileUp      = "while gatehouse up runs"
	OnDatabase   = "with an empty database"
	BesideSystem = "beside a running system"
	AfterSystem  = "with the database of a system that was stopped"
	InTree       = "in a copy of the tree"
	NotRunMark   = "<!-- not run: "
	// fileMark names the file whose content is the next block.
	fileMark = "<!-- file: "
	// FromMark names the file that the next block quotes.
	FromMark = "<!-- from: "
)

// Snippet is a block of a page as commands. NotRun is the reason why no test runs
// it, or empty. Line is the line of the page at which the block begins.
type Snippet struct {
	Language, Commands, NotRun string
	Line                       int

	block string // the text of the page
}

// parse returns the fixture that a page names and its blocks.
func parse(text string) (fixture string, all []Snippet) {
	_, rest, ok := strings.Cut(text, CommandsMark)
	if ok {
		fixture, _, _ = strings.Cut(rest, " -->")
	}
	marked := func(line, mark string) string {
		after, ok := strings.CutPrefix(strings.TrimSpace(line), mark)
		if !ok {
			return ""
		}
		return strings.TrimSuffix(after, " -->")
	}
	var language, file, notRun string
	var block *strings.Builder
	number, begin := 0, 0
	for line := range strings.Lines(text) {
		number++
		fence, isFence := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case block == nil && isFence:
			language, block, begin = fence, &strings.Builder{}, number
		case block == nil && strings.HasPrefix(line, fileMark):
			file = marked(line, fileMark)
		case block == nil && strings.HasPrefix(strings.TrimSpace(line), NotRunMark):
			notRun = marked(line, NotRunMark)
		case block != nil && isFence:
			commands := block.String()
			switch {
			case file != "":
				commands = "mkdir -p " + filepath.Dir(file) + "\ncat >" + file + " <<'END OF " + file + "'\n" + commands + "END OF " + file + "\n"
			case language == "diff":
				commands = fmt.Sprintf("git apply <<'END OF DIFF' || { echo %q; exit 1; }\n%sEND OF DIFF\n",
					fmt.Sprintf("The diff at line %d of the page does not apply. To renew it, run: go test ./checks -run TestDiffsOfPagesApply", begin), commands)
			}
			if file != "" || slices.Contains([]string{"sh", "diff", "console"}, language) {
				all = append(all, Snippet{Language: language, Commands: commands, NotRun: notRun, Line: begin, block: block.String()})
			}
			block, file, notRun = nil, "", ""
		case block != nil:
			block.WriteString(line)
		}
	}
	return fixture, all
}

// Page is a document with commands. Name is its path under docs, without the
// extension; Fixture is what its commands run against.
type Page struct {
	Name, Fixture string
	Snippets      []Snippet
}

// WithCommands returns the pages under docs that have commands.
func WithCommands(t *testing.T) []Page {
	t.Helper()
	var found []Page
	for _, path := range All(t) {
		if !strings.HasPrefix(path, "docs/") {
			continue // the README's are run by a script of CI
		}
		fixture, snippets := parse(Read(t, path))
		if len(snippets) > 0 {
			found = append(found, Page{strings.TrimSuffix(strings.TrimPrefix(path, "docs/"), ".md"), fixture, snippets})
		}
	}
	return found
}
