package faults

import (
	"strings"
	"testing"

	"gatehouse/e2e/harness"
	"gatehouse/internal/pgtest"
)

// Guarantee 11: the previous release is upgraded and rolled back under sign-ins, refreshes
// and writes. No call fails, and nobody is signed out. Copies of both releases run side by
// side on the schema of this one, in every combination of the rolling order, while this
// release closes the table of the audit log. A setting that the previous release does not
// know counts from the end of the roll-out, and stays in the environment for the rollback.
func TestAnUpgradeAndItsRollbackLoseNoRequest(t *testing.T) {
	previous := harness.BuildPrevious(t)
	owner := pgtest.Empty(t)
	env := []string{"DATABASE_URL=" + owner, "GATEHOUSE_SECRET_KEY=" + harness.SecretKey}
	apply := harness.StartProgram(t, previous, env, "schema", "apply")
	apply.Wait(t)
	if status := apply.Cmd.ProcessState.ExitCode(); status != 0 {
		t.Fatalf("schema apply of the previous release: exit status %d, said %s", status, apply.Stderr.String())
	}
	conn := pgtest.Connect(t, owner)
	knowsRule := recordsSettings(t, conn)
	if _, err := conn.Exec(t.Context(), oldEvent); err != nil {
		t.Fatal(err)
	}
	pair := harness.NewPair(t, harness.OnDatabase(harness.DerivedLogins(t, owner)), harness.WithSettings("GATEHOUSE_DRAIN=1s", "GATEHOUSE_THROTTLE=off"))
	setProgram := func(program string) {
		for _, one := range pair {
			one.Program = program
		}
	}
	setProgram(previous)
	known := harness.StartKnownCopies(t, pair, previous)
	wantRefused(t, pair[0], known, previous)
	c := startCrowd(t, pair)

	if status, said := harness.RunCommand(t, env, "schema", "apply"); status != 0 {
		t.Fatalf("schema apply under load: exit status %d, said %s", status, said)
	} else {
		t.Log(strings.TrimSpace(said))
	}
	c.untilMore(t, "after the change of the schema")
	roll := func(what string) {
		for _, name := range harness.RollingOrder() {
			if known[name] {
				c.roll(t, pair, name, what)
			}
		}
	}
	setProgram("")
	setEverywhere(pair)
	harness.StartCopies(t, pair) // of services that the previous release lacks
	roll("upgrade")
	wantProduct(t, pair)
	setProgram(previous)
	if !knowsRule {
		t.Log("the previous release does not know of recorded settings: the new one is unset for the rollback")
		wantRefused(t, pair[0], known, previous)
		unsetEverywhere(pair)
	}
	roll("rollback")
	c.wantNothingLost(t, pair[0])
	if knowsRule {
		wantIgnored(t, pair, known)
	}
	var closed, old int
	if err := conn.QueryRow(t.Context(), closedAudit).Scan(&closed, &old); err != nil || closed != 1 || old != 1 {
		t.Errorf("%d tables of the audit log were closed, and %d old events are listed, %v; want one of each", closed, old, err)
	}
}

const (
	// oldEvent makes the newer release close the table of the audit log.
	oldEvent = `
		INSERT INTO auth.audit_events (id, create_time, event, outcome)
		SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '70008000000000000000')::uuid, at, 'session.login', 'old'
		FROM (SELECT now() - interval '40 days' AS at) AS past`
	closedAudit = `
		SELECT (SELECT count(*) FROM pg_inherits WHERE inhparent = 'auth.audit_events'::regclass),
			(SELECT count(*) FROM auth.audit_events WHERE outcome = 'old')`
)
