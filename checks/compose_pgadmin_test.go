package checks

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"

	"gatehouse/checks/composefile"
	"gatehouse/internal/schema"
)

func TestPgAdminIsConnectedToTheDatabase(t *testing.T) {
	t.Parallel()
	project := composefile.Fresh(t)
	pgadmin, postgres := project.Services["pgadmin"], project.Services["postgres"]
	for _, mount := range pgadmin.Volumes {
		if _, err := os.Stat(mount.Source); mount.Type == types.VolumeTypeBind && err != nil {
			t.Errorf("pgadmin mounts what isn't there: %v", err)
		}
	}
	i := slices.IndexFunc(pgadmin.Volumes, func(v types.ServiceVolumeConfig) bool { return v.Target == "/pgadmin4/servers.json" })
	if i < 0 {
		t.Fatal("pgadmin is given no list of servers")
	}
	text, err := os.ReadFile(pgadmin.Volumes[i].Source)
	if err != nil {
		t.Fatal(err)
	}
	var list struct {
		Servers map[string]struct {
			Name, Group, Host, MaintenanceDB, Username string
			Port                                       int
			ConnectionParameters                       map[string]string
		}
	}
	if err := json.Unmarshal(text, &list); err != nil {
		t.Fatalf("the list of servers: %v", err)
	}
	server, ok := list.Servers["1"]
	if !ok || len(list.Servers) != 1 {
		t.Fatalf("the list has the servers %v, want one", list.Servers)
	}
	database := *postgres.Environment["POSTGRES_DB"]
	reader, err := url.Parse(*project.Services["schema"].Environment["READER_DATABASE_URL"])
	if err != nil {
		t.Fatal(err)
	}
	user := reader.User.Username()
	password, _ := reader.User.Password()
	if user != schema.RoleName(database, schema.Reader) {
		t.Errorf("the schema job makes %s for pgAdmin", user)
	}
	if server.Name == "" || server.Group == "" || server.Host != "postgres" || server.Port != 5432 || server.MaintenanceDB != database || server.Username != user {
		t.Errorf("the list has %+v, want postgres:5432, the database %s and the user %s", server, database, user)
	}

	// In server mode the image copies the password file that PGPASS_FILE names to
	// the storage of its first user, where the list's paths begin, with the mode
	// that libpq insists on.
	if got := server.ConnectionParameters["passfile"]; got != "/.pgpass" {
		t.Errorf("the list's password file is %q", got)
	}
	want := fmt.Sprintf("postgres:5432:*:%s:%s", user, password)
	if got := passwordFileOf(t, pgadmin); got != want+"\n" {
		t.Errorf("the password file is %q, want %q", got, want)
	}
	for name := range pgadmin.Environment {
		value := *pgadmin.Environment[name]
		if owner := *postgres.Environment["POSTGRES_PASSWORD"]; strings.Contains(value, owner) || strings.Contains(want, owner) {
			t.Errorf("pgAdmin's %s holds the owner's password", name)
		}
	}
}

