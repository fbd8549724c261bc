package e2e

import (
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode"

	"gatehouse/internal/testneed"
)

// pages are the documents for people.
func pages(t *testing.T) []string {
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

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

var (
	fence   = regexp.MustCompile("(?ms)^```.*?^```$")
	link    = regexp.MustCompile(`\[[^\]]*\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.+)$`)
)

// Every link within the repository leads to a file and, where it names one, to a
// heading that is there.
func TestLinksInTheDocumentsLeadSomewhere(t *testing.T) {
	t.Parallel()
	found := 0
	for _, path := range pages(t) {
		text := fence.ReplaceAllString(read(t, path), "")
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
				t.Errorf("%s leads to %s: %v", path, match[1], err)
				continue
			}
			if target.Fragment != "" && !slices.Contains(anchors(read(t, to)), target.Fragment) {
				t.Errorf("%s leads to %s, where there is no such heading", path, match[1])
			}
		}
	}
	if found < 100 {
		t.Errorf("found %d links in the documents, which looks like a fault of this test", found)
	}
}

// anchors are the names that a page's headings have in links.
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

// A page says before its first command what the commands find there. What isn't
// run says why, before its block; so does what the reader types and nobody can
// run for them, which is marked as a session at a terminal (console).
const (
	commandsMark = "<!-- commands: "
	whileUp      = "while gatehouse up runs"
	onDatabase   = "with an empty database"
	besideSystem = "beside a running system"
	afterSystem  = "with the database of a system that was stopped"
	inTree       = "in a copy of the tree"
	notRunMark   = "<!-- not run: "
	// fileMark names the file that the next block is.
	fileMark = "<!-- file: "
	// fromMark names the file that the next block shows.
	fromMark = "<!-- from: "
)

var shown = regexp.MustCompile("(?ms)^" + fromMark + "(\\S+) -->\n```\\w*\n(.*?)^```$")

// What a page shows of a file that others compile and test is that file.
func TestTheDocumentsShowFilesAsTheyAre(t *testing.T) {
	t.Parallel()
	found := 0
	for _, path := range pages(t) {
		text := read(t, path)
		blocks := shown.FindAllStringSubmatch(text, -1)
		found += len(blocks)
		if marks := strings.Count(text, fromMark); marks != len(blocks) {
			t.Errorf("%s says %d times which file it shows, and shows %d", path, marks, len(blocks))
		}
		for _, block := range blocks {
			if want := read(t, block[1]); block[2] != want {
				t.Errorf("%s shows %s otherwise than it is. Paste it anew:\n%s", path, block[1], want)
			}
		}
	}
	if found == 0 {
		t.Error("no page shows a file, which looks like a fault of this test")
	}
}

// snippet is a block of a page as commands, and why it isn't run; "" if it is.
type snippet struct {
	language, commands, notRun string
}

func snippetsOf(text string) (surroundings string, all []snippet) {
	_, rest, ok := strings.Cut(text, commandsMark)
	if ok {
		surroundings, _, _ = strings.Cut(rest, " -->")
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
	for line := range strings.Lines(text) {
		fence, isFence := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case block == nil && isFence:
			language, block = fence, &strings.Builder{}
		case block == nil && strings.HasPrefix(line, fileMark):
			file = marked(line, fileMark)
		case block == nil && strings.HasPrefix(strings.TrimSpace(line), notRunMark):
			notRun = marked(line, notRunMark)
		case block != nil && isFence:
			commands := block.String()
			switch {
			case file != "":
				commands = "mkdir -p " + filepath.Dir(file) + "\ncat >" + file + " <<'END OF " + file + "'\n" + commands + "END OF " + file + "\n"
			case language == "diff":
				commands = "git apply <<'END OF DIFF'\n" + commands + "END OF DIFF\n"
			}
			if file != "" || slices.Contains([]string{"sh", "diff", "console"}, language) {
				all = append(all, snippet{language, commands, notRun})
			}
			block, file, notRun = nil, "", ""
		case block != nil:
			block.WriteString(line)
		}
	}
	return surroundings, all
}

// What bash doesn't end a script for: a failure before && or behind !.
var unnoticed = regexp.MustCompile(`(?m)^\s*(! .*|.* && (?:[^b]|b[^r]).*)$`)

