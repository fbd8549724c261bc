package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/testneed"
)

func TestAdminListsGrantsAndRevokes(t *testing.T) {
	t.Parallel()
	h := newUpHouse(t)
	h.env = append(h.env, "GATEHOUSE_ADMIN_PASSWORD="+adminPassword)
	h.up(t)
	h.signUp(t, "ada@example.com")
	dir := h.env[:1]
	roles := func() []string {
		t.Helper()
		response, err := h.client("").auth.Login(t.Context(), &bffv1.LoginRequest{Email: "ada@example.com", Password: "correct horse battery"})
		if err != nil {
			t.Fatal(err)
		}
		return response.GetSignedIn().GetUser().GetRoles()
	}
	for _, test := range []struct {
		args   []string
		status int
		says   string
	}{
		{[]string{"list"}, 0, adminEmail},
		{[]string{"grant", "ADA@example.com"}, 0, "is an administrator now"},
		{[]string{"grant", "ada@example.com"}, 0, "is an administrator already"},
		{[]string{"grant", "nobody@example.com"}, 1, "no account has the email nobody@example.com"},
	} {
		if status, said := ended(t, dir, append([]string{"admin"}, test.args...)...); status != test.status || !strings.Contains(said, test.says) {
			t.Errorf("admin %v: exit status %d, said %s", test.args, status, said)
		}
	}
	if got := roles(); !slices.Contains(got, "admin") {
		t.Errorf("after grant, Ada's roles are %v", got)
	}
	if _, said := ended(t, dir, "admin", "list"); !strings.Contains(said, "ada@example.com") || strings.Count(said, "active") != 2 {
		t.Errorf("admin list said %s", said)
	}
	if status, said := ended(t, dir, "admin", "revoke", "ada@example.com"); status != 0 || !strings.Contains(said, "no administrator any more") {
		t.Errorf("admin revoke: exit status %d, said %s", status, said)
	}
	if got := roles(); slices.Contains(got, "admin") {
		t.Errorf("after revoke, Ada's roles are %v", got)
	}
	if status, said := ended(t, dir, "admin", "revoke", adminEmail); status != 1 || !strings.Contains(said, "administrator") {
		t.Errorf("admin revoke of the last one: exit status %d, said %s", status, said)
	}
}

func TestUpSaysHowToLookAtItsDataAndWhatItIgnores(t *testing.T) {
	t.Parallel()
	h := newUpHouse(t)
	first, _ := h.up(t)
	first.interrupt(t)
	h.env = append(h.env, "GATEHOUSE_ADMIN_PASSWORD="+adminPassword)
	_, banner := h.up(t)
	if got := field(banner, "administrator"); !strings.Contains(got, "GATEHOUSE_ADMIN_PASSWORD is for the first run alone") {
		t.Errorf("of a password that is ignored, the banner says %q", got)
	}
	look := field(banner, "look at data")
	ours, line, ok := strings.Cut(look, ", or: ")
	if !ok || !strings.Contains(ours, " psql --data-dir "+h.dir) {
		t.Fatalf("the banner says to look at the data by %q", look)
	}
	testneed.Program(t, "psql")
	const query = "SELECT email FROM auth.accounts"
	out, err := exec.CommandContext(t.Context(), "sh", "-c", line+` --tuples-only --no-align --command "`+query+`"`).CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != adminEmail {
		t.Errorf("%s: %v, %s", line, err, out)
	}
	if status, said := ended(t, h.env[:1], "psql", "-c", query); status != 0 || !strings.Contains(said, adminEmail) {
		t.Errorf("gatehouse psql: exit status %d, said %s", status, said)
	}
	if status, said := ended(t, []string{h.env[0], "PATH=" + t.TempDir()}, "psql"); status != 1 || !strings.Contains(said, "psql isn't on this machine") {
		t.Errorf("gatehouse psql where there is none: exit status %d, said %s", status, said)
	}
	if status, said := ended(t, []string{"GATEHOUSE_DATA_DIR=" + t.TempDir()}, "psql"); status != exitMistake || !strings.Contains(said, "DATABASE_URL") {
		t.Errorf("gatehouse psql in another folder: exit status %d, said %s", status, said)
	}
}

// A hint names the program as it was called: go run leaves no gatehouse behind.
func TestHintsNameTheProgramAsItWasCalled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Link(os.Args[0], filepath.Join(dir, "front-door")); err != nil {
		binary, err := os.ReadFile(os.Args[0])
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "front-door"), binary, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]string{os.Args[0]: "go run . psql", filepath.Join(dir, "front-door"): filepath.Join(dir, "front-door") + " psql"} {
		h := newUpHouse(t)
		p := &process{cmd: exec.Command(path), ended: make(chan struct{})}
		p.cmd.Env = append([]string{asGatehouse(), "PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}, h.env...)
		p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
		if err := p.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		go func() { defer close(p.ended); _ = p.cmd.Wait() }()
		t.Cleanup(p.kill)
		h.awaitBanner(t, p)
		if got := field(p.stdout.String(), "look at data"); !strings.HasPrefix(got, want) {
			t.Errorf("%s says %q, want it to begin with %q", path, got, want)
		}
		p.interrupt(t)
	}
}
