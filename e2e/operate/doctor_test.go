package operate

import (
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gatehouse/e2e/harness"
	"gatehouse/internal/pgtest"
)

// doctor runs the doctor and returns its exit status and what it printed.
func doctor(t *testing.T, env []string, args ...string) (int, string) {
	t.Helper()
	// A port that is free, unless env names another: 8001 may be anybody's.
	p := harness.StartProcess(t, append([]string{"GATEHOUSE_LISTEN=" + harness.FreeAddress(t)}, env...), append([]string{"doctor"}, args...)...)
	p.Wait(t)
	return p.Cmd.ProcessState.ExitCode(), p.Stdout.String() + p.Stderr.String()
}

func wantHealthy(t *testing.T, what string, status int, said string, wants ...string) {
	t.Helper()
	if status != 0 || strings.Contains(said, "BAD") {
		t.Errorf("%s: exit status %d and\n%s", what, status, said)
	}
	for _, want := range wants {
		if !strings.Contains(said, want) {
			t.Errorf("%s: it doesn't say %q:\n%s", what, want, said)
		}
	}
}

func wantFault(t *testing.T, what string, status int, said, fault, fix string) {
	t.Helper()
	at := strings.Index(said, "BAD  "+fault)
	if status != 1 || at < 0 {
		t.Errorf("%s: exit status %d and\n%s\nwant 1 and BAD  %s", what, status, said, fault)
		return
	}
	if _, rest, _ := strings.Cut(said[at:], "\n"); !strings.HasPrefix(rest, "     fix: "+fix) {
		t.Errorf("%s: the fix is not %q:\n%s", what, fix, said)
	}
}

func TestDoctorLooksAtUpBeforeAndWhileAndAfterItRuns(t *testing.T) {
	t.Parallel()
	h := harness.NewEmbedded(t)
	status, said := doctor(t, h.Env)
	wantHealthy(t, "before the first run", status, said, "will be created")
	if _, err := os.Stat(h.Dir); err == nil {
		t.Error("the doctor has made the data folder")
	}
	p, _ := h.Up(t)
	status, said = doctor(t, h.Env)
	wantHealthy(t, "while it runs", status, said, "ok   database of auth", "ok   database of users", "ok   GATEHOUSE_DATA_DIR")
	before, err := os.ReadDir(h.Dir)
	if err != nil {
		t.Fatal(err)
	}
	p.Interrupt(t)
	status, said = doctor(t, h.Env)
	wantHealthy(t, "after it ran", status, said, "it is not running")
	if after, err := os.ReadDir(h.Dir); err != nil || len(after) != len(before) {
		t.Errorf("the doctor has left something: %v, %v", after, err)
	}

	secret := filepath.Join(h.Dir, "secret.key")
	if err := os.Chmod(secret, 0o644); err != nil {
		t.Fatal(err)
	}
	status, said = doctor(t, h.Env)
	wantFault(t, "a key for all to read", status, said, secret+": others may read it (0644)", "chmod 600 "+secret)
	if err := os.WriteFile(secret, []byte("spilt"), 0o600); err != nil {
		t.Fatal(err)
	}
	status, said = doctor(t, h.Env)
	wantFault(t, "a key that is none", status, said, secret+": it is not 32 bytes in hex", "put it back")
	if err := os.Remove(secret); err != nil {
		t.Fatal(err)
	}
	status, said = doctor(t, h.Env)
	wantFault(t, "a key that is gone", status, said, secret+": it is missing, and the data can't be used without it", "put it back")
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	status, said = doctor(t, []string{"GATEHOUSE_DATA_DIR=" + file})
	wantFault(t, "a folder that is a file", status, said, "GATEHOUSE_DATA_DIR: "+file+" is not a folder", "name another")
}

// unsynced are what the doctor says of the tests' own Postgres, which is quick
// rather than durable.
func unsynced(t *testing.T, s *harness.System, said string) string {
	t.Helper()
	var fsync string
	if err := s.Owner.QueryRow(t.Context(), "SHOW fsync").Scan(&fsync); err != nil {
		t.Fatal(err)
	}
	if off := strings.Contains(said, "fsync is off"); off != (fsync == "off") {
		t.Errorf("fsync is %s, and the doctor says\n%s", fsync, said)
	}
	var kept []string
	lines := strings.Split(said, "\n")
	for i := 0; i < len(lines); i++ {
		if strings.Contains(lines[i], "may lose what it has acknowledged") {
			i++ // and its fix
			continue
		}
		kept = append(kept, lines[i])
	}
	return strings.Join(kept, "\n")
}