// The commands of each page, pasted one after the other, do what they should:
// none of them fails, and curl takes no refusal for an answer. Files that a page
// shows are written, and its diffs applied.
func TestTheCommandsInTheDocumentsWork(t *testing.T) {
	t.Parallel()
	for _, page := range pagesWithCommands(t) {
		if page.surroundings != inTree {
			t.Run(page.name, func(t *testing.T) {
				t.Parallel()
				page.work(t)
			})
		}
	}
}

// As the commands, but beside no other test: what they compile would take the
// time from those that go by the clock.
func TestTheCodeInTheDocumentsWorks(t *testing.T) {
	for _, page := range pagesWithCommands(t) {
		if page.surroundings == inTree {
			t.Run(page.name, page.work)
		}
	}
}

// commandPage is a document with commands.
type commandPage struct {
	name, surroundings string
	snippets           []snippet
}

func pagesWithCommands(t *testing.T) []commandPage {
	t.Helper()
	var found []commandPage
	for _, path := range pages(t) {
		if !strings.HasPrefix(path, "docs/") {
			continue // scripts/readme.sh pastes the README's
		}
		surroundings, snippets := snippetsOf(read(t, path))
		if len(snippets) > 0 {
			found = append(found, commandPage{strings.TrimSuffix(strings.TrimPrefix(path, "docs/"), ".md"), surroundings, snippets})
		}
	}
	return found
}

func (p commandPage) work(t *testing.T) {
	var script strings.Builder
	script.WriteString(preamble)
	run := 0
	for _, one := range p.snippets {
		switch {
		case one.notRun != "":
			t.Logf("not run, for %s:\n%s", one.notRun, one.commands)
		case one.language == "console":
			t.Errorf("nothing runs this: make it sh, or say why by %s… -->\n%s", notRunMark, one.commands)
		case one.language == "sh" && unnoticed.MatchString(one.commands):
			t.Errorf("bash wouldn't notice that this fails: %q, of\n%s", unnoticed.FindString(one.commands), one.commands)
		default:
			run++
			script.WriteString(one.commands)
		}
	}
	if run == 0 {
		return
	}
	needPrograms(t, script.String())
	paste(t, p.surroundings, script.String())
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
func paste(t *testing.T, surroundings, script string) {
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
	wrapper("gatehouse", asGatehouse()+" exec "+os.Args[0])
	wrapper("buf", "exec go -C "+tree+" tool -modfile=tools/go.mod buf")
	// Every page has ports of its own.
	ports := map[string]string{}
	for _, port := range []string{"8001", "8002", "8003", "9001"} {
		_, ports[port], _ = strings.Cut(freeAddress(t), ":")
	}
	env := []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "PASSWORD=" + adminPassword}
	switch surroundings {
	case whileUp:
		house := newUpHouse(t)
		house.env = append(house.env, "GATEHOUSE_ADMIN_PASSWORD="+adminPassword)
		house.up(t)
		ports["8001"] = house.url[strings.LastIndex(house.url, ":")+1:]
		env = append(env, "GATEHOUSE_DATA_DIR="+house.dir)
	case onDatabase:
		env = append(env, "DATABASE_URL="+passwordDatabase(t))
	case besideSystem, afterSystem:
		running := newDocumentedSystem(t)
		ports["8001"] = running.url[strings.LastIndex(running.url, ":")+1:]
		env = append(env, running.roles["serve"].env...)
		if surroundings == afterSystem {
			running.processes["serve"].interrupt(t)
			break
		}
		defer running.stillWorks(t)
	case inTree:
		copyTree(t, work)
		env = append(env, "GATEHOUSE_DATA_DIR="+newUpHouse(t).dir)
	default:
		t.Fatalf("the page doesn't say what its commands find: write %s… -->", commandsMark)
	}
	for port, own := range ports {
		script = strings.ReplaceAll(script, ":"+port, ":"+own)
	}
	cmd := exec.Command("bash", "-c", script)
	cmd.Dir = work
	cmd.Env = append(os.Environ(), env...)
	// A file, for what the commands leave running holds on to it.
	said, err := os.Create(filepath.Join(bin, "said"))
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
		t.Fatalf("the commands fail: %v\n%s", err, read(t, said.Name()))
	}
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
