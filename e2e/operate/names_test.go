package operate

import (
	"slices"
	"strings"
	"testing"

	"gatehouse/e2e/harness"
	"gatehouse/internal/pgtest"
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

// After a rollback, the environment has settings of the newer binary.
func TestARolledBackProcessIgnoresTheSettingsOfANewerOne(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.ThreeProcesses)
	newer := []string{"GATEHOUSE_OF_TOMORROW=on", "GATEHOUSE_KEY_OF_TOMORROW_FILE=/run/secrets/tomorrow"}
	roles := []string{harness.RoleUsers, harness.RoleAuth, harness.RoleBff}
	for _, name := range roles {
		settings := slices.Concat(s.Roles[name].Env, newer, []string{"GATEHOUSE_LISTEN=" + harness.FreeAddress(t)})
		status, said := harness.RunCommand(t, settings, name)
		if status != harness.ExitUsage || !strings.Contains(said, "GATEHOUSE_OF_TOMORROW: is not a setting") {
			t.Errorf("%s with an unknown setting: exit status %d, said %s", name, status, said)
		}
	}
	for _, service := range []string{harness.RoleAuth, harness.RoleUsers} {
		if _, err := s.Owner.Exec(t.Context(), `UPDATE `+service+`.applied_schema SET setting_names = '{GATEHOUSE_LISTEN,GATEHOUSE_OF_TOMORROW,GATEHOUSE_KEY_OF_TOMORROW}'`); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range roles {
		rolledBack := s.Copy(t, name, newer...).Processes[name]
		for _, variable := range []string{"GATEHOUSE_OF_TOMORROW", "GATEHOUSE_KEY_OF_TOMORROW_FILE"} {
			if said := rolledBack.Stderr.String(); !strings.Contains(said, "setting of a newer version ignored") || !strings.Contains(said, variable) {
				t.Errorf("%s said %s\nwant a warning about %s", name, said, variable)
			}
		}
		settings := slices.Concat(s.Roles[name].Env, []string{"GATEHOUSE_ORIGNS=x", "GATEHOUSE_LISTEN=" + harness.FreeAddress(t)})
		if status, said := harness.RunCommand(t, settings, name); status != harness.ExitUsage || !strings.Contains(said, "GATEHOUSE_ORIGNS: is not a setting") {
			t.Errorf("%s with a misspelt setting: exit status %d, said %s", name, status, said)
		}
	}
}

// The newest binary records its settings, and one with the same schema adds its own.
func TestApplyRecordsTheNamesOfTheSettings(t *testing.T) {
	t.Parallel()
	database := pgtest.Empty(t)
	env := []string{"DATABASE_URL=" + database, "GATEHOUSE_SECRET_KEY=" + harness.SecretKey}
	apply := func() {
		if status, said := harness.RunCommand(t, env, "schema", "apply"); status != 0 {
			t.Fatalf("schema apply: exit status %d, said %s", status, said)
		}
	}
	apply()
	conn := pgtest.Connect(t, database)
	const recorded = `
		SELECT array_to_string(ARRAY(SELECT s FROM unnest(a.setting_names) AS s WHERE s IN ('GATEHOUSE_LISTEN', 'SMTP_URL', 'DATABASE_URL', 'GATEHOUSE_OF_TODAY', 'GATEHOUSE_OF_TOMORROW')), ' ')
		FROM auth.applied_schema a JOIN users.applied_schema u USING (setting_names)`
	if got, want := textOf(t, conn, recorded), "DATABASE_URL GATEHOUSE_LISTEN SMTP_URL"; got != want {
		t.Errorf("recorded %q, want %q", got, want)
	}
	set := func(sql string) {
		for _, service := range []string{"auth", "users"} {
			if _, err := conn.Exec(t.Context(), strings.ReplaceAll(sql, "SCHEMA", service)); err != nil {
				t.Fatal(err)
			}
		}
	}
	set(`UPDATE SCHEMA.applied_schema SET setting_names = '{GATEHOUSE_OF_TODAY}'`)
	apply()
	if got, want := textOf(t, conn, recorded), "DATABASE_URL GATEHOUSE_LISTEN GATEHOUSE_OF_TODAY SMTP_URL"; got != want {
		t.Errorf("recorded %q beside another binary with this schema, want %q", got, want)
	}
	set(`UPDATE SCHEMA.applied_schema SET number = number - 1`)
	apply()
	if got, want := textOf(t, conn, recorded), "DATABASE_URL GATEHOUSE_LISTEN SMTP_URL"; got != want {
		t.Errorf("recorded %q after an upgrade, want %q", got, want)
	}
	set(`UPDATE SCHEMA.applied_schema SET number = number + 1000, setting_names = setting_names || '{GATEHOUSE_OF_TOMORROW}'`)
	apply()
	if got, want := textOf(t, conn, recorded), "DATABASE_URL GATEHOUSE_LISTEN SMTP_URL GATEHOUSE_OF_TOMORROW"; got != want {
		t.Errorf("recorded %q after an older binary applied its schema, want %q", got, want)
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
