package faults

import (
	"fmt"
	"testing"
	"time"

	"gatehouse/e2e/harness"
)

// Guarantee 3 beside the previous release: its auth and this one delete accounts while a
// third service does not run for a minute. The service catches up from the older auth, is
// killed before it commits, and catches up again. Both releases say all the while which
// services have erased the accounts.
func TestAnErasureIsCompleteBesideThePreviousRelease(t *testing.T) {
	t.Parallel()
	previous := harness.BuildPrevious(t)
	crash := harness.NewCrashPoints(t)
	l := startLedger(t, crash)
	older := *l.System
	older.Program = previous
	auth := older.Copy(t, harness.RoleAuth)
	gateway := older.Copy(t, harness.RoleBff, "AUTH_URL="+auth.URL)
	admins := map[string]harness.Client{"this release": l.Admin(t).Client(), "the previous release": gateway.Admin(t).Client()}

	deleted := map[string]*harness.Person{}
	for by := range admins {
		deleted[by] = l.signUp(t, fmt.Sprintf("deleted-%d@example.com", len(deleted)))
	}
	l.untilLedgerReads(t)
	l.process.Kill()
	for by, admin := range admins {
		deleteUser(t, admin, deleted[by].ID)
	}
	// Move the times, so that the test need not wait for a minute.
	for _, statement := range []string{
		`UPDATE auth.account_log SET change_time = change_time - interval '1 minute'`,
		`UPDATE auth.account_readers SET report_time = report_time - interval '1 minute' WHERE service = 'ledger'`,
	} {
		if _, err := l.Owner.Exec(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	for by, person := range deleted {
		for asked, admin := range admins {
			l.untilOnlyTheLedgerLacks(t, admin, fmt.Sprintf("deleted by %s, %s says", by, asked), person.ID)
		}
	}

	l.env = append(l.env, "AUTH_URL="+auth.URL)
	crash.Arm(t, "ledger: before account events are committed")
	l.run(t)
	l.process.Wait(t)
	for by, person := range deleted {
		l.untilOnlyTheLedgerLacks(t, admins[by], "the ledger was killed before it committed", person.ID)
		if n := l.Count(t, "SELECT count(*) FROM ledger.entries WHERE account_id = $1", person.ID); n != 1 {
			t.Errorf("deleted by %s: %d entries after the ledger was killed, want 1", by, n)
		}
	}
	l.run(t)
	for by, person := range deleted {
		for asked, admin := range admins {
			l.wantErased(t, admin, fmt.Sprintf("deleted by %s, %s says", by, asked), person.ID)
		}
	}
}

// untilOnlyTheLedgerLacks waits until GetErasure says that every service but the ledger
// has erased an account.
func (l *ledger) untilOnlyTheLedgerLacks(t *testing.T, admin harness.Client, what, id string) {
	t.Helper()
	harness.Eventually(t, 30*time.Second, what+": all but the ledger have erased", func() error {
		confirmed, complete, err := l.erasure(t, admin, id)
		if known, ok := confirmed["ledger"]; err == nil && (complete || !ok || known || !confirmed["users"]) {
			err = fmt.Errorf("complete %v, confirmed by %v", complete, confirmed)
		}
		return err
	})
}
