package apikeys

import (
	"path/filepath"
	"strings"
	"testing"

	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/fault"
	"gatehouse/internal/pgtest"
	"gatehouse/internal/testneed"
)

// A key that was revoked before the backup stays revoked. One that was revoked after it works
// again, of which the doctor reminds.
func TestARestoredBackupKnowsWhichKeysWereRevoked(t *testing.T) {
	testneed.Program(t, "pg_dump")
	owner := pgtest.Empty(t)
	env := []string{"DATABASE_URL=" + owner, "GATEHOUSE_SECRET_KEY=" + harness.SecretKey, "GATEHOUSE_INTERNAL_KEY=" + harness.InternalKey}
	run := func(args ...string) {
		t.Helper()
		if status, said := harness.RunCommand(t, env, args...); status != 0 {
			t.Fatalf("%q: exit status %d, said %s", args, status, said)
		}
	}
	run("schema", "apply")
	s := harness.Start(t, harness.ThreeProcesses, harness.OnDatabase(harness.DerivedLogins(t, owner)))
	ada := s.SignUp(t, "ada@example.com")
	before, after, kept := created(t, ada, "me:read"), created(t, ada, "me:read"), created(t, ada, "me:read")
	revoke := func(made *bffv1.CreateKeyResponse) {
		t.Helper()
		if _, err := ada.Client().Account.RevokeKey(t.Context(), &bffv1.RevokeKeyRequest{KeyId: made.GetKey().GetKeyId()}); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(t.TempDir(), "gatehouse.dump")
	revoke(before)
	run("backup", file)
	revoke(after)
	reasonWithin(t, s, after.GetSecret(), "KEY_INVALID")
	for _, role := range harness.Roles() {
		s.Processes[role].Interrupt(t)
	}
	run("restore", "--replace", file)
	for _, role := range harness.Roles() {
		s.Start(t, role)
	}
	if err := getMe(t.Context(), s, before.GetSecret()); fault.Reason(err) != "KEY_INVALID" {
		t.Errorf("a key that was revoked before the backup: %v, want KEY_INVALID", err)
	}
	for _, made := range []*bffv1.CreateKeyResponse{after, kept} {
		reasonWithin(t, s, made.GetSecret(), "")
	}
	const reminder = "ok   API keys: 2 work; after a restore from a backup, revoke those again that were revoked since the backup"
	if _, said := harness.RunCommand(t, s.Roles[harness.RoleAuth].Env, "doctor", "auth"); !strings.Contains(strings.Join(strings.Fields(said), " "), strings.Join(strings.Fields(reminder), " ")) {
		t.Errorf("the doctor does not say %q:\n%s", reminder, said)
	}
}
