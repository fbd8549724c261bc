package operate

import (
	"strings"
	"testing"

	"gatehouse/e2e/harness"
)

func TestAMisspeltSettingGetsASuggestion(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"GATEHOUSE_SMTP_URL":     "did you mean SMTP_URL?",
		"GATEHOUSE_DATABASE_URL": "did you mean DATABASE_URL?",
		"GATEHOUSE_ORIGNS":       "did you mean GATEHOUSE_ORIGINS?",
		"GATEHOUSE_PUBLIC_ULR":   "did you mean GATEHOUSE_PUBLIC_URL?",
		"GATEHOUSE_COOKIE":       "did you mean GATEHOUSE_COOKIES?",
		"GATEHOUSE_FLUX":         "see gatehouse --help, or unset it",
	} {
		status, said := harness.RunCommand(t, []string{name + "=x"}, "users")
		if status != harness.ExitUsage || !strings.Contains(said, name+": is not a setting: "+want) {
			t.Errorf("%s: exit status %d, said %s\nwant %q", name, status, said, want)
		}
	}
}

// A name without our prefix may belong to another program, so it only causes a warning.
func TestANameThatIsAlmostASettingIsWarnedAbout(t *testing.T) {
	t.Parallel()
	const warning = "unknown environment variable, similar to a setting"
	for variable, want := range map[string]bool{
		"SMTP_ULR=x": true, "DATABSE_URL=x": true, "REDIS_UR=x": true,
		"AUTH0_URL=https://x.example": true, // one letter from AUTH_URL, and Auth0's
		"SMTP_HOST=x":                 false, "PATH_URL=x": false, "SMTP_URL_FILE=/dev/null": false,
	} {
		status, said := harness.RunCommand(t, []string{variable}, "policy")
		if got := strings.Contains(said, warning); got != want || status != 0 {
			t.Errorf("%s: exit status %d, warned %t, want %t:\n%s", variable, status, got, want, said)
		}
	}
	if _, said := harness.RunCommand(t, []string{"SMTP_ULR=x", "SMTP_URL=smtp://localhost"}, "policy"); strings.Contains(said, warning) {
		t.Errorf("warned although the setting itself is set: %s", said)
	}
}

func TestHelpShowsDefaultsAndVersionIsAFlag(t *testing.T) {
	t.Parallel()
	status, said := harness.RunCommand(t, nil, "serve", "--help")
	said = strings.Join(strings.Fields(said), " ")
	for _, want := range []string{"Default: 127.0.0.1:8001.", "Default: 2s.", "Default: verify.", "--smtp-url=URL"} {
		if status != 0 || !strings.Contains(said, want) {
			t.Errorf("serve --help: exit status %d, doesn't say %q:\n%s", status, want, said)
		}
	}
	_, command := harness.RunCommand(t, nil, "version")
	if status, flag := harness.RunCommand(t, nil, "--version"); status != 0 || flag != command || !strings.HasPrefix(flag, "gatehouse ") {
		t.Errorf("--version: exit status %d, said %q, and the command version %q", status, flag, command)
	}
}
