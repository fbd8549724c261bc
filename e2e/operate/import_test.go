package operate

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
)

// Into a running system: an imported user signs in with the password of
// before, and users comes to know of them.
func TestAccountsAreImportedFromAnotherSystem(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.ThreeProcesses)
	file := filepath.Join(t.TempDir(), "accounts.jsonl")
	lines := `{"email":"imported@example.com","password_hash":"$2b$05$0.wUeNFL93Q4uJmxzo6pIOvigk1jpdNk9mTt.12yQ9Y1QRmXSnZTi","first_name":"Grace"}
{"email":"weak@example.com","password_hash":"5f4dcc3b5aa765d61d8327deb882cf99"}
`
	if err := os.WriteFile(file, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	env := s.Roles[harness.RoleAuth].Env
	settings := []string{}
	for _, variable := range env { // what the command reads
		if strings.HasPrefix(variable, "AUTH_DATABASE_URL=") || strings.HasPrefix(variable, "GATEHOUSE_SECRET_KEY=") {
			settings = append(settings, variable)
		}
	}
	for _, test := range []struct {
		args []string
		says string
		code int
		rows int
	}{
		{[]string{"--dry-run", file}, "1 accounts could be imported.", 1, 0},
		{[]string{file}, "1 accounts are imported.", 1, 1},
		{[]string{file}, "line 1: email: another account has it", 1, 1},
		{[]string{"-"}, "0 accounts are imported.", 0, 1}, // nothing comes in
		{[]string{file + ".missing"}, "", 1, 1},
	} {
		p := harness.StartProcess(t, settings, append([]string{"admin", "import"}, test.args...)...)
		p.Wait(t)
		if code := p.Cmd.ProcessState.ExitCode(); code != test.code || !strings.Contains(p.Stdout.String(), test.says) {
			t.Errorf("admin import %v: exit status %d, said %s%s; want %d and %q", test.args, code, p.Stdout.String(), p.Stderr.String(), test.code, test.says)
		}
		if strings.HasSuffix(test.args[len(test.args)-1], ".jsonl") && !strings.Contains(p.Stdout.String(), "line 2: password_hash: ") {
			t.Errorf("admin import %v doesn't say what is wrong with line 2: %s", test.args, p.Stdout.String())
		}
		if n := s.Count(t, "SELECT count(*) FROM auth.accounts WHERE email IN ('imported@example.com', 'weak@example.com')"); n != test.rows {
			t.Errorf("admin import %v: there are %d of the accounts, want %d", test.args, n, test.rows)
		}
	}
	harness.Eventually(t, 20*time.Second, "the profile", func() error {
		signedIn, err := s.Client("").Auth.Login(t.Context(), &bffv1.LoginRequest{Email: "imported@example.com", Password: harness.Password})
		if err == nil && signedIn.GetSignedIn().GetUser().GetFirstName() != "Grace" {
			err = fmt.Errorf("it is %v", signedIn)
		}
		return err
	})
}
