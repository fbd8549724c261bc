package checks

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gatehouse/app"
	"gatehouse/checks/pages"
	"gatehouse/internal/testneed"
)

const systemdFolder = "deploy/systemd/"

// systemdUnits are the units by name, each with the text of its drop-in: one process, the
// roles apart, and what applies the schema for those. A service that make service adds need
// not have one.
func systemdUnits(t *testing.T) map[string]string {
	t.Helper()
	units := map[string]string{"gatehouse.service": "", "gatehouse-schema.service": ""}
	dropIns, err := filepath.Glob(systemdFolder + "gatehouse@*.conf")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range dropIns {
		units[strings.TrimSuffix(filepath.Base(path), ".conf")+".service"] = pages.Read(t, path)
	}
	for _, role := range []string{"auth", "users", "bff"} {
		if units["gatehouse@"+role+".service"] == "" {
			t.Fatalf("there is no drop-in for %s", role)
		}
	}
	return units
}

// unitFile is the file of a unit: the template for an instance.
func unitFile(unit string) string {
	return regexp.MustCompile(`@\w+\.`).ReplaceAllString(unit, "@.")
}

// unitText is a unit with its drop-in, as its process sees it.
func unitText(t *testing.T, unit, dropIn string) string {
	t.Helper()
	name, _, _ := strings.Cut(unit, ".")
	_, instance, _ := strings.Cut(name, "@")
	return strings.ReplaceAll(pages.Read(t, systemdFolder+unitFile(unit))+dropIn, "%i", instance)
}

// The units are valid, and systemd rates the exposure of each as 1.5 of 10 or less.
func TestTheSystemdUnitsAreValidAndHardened(t *testing.T) {
	t.Parallel()
	analyze := testneed.Program(t, "systemd-analyze")
	for unit, dropIn := range systemdUnits(t) {
		folder := t.TempDir()
		// verify requires that the program exists.
		text := strings.ReplaceAll(pages.Read(t, systemdFolder+unitFile(unit)), "/usr/local/bin/gatehouse ", "/bin/true ")
		if err := os.WriteFile(filepath.Join(folder, unitFile(unit)), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if dropIn != "" {
			below := filepath.Join(folder, unit+".d")
			if err := os.Mkdir(below, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(below, "secrets.conf"), []byte(dropIn), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		path := filepath.Join(folder, unit)
		for _, args := range [][]string{{"verify", "--recursive-errors=no", path}, {"security", "--offline=true", "--threshold=15", path}} {
			out, err := exec.CommandContext(t.Context(), analyze, args...).CombinedOutput()
			if err != nil || args[0] == "verify" && len(out) > 0 {
				t.Errorf("systemd-analyze %s %s: %v\n%s", args[0], unit, err, out)
			}
		}
	}
}

// Each unit runs a command that exists, once. Each secret that it sets is a setting that the
// command reads, from a credential that it loads; it loads no other one.
func TestTheSystemdUnitsGiveEachCommandItsSecrets(t *testing.T) {
	t.Parallel()
	for unit, dropIn := range systemdUnits(t) {
		text := unitText(t, unit, dropIn)
		var reads []string
		runs := regexp.MustCompile(`(?m)^Exec\w+=/usr/local/bin/gatehouse (.+)$`).FindAllStringSubmatch(text, -1)
		for _, run := range runs {
			reads = append(reads, settingsOf(t, strings.Fields(run[1]))...)
		}
		var loaded, used []string
		for _, found := range regexp.MustCompile(`(?m)^LoadCredential=([\w.-]+):/etc/gatehouse/([\w.-]+)$`).FindAllStringSubmatch(text, -1) {
			if loaded = append(loaded, found[1]); found[1] != found[2] {
				t.Errorf("%s loads %s from a file of another name, %s", unit, found[1], found[2])
			}
		}
		given := map[string]bool{}
		for _, set := range regexp.MustCompile(`(?m)^Environment=(\w+)_FILE=%d/(\S+)$`).FindAllStringSubmatch(text, -1) {
			if used = append(used, set[2]); !slices.Contains(reads, set[1]) {
				t.Errorf("%s sets %s_FILE, which its command does not read", unit, set[1])
			}
			given[set[1]] = true
		}
		slices.Sort(loaded)
		if slices.Sort(used); !slices.Equal(loaded, used) || len(loaded) == 0 {
			t.Errorf("%s loads the credentials %q and uses %q", unit, loaded, used)
		}
		owner := slices.ContainsFunc(runs, func(run []string) bool { return run[1] == "schema apply" })
		if given["DATABASE_URL"] != owner {
			t.Errorf("%s has the owner's URL: %t, and applies the schema: %t", unit, given["DATABASE_URL"], owner)
		}
		// What a role cannot start without.
		for _, service := range app.Services() {
			if _, apart := systemdUnits(t)["gatehouse@"+service.Name+".service"]; !apart {
				continue
			}
			own := unit == "gatehouse@"+service.Name+".service"
			url := strings.ToUpper(service.Name) + "_DATABASE_URL"
			if want := service.HasTables() && (own || unit == "gatehouse-schema.service"); given[url] != want {
				t.Errorf("%s is given %s: %t, want %t", unit, url, given[url], want)
			}
		}
		if want := unit != "gatehouse-schema.service"; given["GATEHOUSE_INTERNAL_KEY"] != want {
			t.Errorf("%s is given the internal key: %t, want %t", unit, given["GATEHOUSE_INTERNAL_KEY"], want)
		}
		if want := unit == "gatehouse.service" || unit == "gatehouse@auth.service"; given["GATEHOUSE_SECRET_KEY"] != want {
			t.Errorf("%s is given the secret key: %t, want %t", unit, given["GATEHOUSE_SECRET_KEY"], want)
		}
	}
}

// A unit that restarts does so without limit: by default, systemd gives up after five starts
// within 10 s, and a database can be unreachable for longer.
func TestTheSystemdUnitsRestartWithoutLimit(t *testing.T) {
	t.Parallel()
	restarting := 0
	for unit, dropIn := range systemdUnits(t) {
		text := unitText(t, unit, dropIn)
		if !strings.Contains(text, "\nRestart=") {
			continue
		}
		restarting++
		if head, _, _ := strings.Cut(text, "\n[Service]\n"); !strings.Contains(head, "\nStartLimitIntervalSec=0\n") {
			t.Errorf("%s has no StartLimitIntervalSec=0 in [Unit]", unit)
		}
	}
	if restarting < 4 {
		t.Errorf("%d units restart, want gatehouse and a unit for each role", restarting)
	}
}

// A release has the units, and the guide names each of their files.
func TestTheSystemdUnitsAreReleased(t *testing.T) {
	t.Parallel()
	packed, guide := pages.Read(t, "tools/release/build.go"), pages.Read(t, "docs/how-to/systemd.md")
	files, err := filepath.Glob(systemdFolder + "*")
	if err != nil || len(files) < 3 {
		t.Fatalf("found %q: %v", files, err)
	}
	for _, file := range files {
		if !strings.Contains(packed, `"`+file+`"`) {
			t.Errorf("a release lacks %s", file)
		}
		if name := filepath.Base(file); !strings.Contains(guide, name) && !strings.Contains(guide, "gatehouse@$ROLE.conf") {
			t.Errorf("docs/how-to/systemd.md does not name %s", name)
		}
	}
}