// passwordFileOf runs pgAdmin's entry point, except for the image's own, and returns the
// password file that it writes.
func passwordFileOf(t *testing.T, pgadmin types.ServiceConfig) string {
	t.Helper()
	entry := slices.Clone(pgadmin.Entrypoint)
	i := slices.IndexFunc(pgadmin.Volumes, func(v types.ServiceVolumeConfig) bool { return len(entry) == 3 && v.Target == entry[1] })
	if i < 0 || entry[2] != "/entrypoint.sh" {
		t.Fatalf("the entry point of pgAdmin is %q, want a mounted script that runs the image's", entry)
	}
	file := filepath.Join(t.TempDir(), "pgpass")
	run := exec.CommandContext(t.Context(), entry[0], pgadmin.Volumes[i].Source, "env")
	run.Env = []string{"PATH=" + os.Getenv("PATH"), "PGPASS=" + *pgadmin.Environment["PGPASS"], "PGPASS_FILE=" + file}
	said, err := run.CombinedOutput()
	if err != nil || !strings.Contains(string(said), "PGPASS_FILE="+file) || strings.Contains(string(said), "PGPASS=") {
		t.Errorf("the image's entry point runs with %s (%v), want PGPASS_FILE and no PGPASS", said, err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the password file has the mode %v, want 0600", info.Mode())
	}
	return string(text)
}

// DNS rebinding: a browser takes a page's requests to any address that the
// page's host name is pointed at, and sends that name as Host.
func TestPgAdminAsksForThePasswordAndAnswersThisMachineAlone(t *testing.T) {
	t.Parallel()
	script := composefile.NewEnvScript(t)
	_, said, secrets := script.RunVerbose(t)
	project, err := composefile.Load(t.Context(), secrets)
	if err != nil {
		t.Fatal(err)
	}
	environment := project.Services["pgadmin"].Environment
	if mode := environment["PGADMIN_CONFIG_SERVER_MODE"]; mode == nil || *mode != "True" {
		t.Error("PGADMIN_CONFIG_SERVER_MODE is not True: pgAdmin would ask for no password")
	}
	// A literal of Python.
	var hosts []string
	if allowed := environment["PGADMIN_CONFIG_ALLOWED_HOSTS"]; allowed == nil {
		t.Error("pgAdmin answers any host")
	} else if err := json.Unmarshal([]byte(strings.ReplaceAll(*allowed, "'", `"`)), &hosts); err != nil || !slices.Equal(hosts, []string{"localhost", "127.0.0.1"}) {
		t.Errorf("pgAdmin answers the hosts %s (%v)", *allowed, err)
	}
	check := project.Services["pgadmin"].HealthCheck.Test
	if at, err := url.Parse(check[len(check)-1]); err != nil || !slices.Contains(hosts, at.Hostname()) {
		t.Errorf("the health check asks %q, whose host pgAdmin would refuse", check)
	}
	password := *environment["PGADMIN_DEFAULT_PASSWORD"]
	_, again, _ := script.RunVerbose(t)
	for when, banner := range map[string]string{"the first time": said, "again": again} {
		for _, want := range []string{"http://localhost:5050", *environment["PGADMIN_DEFAULT_EMAIL"], password} {
			if !strings.Contains(banner, want) {
				t.Errorf("run %s, deploy/env.sh doesn't print %s but:\n%s", when, want, banner)
			}
		}
		for name, secret := range secrets {
			if secret != "" && name != "PGADMIN_PASSWORD" && name != "MAILPIT_PASSWORD" && strings.Contains(banner, secret) {
				t.Errorf("run %s, deploy/env.sh prints %s", when, name)
			}
		}
	}
}

// No file of Compose passes NAME_FILE, so a secret in a file would be lost without a word.
func TestEnvScriptWarnsOfSettingsThatNameFilesOfSecrets(t *testing.T) {
	t.Parallel()
	script := composefile.NewEnvScript(t)
	path, printed, made := script.RunVerbose(t)
	if strings.Contains(printed, "_FILE") {
		t.Errorf("it warns of a fresh .env:\n%s", printed)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text = append(text, "# USERS_URL_FILE=/is/a/comment\nSMTP_URL_FILE=/run/secrets/smtp\nGATEHOUSE_SECRET_KEY_FILE=/run/secrets/key\n"...)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	_, printed, secrets := script.RunVerbose(t)
	if want := "not passed to a container: SMTP_URL_FILE GATEHOUSE_SECRET_KEY_FILE."; !strings.Contains(printed, want) || strings.Contains(printed, "USERS_URL_FILE") {
		t.Errorf("it does not say %q of those alone:\n%s", want, printed)
	}
	if secrets["GATEHOUSE_SECRET_KEY"] != made["GATEHOUSE_SECRET_KEY"] {
		t.Error("the secret key has changed")
	}
}

// The version before made .env without the passwords of pgAdmin and the mailbox, and compose.yaml
// asks for them.
func TestEnvScriptAddsToAnOlderFile(t *testing.T) {
	t.Parallel()
	script := composefile.NewEnvScript(t)
	path, made := script.Run(t)
	old := ""
	for _, name := range slices.Sorted(maps.Keys(made)) {
		if !slices.Contains(composefile.Optional(t), name) && !slices.Contains([]string{"PGADMIN_PASSWORD", "MAILPIT_PASSWORD", "READER_DATABASE_PASSWORD", "GATEHOUSE_IDENTITY_KEY"}, name) {
			old += "\n" + name + "=" + made[name]
		}
	}
	if err := os.WriteFile(path, []byte(old[1:]), 0o600); err != nil { // whose last line has no end
		t.Fatal(err)
	}
	_, secrets := script.Run(t)
	if !slices.Equal(slices.Sorted(maps.Keys(secrets)), slices.Sorted(maps.Keys(made))) {
		t.Errorf(".env has %q, want %q", slices.Sorted(maps.Keys(secrets)), slices.Sorted(maps.Keys(made)))
	}
	for name, before := range made {
		if added := !strings.Contains(old, name+"="); secrets[name] == before == added && before != "" {
			t.Errorf("%s is %q, and was %q", name, secrets[name], before)
		}
	}
	if _, err := composefile.Load(t.Context(), secrets); err != nil {
		t.Errorf("compose.yaml with it: %v", err)
	}
}
