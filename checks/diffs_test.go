package checks

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gatehouse/checks/pages"
	"gatehouse/internal/testneed"
)

// The diffs of a page apply to the files as they are, one after the other. Whether the
// changed tree compiles and works is tested in e2e, which takes a minute more.
func TestDiffsOfPagesApply(t *testing.T) {
	testneed.Program(t, "git")
	found := 0
	for _, page := range pages.All(t) {
		dir := t.TempDir()
		for _, diff := range pages.Diffs(t, page) {
			if len(diff.Files) == 0 {
				t.Errorf("%s:%d: the diff names no file: it needs lines --- a/… and +++ b/…", page, diff.Line)
			}
			for _, file := range diff.Files {
				found++
				copyOnce(t, file, dir)
				applyDiff(t, diff, file, dir)
			}
		}
	}
	t.Logf("the pages have diffs of %d files", found)
}

// copyOnce copies a file to a folder, unless an earlier diff has brought it there.
func copyOnce(t *testing.T, file, dir string) {
	t.Helper()
	to := filepath.Join(dir, file)
	if _, err := os.Stat(to); err == nil {
		return
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, []byte(pages.Read(t, file)), 0o644); err != nil {
		t.Fatal(err)
	}
}

// applyDiff applies the part of a diff that changes a file. Where that fails, the
// error contains the part as it has to be, if Git can tell.
func applyDiff(t *testing.T, diff pages.Diff, file, dir string) {
	t.Helper()
	refusal, err := git(t, dir, diff.Text, "apply", "--include="+file, "-")
	if err == nil {
		return
	}
	before := pages.Read(t, filepath.Join(dir, file))
	const where = "%s:%d: the diff of %s no longer applies, because lines around its change are different now (%s).\n"
	if _, err := git(t, dir, diff.Text, "apply", "-C1", "--include="+file, "-"); err != nil { // -C1: one line of context is enough
		t.Errorf(where+"To renew it: write the block's unchanged and removed lines as they are in %s now. It has no lines\n\t%s", diff.Page, diff.Line, file,
			strings.TrimSpace(refusal), file, strings.Join(missing(diff, file, before), "\n\t"))
		return
	}
	original := filepath.Join(t.TempDir(), "original")
	if err := os.WriteFile(original, []byte(before), 0o644); err != nil {
		t.Fatal(err)
	}
	renewed, _ := git(t, dir, "", "diff", "--no-index", "-U2", original, file)
	_, hunks, _ := strings.Cut(renewed, "\n@@")
	t.Errorf(where+"To renew it: replace that part of the block by the following, and see that each change is where it belongs.\n--- a/%s\n+++ b/%s\n@@%s", diff.Page, diff.Line, file, strings.TrimSpace(refusal), file, file, hunks)
}

// missing returns the unchanged and removed lines of a diff that are not in its file.
func missing(diff pages.Diff, file, text string) (lines []string) {
	inFile := strings.Split(text, "\n")
	current := ""
	for line := range strings.Lines(diff.Text) {
		line = strings.TrimSuffix(line, "\n")
		if path, ok := strings.CutPrefix(line, "--- a/"); ok {
			current = path
			continue
		}
		if current == file && len(line) > 1 && strings.ContainsAny(line[:1], " -") && !slices.Contains(inFile, line[1:]) {
			lines = append(lines, line)
		}
	}
	return lines
}

// git runs git in a folder that is no repository.
func git(t *testing.T, dir, input string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", args...)
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(input)
	cmd.Env = append(os.Environ(), "GIT_CEILING_DIRECTORIES="+filepath.Dir(dir))
	output, err := cmd.CombinedOutput()
	return string(output), err
}
