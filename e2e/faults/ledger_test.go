package faults

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/pgtest"
)

// ledger is a third service, which auth knows nothing of: a process that erases its
// rows of deleted accounts.
type ledger struct {
	*harness.System
	program string
	env     []string
	process *harness.Process
}

var ledgerSchema = []string{
	`CREATE SCHEMA ledger`,
	`CREATE TABLE ledger.entries (account_id uuid NOT NULL, note text NOT NULL)`,
	`CREATE TABLE ledger.account_cursor (cursor text NOT NULL DEFAULT '', sweep boolean NOT NULL DEFAULT false)`,
	`CREATE UNIQUE INDEX account_cursor_one_row ON ledger.account_cursor ((true))`,
	`CREATE TABLE ledger.tombstones (
		id uuid NOT NULL, account_version bigint NOT NULL, delete_time timestamptz NOT NULL DEFAULT now(), CONSTRAINT tombstones_pkey PRIMARY KEY (id))`,
}

// startLedger starts a system in three processes, and the third service.
func startLedger(t *testing.T, crash harness.CrashPoints) *ledger {
	t.Helper()
	program := filepath.Join(t.TempDir(), "ledger")
	if output, err := exec.CommandContext(t.Context(), "go", "build", "-tags", "crashpoint", "-o", program, "./e2e/faults/testdata/ledger").CombinedOutput(); err != nil {
		t.Fatalf("build the ledger: %v: %s", err, output)
	}
	database := pgtest.New(t)
	l := &ledger{System: harness.Start(t, harness.ThreeProcesses, crash.Option(), harness.OnDatabase(database)), program: program}
	for _, statement := range ledgerSchema {
		if _, err := l.Owner.Exec(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	l.env = append(os.Environ(), crash.Setting(), "LEDGER_DATABASE_URL="+database.Owner,
		"AUTH_URL=http://"+l.Roles[harness.RoleAuth].Listen, "GATEHOUSE_INTERNAL_KEY="+harness.InternalKey)
	l.run(t)
	return l
}

// run starts the process of the third service.
func (l *ledger) run(t *testing.T) {
	t.Helper()
	l.process = harness.StartProgram(t, l.program, l.env)
}

// signUp signs somebody up who has an entry in the ledger.
func (l *ledger) signUp(t *testing.T, email string) *harness.Person {
	t.Helper()
	person := l.SignUp(t, email)
	if _, err := l.Owner.Exec(t.Context(), "INSERT INTO ledger.entries VALUES ($1, 'paid')", person.ID); err != nil {
		t.Fatal(err)
	}
	return person
}

// untilLedgerReads waits until the ledger has read account events.
func (l *ledger) untilLedgerReads(t *testing.T) {
	t.Helper()
	harness.Eventually(t, 30*time.Second, "the ledger reads", func() error {
		if n := l.Count(t, "SELECT count(*) FROM auth.account_readers WHERE service = 'ledger' AND cursor <> ''"); n != 1 {
			return fmt.Errorf("it has not confirmed a cursor")
		}
		return nil
	})
}

func deleteUser(t *testing.T, admin harness.Client, id string) {
	t.Helper()
	if _, err := admin.Users.DeleteUser(t.Context(), &bffv1.DeleteUserRequest{UserId: id}); err != nil {
		t.Fatalf("DeleteUser: %v", err)
	}
}

// erasure returns whether each service has confirmed an erasure, by GetErasure.
func (l *ledger) erasure(t *testing.T, admin harness.Client, id string) (map[string]bool, bool, error) {
	t.Helper()
	response, err := admin.Users.GetErasure(t.Context(), &bffv1.GetErasureRequest{UserId: id})
	confirmed := map[string]bool{}
	for _, service := range response.GetServices() {
		confirmed[service.GetService()] = service.GetConfirmed()
	}
	return confirmed, response.GetComplete(), err
}

// wantErased waits until every service has confirmed an erasure, and wants no data of
// the account in any.
func (l *ledger) wantErased(t *testing.T, admin harness.Client, what, id string) {
	t.Helper()
	harness.Eventually(t, time.Minute, what+": complete", func() error {
		confirmed, complete, err := l.erasure(t, admin, id)
		if err == nil && (!complete || !confirmed["ledger"] || !confirmed["users"]) {
			err = fmt.Errorf("confirmed by %v", confirmed)
		}
		return err
	})
	for query, want := range map[string]int{
		"SELECT count(*) FROM auth.accounts WHERE id = $1":             0,
		"SELECT count(*) FROM users.profiles WHERE id = $1":            0,
		"SELECT count(*) FROM ledger.entries WHERE account_id = $1":    0,
		"SELECT count(*) FROM ledger.tombstones WHERE id = $1":         1,
		"SELECT count(*) FROM auth.account_log WHERE account_id = $1 ": 1,
	} {
		if n := l.Count(t, query, id); n != want {
			t.Errorf("%s: %s: %d, want %d", what, query, n, want)
		}
	}
}

// Guarantee 3 for a third service: wherever it or auth is killed, a deletion erases
// its data, and GetErasure says so.
func TestAnErasureReachesAThirdServiceWhateverIsKilled(t *testing.T) {
	t.Parallel()
	crash := harness.NewCrashPoints(t)
	l := startLedger(t, crash)
	admin := l.Admin(t).Client()
	n := 0
	for at, where := range map[string]string{
		"auth: after the deletion is committed":       harness.RoleAuth,
		"ledger: before an account event is applied":  "",
		"ledger: before account events are committed": "",
		"ledger: after account events are committed":  "",
		"users: before account events are committed":  harness.RoleUsers,
	} {
		n++
		person := l.signUp(t, fmt.Sprintf("killed-%d@example.com", n))
		l.UntilRead(t, harness.RoleUsers) // or users is killed at an earlier event
		crash.Arm(t, at)
		// auth may be killed before it answers.
		_, _ = admin.Users.DeleteUser(t.Context(), &bffv1.DeleteUserRequest{UserId: person.ID})
		if where == "" {
			l.process.Wait(t)
			l.run(t)
		} else {
			l.Processes[where].Wait(t)
			l.Start(t, where)
		}
		l.wantErased(t, admin, "killed at "+at, person.ID)
	}
}

// A third service that does not run delays nobody; GetErasure says what it has not
// confirmed, also while an older auth deletes.
func TestAnErasureIsIncompleteWhileAServiceIsUnreachable(t *testing.T) {
	t.Parallel()
	l := startLedger(t, harness.NewCrashPoints(t))
	admin := l.Admin(t).Client()
	ada, old := l.signUp(t, "ada@example.com"), l.signUp(t, "old@example.com")
	l.untilLedgerReads(t)
	l.process.Kill()
	deleteUser(t, admin, ada.ID)
	// As an older auth does, which knows nothing of the log.
	if _, err := l.Owner.Exec(t.Context(), `
		WITH gone AS (DELETE FROM auth.accounts WHERE id = $1 RETURNING id, version)
		INSERT INTO auth.account_outbox (account_id, version, deleted, next_attempt_time) SELECT id, version + 1, true, now() FROM gone`, old.ID); err != nil {
		t.Fatal(err)
	}
	for _, person := range []*harness.Person{ada, old} {
		l.untilOnlyTheLedgerLacks(t, admin, "without the ledger", person.ID)
	}
	l.run(t)
	l.wantErased(t, admin, "after its absence", ada.ID)
	l.wantErased(t, admin, "deleted by an older auth", old.ID)
	harness.Eventually(t, 30*time.Second, "the outbox of the older auth is empty", func() error {
		if n := l.Count(t, "SELECT count(*) FROM auth.account_outbox"); n != 0 {
			return fmt.Errorf("%d rows", n)
		}
		return nil
	})
}

// A service that was restored from an old backup, whose cursor auth no longer accepts,
// erases what it has of accounts that were deleted meanwhile.
func TestARestoredServiceErasesWhatWasDeletedMeanwhile(t *testing.T) {
	t.Parallel()
	l := startLedger(t, harness.NewCrashPoints(t))
	admin := l.Admin(t).Client()
	ada, bob := l.signUp(t, "ada@example.com"), l.signUp(t, "bob@example.com")
	if _, err := admin.Users.DeleteUser(t.Context(), &bffv1.DeleteUserRequest{UserId: ada.ID}); err != nil {
		t.Fatal(err)
	}
	l.wantErased(t, admin, "before the restore", ada.ID)
	l.process.Kill()
	for _, statement := range []string{
		// The deletion is older than its retention.
		`DELETE FROM auth.account_log WHERE account_id = $1`,
		`INSERT INTO ledger.entries VALUES ($1, 'restored')`,
		`DELETE FROM ledger.tombstones WHERE id = $1`,
		`UPDATE ledger.account_cursor SET cursor = '1/' || split_part(cursor, '/', 2) || '/1600000000/' || split_part(cursor, '/', 4) || '///' WHERE $1::uuid IS NOT NULL`,
	} {
		if _, err := l.Owner.Exec(t.Context(), statement, ada.ID); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	l.run(t)
	harness.Eventually(t, 30*time.Second, "the entry of the deleted account is erased", func() error {
		if n := l.Count(t, "SELECT count(*) FROM ledger.entries WHERE account_id = $1", ada.ID); n != 0 {
			return fmt.Errorf("%d entries: %s", n, l.process.Stderr.String())
		}
		return nil
	})
	if n := l.Count(t, "SELECT count(*) FROM ledger.entries WHERE account_id = $1", bob.ID); n != 1 {
		t.Errorf("an account that exists has %d entries, want 1", n)
	}
}

// If auth does not have most of the accounts that a service knows, auth has more likely
// lost its database than its people.
func TestAServiceErasesNothingWhenAuthHasLostItsAccounts(t *testing.T) {
	t.Parallel()
	l := startLedger(t, harness.NewCrashPoints(t))
	l.signUp(t, "ada@example.com")
	l.process.Kill()
	for _, statement := range []string{
		`INSERT INTO ledger.entries SELECT gen_random_uuid(), 'of a lost account' FROM generate_series(1, 150)`,
		`UPDATE ledger.account_cursor SET cursor = 'of another database'`,
	} {
		if _, err := l.Owner.Exec(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	l.run(t)
	harness.Eventually(t, 30*time.Second, "the ledger says that it erases nothing", func() error {
		if text := l.process.Stderr.String(); !strings.Contains(text, "auth does not have 150 of 151 accounts, nothing is erased") {
			return fmt.Errorf("its log is %s", text)
		}
		return nil
	})
	if n := l.Count(t, "SELECT count(*) FROM ledger.entries"); n != 151 {
		t.Errorf("%d entries are left, want all 151", n)
	}
}
