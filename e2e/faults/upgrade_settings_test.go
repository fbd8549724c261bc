package faults

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"gatehouse/e2e/harness"
)

const (
	// newSetting is a setting that the previous release does not know, and newProduct its
	// value, which the pages show.
	newSetting = "GATEHOUSE_APP_NAME"
	newProduct = "Loom of tomorrow"
)

// setEverywhere sets the new setting for all roles.
func setEverywhere(pair [2]*harness.System) {
	for _, one := range pair {
		for name, role := range one.Roles {
			role.Env = append(slices.Clone(role.Env), newSetting+"="+newProduct)
			one.Roles[name] = role
		}
	}
}

func unsetEverywhere(pair [2]*harness.System) {
	for _, one := range pair {
		for name, role := range one.Roles {
			role.Env = slices.DeleteFunc(slices.Clone(role.Env), func(variable string) bool { return strings.HasPrefix(variable, newSetting+"=") })
			one.Roles[name] = role
		}
	}
}

// recordsSettings reports whether the schema that was applied last records the names of
// settings, so that its release knows that rule.
func recordsSettings(t *testing.T, conn *pgx.Conn) (records bool) {
	t.Helper()
	const column = `
		SELECT EXISTS (SELECT FROM information_schema.columns
			WHERE table_schema = 'auth' AND table_name = 'applied_schema' AND column_name = 'setting_names')`
	if err := conn.QueryRow(t.Context(), column).Scan(&records); err != nil {
		t.Fatal(err)
	}
	return records
}

// wantRefused checks that no role of the previous release starts with the new setting, of
// which nobody has told it.
func wantRefused(t *testing.T, s *harness.System, known map[string]bool, previous string) {
	t.Helper()
	for name := range known {
		if !known[name] {
			continue
		}
		env := append(slices.Clone(s.Roles[name].Env), newSetting+"="+newProduct, "GATEHOUSE_LISTEN="+harness.FreeAddress(t))
		refused := harness.StartProgram(t, previous, env, name)
		refused.Wait(t)
		status, said := refused.Cmd.ProcessState.ExitCode(), refused.Stderr.String()
		if status != harness.ExitUsage || !strings.Contains(said, newSetting+": is not a setting") {
			t.Fatalf("%s of the previous release with %s: exit status %d, said %s\nIf it knows the setting, let newSetting be one that it does not know.", name, newSetting, status, said)
		}
	}
}

// wantProduct checks that the new setting counts after the roll-out.
func wantProduct(t *testing.T, pair [2]*harness.System) {
	t.Helper()
	for _, one := range pair {
		err := func() error {
			response, err := http.Get(one.URL + "/sign-in")
			if err != nil {
				return err
			}
			defer response.Body.Close()
			page, err := io.ReadAll(response.Body)
			if err == nil && !strings.Contains(string(page), newProduct) {
				err = fmt.Errorf("%s: the page does not name %q:\n%s", response.Status, newProduct, page)
			}
			return err
		}()
		if err != nil {
			t.Errorf("after the upgrade: %v", err)
		}
	}
}

// wantIgnored checks that each process of the previous release warns of the setting.
func wantIgnored(t *testing.T, pair [2]*harness.System, known map[string]bool) {
	t.Helper()
	for _, one := range pair {
		for name, process := range one.Processes {
			if said := process.Stderr.String(); known[name] && (!strings.Contains(said, "setting of a newer version ignored") || !strings.Contains(said, newSetting)) {
				t.Errorf("after the rollback, %s said %s\nwant a warning about %s", name, said, newSetting)
			}
		}
	}
}
