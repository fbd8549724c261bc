package checks

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"gatehouse/internal/release"
	"gatehouse/internal/testneed"
)

// releaseTag is the tag of a release, not of a candidate such as v1.2.0-rc.1.
var releaseTag = regexp.MustCompile(`^v\d+\.\d+\.\d+$`)

// gitSays returns what git says in a folder.
func gitSays(t *testing.T, dir string, args ...string) string {
	t.Helper()
	testneed.Program(t, "git")
	said, err := exec.CommandContext(t.Context(), "git", append([]string{"-C", dir}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, said)
	}
	return strings.TrimSpace(string(said))
}

// newestRelease returns the tag of the newest release among a commit and its ancestors, and
// the tagged commit. Both are empty if nothing was released.
func newestRelease(t *testing.T, dir, commit string) (tag, tagged string) {
	t.Helper()
	for _, name := range strings.Fields(gitSays(t, dir, "tag", "--merged", commit, "--sort=-version:refname")) {
		if releaseTag.MatchString(name) {
			return name, gitSays(t, dir, "rev-parse", name+"^{commit}")
		}
	}
	return "", ""
}

// wantPrevious returns the commits that release.Previous may be: that of the newest release,
// or, at the tag of a release itself, that of the one before it. It returns none if nothing
// was released yet.
func wantPrevious(t *testing.T, dir string) (commits []string, tag string) {
	t.Helper()
	tag, tagged := newestRelease(t, dir, "HEAD")
	if tag == "" {
		return nil, ""
	}
	commits = []string{tagged}
	if tagged == gitSays(t, dir, "rev-parse", "HEAD") {
		if before := strings.Fields(gitSays(t, dir, "log", "-1", "--format=%P", "HEAD")); len(before) > 0 {
			_, earlier := newestRelease(t, dir, before[0])
			commits = append(commits, earlier)
		}
	}
	return commits, tag
}

// The upgrade is tested from the newest release: docs/how-to/release.md has the step.
func TestThePreviousReleaseIsTheNewestTag(t *testing.T) {
	t.Parallel()
	if err := exec.CommandContext(t.Context(), "git", "rev-parse", "--git-dir").Run(); err != nil {
		testneed.Lacks(t, "this is no Git repository ("+err.Error()+")", "clone it")
	}
	if err := exec.CommandContext(t.Context(), "git", "rev-parse", "--verify", "--quiet", "HEAD").Run(); err != nil {
		return // nothing is committed, and so nothing released
	}
	wanted, tag := wantPrevious(t, ".")
	for i, commit := range wanted {
		if commit == release.Previous || commit == "" && i > 0 { // the first release has none before it
			return
		}
	}
	if len(wanted) > 0 {
		t.Errorf("Previous in internal/release/previous.go is %s, and the newest release, %s, is %s: set it to that", release.Previous, tag, wanted[0])
	}
}

// What is compared above has no tag yet in the beginning, so the comparison is tested in a
// repository that has some.
func TestTheNewestReleaseIsFound(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "repository")
	gitSays(t, ".", "init", "--quiet", dir)
	commits := 0
	commit := func(tags ...string) string {
		t.Helper()
		commits++ // a message of its own, so that no two commits have one hash
		gitSays(t, dir, "-c", "user.name=Ada", "-c", "user.email=ada@example.com", "-c", "commit.gpgsign=false", "commit", "--quiet", "--allow-empty", "--message=change "+strconv.Itoa(commits))
		for _, tag := range tags {
			gitSays(t, dir, "-c", "tag.gpgsign=false", "tag", tag)
		}
		return gitSays(t, dir, "rev-parse", "HEAD")
	}
	want := func(when string, commits ...string) {
		t.Helper()
		if got, _ := wantPrevious(t, dir); strings.Join(got, " ") != strings.Join(commits, " ") {
			t.Errorf("%s: got %q, want %q", when, got, commits)
		}
	}
	commit("v0.0.1-rc.1", "other")
	want("nothing was released")
	first := commit("v1.9.0")
	want("at the first release", first, "")
	commit()
	want("after the first release", first)
	main := gitSays(t, dir, "rev-parse", "--abbrev-ref", "HEAD")
	gitSays(t, dir, "switch", "--quiet", "--create", "maintenance")
	commit("v1.9.1")
	gitSays(t, dir, "switch", "--quiet", main)
	want("a release on another branch does not count", first)
	commit("v1.11.0-rc.1")
	second := commit("v1.10.0")
	want("at the second release", second, first)
	commit()
	want("1.10 is newer than 1.9", second)
}
