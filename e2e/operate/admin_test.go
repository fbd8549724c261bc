package operate

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/testneed"
)

func TestAdminListsGrantsAndRevokes(t *testing.T) {
	t.Parallel()
	h := harness.NewEmbedded(t)
	h.Env = append(h.Env, "GATEHOUSE_ADMIN_PASSWORD="+harness.AdminPassword)
	h.Up(t)
	h.SignUp(t, "ada@example.com")
	dir := h.Env[:1]
	roles := func() []string {
		t.Helper()
		response, err := h.Client("").Auth.Login(t.Context(), &bffv1.LoginRequest{Email: "ada@example.com", Password: harness.Password})
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
		{[]string{"list"}, 0, harness.AdminEmail},
		{[]string{"grant", "ADA@example.com"}, 0, "is an administrator now"},
		{[]string{"grant", "ada@example.com"}, 0, "is an administrator already"},
		{[]string{"grant", "nobody@example.com"}, 1, "no account has the email nobody@example.com"},
	} {
		if status, said := harness.RunCommand(t, dir, append([]string{"admin"}, test.args...)...); status != test.status || !strings.Contains(said, test.says) {
			t.Errorf("admin %v: exit status %d, said %s", test.args, status, said)
		}
	}
	if got := roles(); !slices.Contains(got, "admin") {
		t.Errorf("after grant, Ada's roles are %v", got)
	}
	if _, said := harness.RunCommand(t, dir, "admin", "list"); !strings.Contains(said, "ada@example.com") || strings.Count(said, "active") != 2 {
		t.Errorf("admin list said %s", said)
	}
	if status, said := harness.RunCommand(t, dir, "admin", "revoke", "ada@example.com"); status != 0 || !strings.Contains(said, "no longer an administrator") {
		t.Errorf("admin revoke: exit status %d, said %s", status, said)
	}
	if got := roles(); slices.Contains(got, "admin") {
		t.Errorf("after revoke, Ada's roles are %v", got)
	}
	if status, said := harness.RunCommand(t, dir, "admin", "revoke", harness.AdminEmail); status != 1 || !strings.Contains(said, "administrator") {
		t.Errorf("admin revoke of the last one: exit status %d, said %s", status, said)
	}
}

func TestUpSaysHowToLookAtItsDataAndWhatItIgnores(t *testing.T) {
	t.Parallel()
	h := harness.NewEmbedded(t)
	first, _ := h.Up(t)
	first.Interrupt(t)
	h.Env = append(h.Env, "GATEHOUSE_ADMIN_PASSWORD="+harness.AdminPassword)
	_, banner := h.Up(t)
	if got := harness.BannerField(banner, "administrator"); !strings.Contains(got, "GATEHOUSE_ADMIN_PASSWORD is for the first run alone") {
		t.Errorf("of a password that is ignored, the banner says %q", got)
	}
	look := harness.BannerField(banner, "look at data")
	ours, line, ok := strings.Cut(look, ", or: ")
	if !ok || !strings.Contains(ours, " psql --data-dir "+h.Dir) {
		t.Fatalf("the banner says to look at the data by %q", look)
	}
	testneed.Program(t, "psql")
	const query = "SELECT email FROM auth.accounts"
	out, err := exec.CommandContext(t.Context(), "sh", "-c", line+` --tuples-only --no-align --command "`+query+`"`).CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != harness.AdminEmail {
		t.Errorf("%s: %v, %s", line, err, out)
	}
	if status, said := harness.RunCommand(t, h.Env[:1], "psql", "-c", query); status != 0 || !strings.Contains(said, harness.AdminEmail) {
		t.Errorf("gatehouse psql: exit status %d, said %s", status, said)
	}
	if status, said := harness.RunCommand(t, []string{h.Env[0], "PATH=" + t.TempDir()}, "psql"); status != 1 || !strings.Contains(said, "psql isn't on this machine") {
		t.Errorf("gatehouse psql where there is none: exit status %d, said %s", status, said)
	}
	if status, said := harness.RunCommand(t, []string{"GATEHOUSE_DATA_DIR=" + t.TempDir()}, "psql"); status != harness.ExitUsage || !strings.Contains(said, "DATABASE_URL") {
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
		h := harness.NewEmbedded(t)
		p := &harness.Process{Cmd: exec.Command(path), Ended: make(chan struct{})}
		p.Cmd.Env = append([]string{harness.AsGatehouse(), "PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}, h.Env...)
		p.Cmd.Stdout, p.Cmd.Stderr = &p.Stdout, &p.Stderr
		if err := p.Cmd.Start(); err != nil {
			t.Fatal(err)
		}
		go func() { defer close(p.Ended); _ = p.Cmd.Wait() }()
		t.Cleanup(p.Kill)
		h.AwaitBanner(t, p)
		if got := harness.BannerField(p.Stdout.String(), "look at data"); !strings.HasPrefix(got, want) {
			t.Errorf("%s says %q, want it to begin with %q", path, got, want)
		}
		p.Interrupt(t)
	}
}
