package e2e

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"gatehouse/checks/pages"
	"gatehouse/e2e/harness"
	"gatehouse/internal/testneed"
)

// What bash doesn't end a script for: a failure before && or behind !.
var unnoticed = regexp.MustCompile(`(?m)^\s*(! .*|.* && (?:[^b]|b[^r]).*)$`)

// The commands of each page, pasted one after the other, do what they should:
// none of them fails, and curl takes no refusal for an answer. Files that a page
// shows are written, and its diffs applied.
func TestTheCommandsInTheDocumentsWork(t *testing.T) {
	t.Parallel()
	for _, page := range pages.WithCommands(t) {
		if page.Fixture != pages.InTree {
			t.Run(page.Name, func(t *testing.T) {
				t.Parallel()
				runPage(t, page)
			})
		}
	}
}

// The pages do not run in parallel with other tests: compiling them would slow down tests that
// depend on time.
func TestTheCodeInTheDocumentsWorks(t *testing.T) {
	for _, page := range pages.WithCommands(t) {
		if page.Fixture == pages.InTree {
			t.Run(page.Name, func(t *testing.T) { runPage(t, page) })
		}
	}
}

func runPage(t *testing.T, p pages.Page) {
	var script strings.Builder
	script.WriteString(preamble)
	run := 0
	for _, one := range p.Snippets {
		switch {
		case one.NotRun != "":
			t.Logf("not run, for %s:\n%s", one.NotRun, one.Commands)
		case one.Language == "console":
			t.Errorf("nothing runs this: make it sh, or say why by %s… -->\n%s", pages.NotRunMark, one.Commands)
		case one.Language == "sh" && unnoticed.MatchString(one.Commands):
			t.Errorf("bash wouldn't notice that this fails: %q, of\n%s", unnoticed.FindString(one.Commands), one.Commands)
		default:
			run++
			script.WriteString(one.Commands)
		}
	}
	if run == 0 {
		return
	}
	needPrograms(t, script.String())
	paste(t, p.Fixture, script.String())
	t.Logf("%d blocks work", run)
}

// programs are those of the pages' commands that a machine may lack.
var programs = regexp.MustCompile(`\b(curl|psql|pg_dump|pg_restore|openssl|git)\b`)

// needPrograms skips the test where what the commands call isn't there.
func needPrograms(t *testing.T, script string) {
	t.Helper()
	testneed.Program(t, "bash")
	called := programs.FindAllString(strings.TrimPrefix(script, preamble), -1)
	slices.Sort(called)
	for _, name := range slices.Compact(called) {
		testneed.Program(t, name)
	}
}

const preamble = `set -euo pipefail
curl() { command curl --silent --show-error --fail-with-body "$@"; local status=$?; echo; return $status; }
`

// paste runs a script where a page's reader would.
func paste(t *testing.T, fixture, script string) {
	t.Helper()
	bin, work := t.TempDir(), t.TempDir()
	wrapper := func(name, command string) {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+command+" \"$@\"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	wrapper("gatehouse", harness.AsGatehouse()+" exec "+os.Args[0])
	wrapper("buf", "exec go -C "+tree+" tool -modfile=tools/go.mod buf")
	// Every page has ports of its own.
	ports := map[string]string{}
	for _, port := range []string{"8001", "8002", "8003", "9001"} {
		_, ports[port], _ = strings.Cut(harness.FreeAddress(t), ":")
	}
	env := []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "PASSWORD=" + harness.AdminPassword}
	var inherited []*os.File
	switch fixture {
	case pages.WhileUp:
		up := harness.NewEmbedded(t)
		up.Env = append(up.Env, "GATEHOUSE_ADMIN_PASSWORD="+harness.AdminPassword)
		up.Up(t)
		ports["8001"] = up.URL[strings.LastIndex(up.URL, ":")+1:]
		env = append(env, "GATEHOUSE_DATA_DIR="+up.Dir)
	case pages.OnDatabase:
		env = append(env, "DATABASE_URL="+passwordDatabase(t))
	case pages.BesideSystem, pages.AfterSystem:
		running := newDocumentedSystem(t)
		ports["8001"] = running.URL[strings.LastIndex(running.URL, ":")+1:]
		env = append(env, running.Roles["serve"].Env...)
		if fixture == pages.AfterSystem {
			running.Processes["serve"].Interrupt(t)
			break
		}
		defer running.stillWorks(t)
	case pages.InTree:
		var lock *os.File
		work, lock = folderForTree(t)
		inherited = append(inherited, lock)
		copyTree(t, work)
		env = append(env, "GATEHOUSE_DATA_DIR="+harness.NewEmbedded(t).Dir, "GIT_CEILING_DIRECTORIES="+filepath.Dir(work))
	default:
		t.Fatalf("the page doesn't say what its commands find: write %s… -->", pages.CommandsMark)
	}
	for port, own := range ports {
		script = strings.ReplaceAll(script, ":"+port, ":"+own)
	}
	cmd := exec.Command("bash", "-c", script)
	cmd.Dir, cmd.ExtraFiles = work, inherited
	cmd.Env = append(os.Environ(), env...)
	runGroup(t, cmd, filepath.Join(bin, "said"))
}

// runGroup runs a command, whose output goes to a file, and ends what it leaves running.
func runGroup(t *testing.T, cmd *exec.Cmd, output string) {
	t.Helper()
	// A file, for what the commands leave running holds on to it.
	said, err := os.Create(output)
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	cmd.Stdout, cmd.Stderr = said, said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // what it leaves behind ends with it
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	limit := time.AfterFunc(5*time.Minute, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	defer limit.Stop()
	err = cmd.Wait()
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
	if err != nil {
		t.Fatalf("the commands fail: %v\n%s", err, pages.Read(t, said.Name()))
	}
}

// folderForTree returns an empty folder, which is the same in each run and this test's
// alone: Go's build cache knows a package by its folder, so that elsewhere every package
// would be compiled again. It is locked as long as somebody has the file open: the
// commands inherit it, because they may outlive a test that is killed.
func folderForTree(t *testing.T) (tree string, lock *os.File) {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	mine := filepath.Join(cache, "gatehouse-docs", fmt.Sprintf("%x", sha256.Sum256([]byte(here)))[:16])
	if err := os.MkdirAll(mine, 0o700); err != nil {
		t.Fatal(err)
	}
	lock, err = os.OpenFile(filepath.Join(mine, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lock.Close() })
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	tree = filepath.Join(mine, "tree")
	for _, prepare := range []error{os.RemoveAll(tree), os.Mkdir(tree, 0o700)} {
		if prepare != nil {
			t.Fatal(prepare)
		}
	}
	t.Cleanup(func() { _ = os.RemoveAll(tree) })
	return tree, lock
}

// copyTree copies the files that git knows, and what make gen has downloaded.
func copyTree(t *testing.T, to string) {
	t.Helper()
	testneed.Program(t, "git")
	copying := exec.Command("bash", "-c", `git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$1" && { test ! -d .protodeps || cp -r .protodeps "$1"; } && { test ! -d clients/typescript/node_modules || ln -s "$PWD/clients/typescript/node_modules" "$1/clients/typescript/"; }`, "copy", to)
	if out, err := copying.CombinedOutput(); err != nil {
		t.Fatalf("copy the tree: %v: %s", err, out)
	}
}