func TestDoctorFindsWhatKeepsARoleFromRunning(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.ThreeProcesses)
	with := func(role string, changes ...string) []string {
		return append(slices.Clone(s.Roles[role].Env), changes...)
	}
	setting := func(role, name string) string {
		for _, variable := range s.Roles[role].Env {
			if value, ok := strings.CutPrefix(variable, name+"="); ok {
				return value
			}
		}
		t.Fatalf("%s has no %s", role, name)
		return ""
	}
	authDatabase := setting(harness.RoleAuth, "AUTH_DATABASE_URL")

	status, said := doctor(t, with(harness.RoleBff), harness.RoleBff)
	wantHealthy(t, "the gateway", status, said, "ok   AUTH_URL: auth answers, with the same internal key and time", "ok   USERS_URL")
	for role, well := range map[string]string{harness.RoleAuth: "ok   USERS_URL", harness.RoleUsers: "ok   settings"} {
		_, said := doctor(t, with(role), role)
		if said = unsynced(t, s, said); strings.Contains(said, "BAD") || !strings.Contains(said, well) {
			t.Errorf("%s: it says\n%s", role, said)
		}
	}

	otherKey := strings.Repeat("c", 64)
	for what, test := range map[string]struct {
		role       string
		changes    []string
		fault, fix string
	}{
		"a misspelt setting": {harness.RoleBff, []string{"GATEHOUSE_ORIGIN=x"}, "GATEHOUSE_ORIGIN: is not a setting", "did you mean GATEHOUSE_ORIGINS?"},
		"another internal key": {harness.RoleBff, []string{"GATEHOUSE_INTERNAL_KEY=" + otherKey},
			"GATEHOUSE_INTERNAL_KEY: auth has another key and refuses the call", "set the same key for all roles"},
		"another internal key at users": {harness.RoleAuth, []string{"GATEHOUSE_INTERNAL_KEY=" + otherKey},
			"GATEHOUSE_INTERNAL_KEY: users has another key and refuses the call", "set the same key for all roles"},
		"users where auth should be": {harness.RoleBff, []string{"AUTH_URL=" + setting(harness.RoleBff, "USERS_URL")},
			"AUTH_URL: the server at " + setting(harness.RoleBff, "USERS_URL") + " is not auth", "correct the address"},
		"nobody": {harness.RoleBff, []string{"USERS_URL=http://" + harness.FreeAddress(t)}, "USERS_URL: nothing answers at ", "start users there"},
		"another secret key": {harness.RoleAuth, []string{"GATEHOUSE_SECRET_KEY=" + otherKey},
			"GATEHOUSE_SECRET_KEY: it isn't the one that sealed this database's signing keys", "set the one that did"},
		"a wrong password": {harness.RoleAuth, []string{"AUTH_DATABASE_URL=" + strings.Replace(authDatabase, ":auth@", ":wrong@", 1)},
			"AUTH_DATABASE_URL: Postgres refuses the sign-in of ", "correct the user and the password"},
		"no such database": {harness.RoleAuth, []string{"AUTH_DATABASE_URL=" + withPath(t, authDatabase, "/nowhere")},
			"AUTH_DATABASE_URL: nowhere on ", "create the database"},
		"no such host": {harness.RoleAuth, []string{"AUTH_DATABASE_URL=postgres://auth:auth@nowhere.invalid/db"},
			"AUTH_DATABASE_URL: ", ""},
		"no Postgres": {harness.RoleAuth, []string{"AUTH_DATABASE_URL=postgres://auth:auth@" + harness.FreeAddress(t) + "/db"},
			"AUTH_DATABASE_URL: Postgres can't be reached at ", "start it"},
		"the owner's login": {harness.RoleAuth, []string{"AUTH_DATABASE_URL=" + setting("up", "DATABASE_URL")}, "database of auth: its role ", "give AUTH_DATABASE_URL a role of its own"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			status, said := doctor(t, with(test.role, test.changes...), test.role)
			wantFault(t, what, status, said, test.fault, test.fix)
			if strings.Contains(said, "wrong@") || strings.Contains(said, harness.SecretKey) || strings.Contains(said, harness.InternalKey) || strings.Contains(said, otherKey) {
				t.Errorf("it prints a secret:\n%s", said)
			}
		})
	}
}

// What is wrong with a database that others use too would be seen by their
// tests, so that each of these has its own.
func TestDoctorFindsWhatIsWrongWithADatabase(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		what, change, fault, fix string
	}{
		{"an old schema", "UPDATE users.applied_schema SET number = 1", "database of users: the schema users has number 1", "run gatehouse schema apply"},
		{"no schema", "DROP SCHEMA users CASCADE", "database of users: the schema users was never applied", "run gatehouse schema apply"},
		{"a role that sees more", "GRANT USAGE ON SCHEMA auth TO PUBLIC", "database of users: its role ", "give USERS_DATABASE_URL a role of its own"},
	} {
		t.Run(test.what, func(t *testing.T) {
			t.Parallel()
			database := pgtest.New(t)
			if _, err := pgtest.Connect(t, database.Owner).Exec(t.Context(), test.change); err != nil {
				t.Fatal(err)
			}
			status, said := doctor(t, []string{"USERS_DATABASE_URL=" + database.Users, "GATEHOUSE_INTERNAL_KEY=" + harness.InternalKey}, harness.RoleUsers)
			wantFault(t, test.what, status, said, test.fault, test.fix)
		})
	}
}

func TestDoctorAsksWhetherTheOwnerMayApplyTheSchema(t *testing.T) {
	t.Parallel()
	database := pgtest.Empty(t)
	owner := pgtest.Connect(t, database)
	name := owner.Config().Database + "_poor"
	if _, err := owner.Exec(t.Context(), `CREATE ROLE "`+name+`" LOGIN PASSWORD 'poor'`); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if _, err := owner.Exec(t.Context(), `DROP ROLE "`+name+`"`); err != nil {
			t.Error(err)
		}
	}()
	poor, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	poor.User = url.UserPassword(name, "poor")
	env := []string{"GATEHOUSE_DATA_DIR=" + filepath.Join(t.TempDir(), "data")}
	status, said := doctor(t, append(env, "DATABASE_URL="+poor.String()))
	wantFault(t, "a poor owner", status, said, "DATABASE_URL: "+name+" may not create the services' roles", `ALTER ROLE "`+name+`" CREATEROLE`)
	wantFault(t, "a poor owner", status, said, "DATABASE_URL: "+name+" may not create a scratch database", `ALTER ROLE "`+name+`" CREATEDB`)
	status, said = doctor(t, append(env, "DATABASE_URL="+database))
	wantHealthy(t, "the owner", status, said, "may apply the schema")
}

func withPath(t *testing.T, text, path string) string {
	t.Helper()
	parsed, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	parsed.Path = path
	return parsed.String()
}
