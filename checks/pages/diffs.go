package pages

import (
	"slices"
	"strings"
	"testing"
)

// Diff is a block of a page that changes files of the tree. Page is the page's path,
// Line the line of the page at which the block begins, Files the paths that it changes.
type Diff struct {
	Page, Text string
	Line       int
	Files      []string
}

// Diffs returns the diffs of a page, in order.
func Diffs(t *testing.T, page string) []Diff {
	t.Helper()
	_, snippets := parse(Read(t, page))
	var all []Diff
	for _, one := range snippets {
		if one.Language != "diff" {
			continue
		}
		diff := Diff{Page: page, Text: one.block, Line: one.Line}
		for line := range strings.Lines(one.block) {
			if path, ok := strings.CutPrefix(line, "+++ b/"); ok && !slices.Contains(diff.Files, strings.TrimSpace(path)) {
				diff.Files = append(diff.Files, strings.TrimSpace(path))
			}
		}
		all = append(all, diff)
	}
	return all
}
