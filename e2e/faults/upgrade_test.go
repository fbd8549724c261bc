package faults

import (
	"strings"
	"testing"

	"gatehouse/e2e/harness"
	"gatehouse/internal/pgtest"
)

// Guarantee 11: the previous release is upgraded and rolled back under sign-ins, refreshes
// and writes. No call fails, and nobody is signed out. Copies of both releases run side by
// side on the schema of this one, in every combination of the rolling order.
func TestAnUpgradeAndItsRollbackLoseNoRequest(t *testing.T) {
	previous := harness.BuildPrevious(t)
	owner := pgtest.Empty(t)
	env := []string{"DATABASE_URL=" + owner, "GATEHOUSE_SECRET_KEY=" + harness.SecretKey}
	apply := harness.StartProgram(t, previous, env, "schema", "apply")
	apply.Wait(t)
	if status := apply.Cmd.ProcessState.ExitCode(); status != 0 {
		t.Fatalf("schema apply of the previous release: exit status %d, said %s", status, apply.Stderr.String())
	}
	pair := harness.NewPair(t, harness.OnDatabase(harness.DerivedLogins(t, owner)), harness.WithSettings("GATEHOUSE_DRAIN=1s", "GATEHOUSE_THROTTLE=off"))
	setProgram := func(program string) {
		for _, one := range pair {
			one.Program = program
		}
	}
	setProgram(previous)
	harness.StartCopies(t, pair)
	c := startCrowd(t, pair)

	if status, said := harness.RunCommand(t, env, "schema", "apply"); status != 0 {
		t.Fatalf("schema apply under load: exit status %d, said %s", status, said)
	} else {
		t.Log(strings.TrimSpace(said))
	}
	c.untilMore(t, "after the change of the schema")
	setProgram("")
	for _, name := range rollingOrder {
		c.roll(t, pair, name, "upgrade")
	}
	setProgram(previous)
	for _, name := range rollingOrder {
		c.roll(t, pair, name, "rollback")
	}
	c.wantNothingLost(t, pair[0])
}
