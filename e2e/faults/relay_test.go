package faults

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
)

// Guarantee 3 at scale: of 10,000 accounts that users hasn't heard of, all come
// to be as auth has them, through two relays, while people go on to change and
// users is killed again and again; and no profile ever goes back.
func TestTenThousandAccountsReachUsersHoweverOftenItIsKilled(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.ThreeProcesses)
	admin := s.Admin(t).Client()
	second := s.Copy(t, harness.RoleAuth)
	queueAccounts(t, s)
	var ids [3][]string
	for worker := range ids {
		for i := range 60 {
			ids[worker] = append(ids[worker], s.IdOf(t, fmt.Sprintf("user%d@example.com", worker+1+i*100)))
		}
	}
	start := time.Now()
	var changes sync.WaitGroup
	for worker := range ids {
		changes.Go(func() {
			for _, id := range ids[worker] {
				var err error
				switch worker {
				case 0:
					_, err = admin.Users.ChangeUserEmail(t.Context(), &bffv1.ChangeUserEmailRequest{UserId: id, Email: "changed-" + id + "@example.com"})
				case 1:
					_, err = admin.Users.DisableUser(t.Context(), &bffv1.DisableUserRequest{UserId: id})
				case 2:
					_, err = admin.Users.DeleteUser(t.Context(), &bffv1.DeleteUserRequest{UserId: id})
				}
				if err != nil {
					t.Errorf("a change while users comes and goes: %v", err)
				}
			}
		})
	}
	delivered := func() int { return s.Count(t, "SELECT count(*) FROM users.profiles") }
	for kill := range 3 {
		harness.Eventually(t, 60*time.Second, "users receives more accounts", func() error {
			if n := delivered(); n < (kill+1)*2000 {
				return fmt.Errorf("%d profiles", n)
			}
			return nil
		})
		s.Processes[harness.RoleUsers].Kill()
		s.Start(t, harness.RoleUsers)
	}
	changes.Wait()
	s.UntilRead(t, harness.RoleUsers)
	t.Logf("10,000 accounts were read in %s", time.Since(start))
	if second.Processes[harness.RoleAuth].HasEnded() {
		t.Error("the second auth has ended")
	}
	wantSameAccountsInBoth(t, s)
	for query, want := range map[string]int{
		"SELECT count(*) FROM users.profiles":                                   10_000 - 60 + 1, // and the administrator
		"SELECT count(*) FROM users.tombstones":                                 60,
		"SELECT count(*) FROM users.profiles WHERE status = 'disabled'":         60,
		"SELECT count(*) FROM users.profiles WHERE email LIKE 'changed%'":       60,
		"SELECT count(*) FROM users.tombstones JOIN users.profiles p USING(id)": 0,
	} {
		if n := s.Count(t, query); n != want {
			t.Errorf("%s: %d, want %d", query, n, want)
		}
	}
}

// wantTheSameOfBoth wants auth and users to say the same of every account.
// queueAccounts creates 10,000 accounts, and makes the database refuse
// profiles that go back to an older version.
func queueAccounts(t *testing.T, s *harness.System) {
	t.Helper()
	for _, statement := range []string{
		`CREATE FUNCTION users.forward() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			IF NEW.account_version <= OLD.account_version THEN
				RAISE 'version % comes after %', NEW.account_version, OLD.account_version;
			END IF;
			RETURN NEW;
		END $$`,
		`CREATE TRIGGER forward BEFORE UPDATE OF account_version ON users.profiles FOR EACH ROW EXECUTE FUNCTION users.forward()`,
		`INSERT INTO auth.accounts (id, email, password_hash)
		SELECT gen_random_uuid(), 'user' || n || '@example.com', '' FROM generate_series(1, 10000) n`,
	} {
		if _, err := s.Owner.Exec(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
}

func wantSameAccountsInBoth(t *testing.T, s *harness.System) {
	t.Helper()
	const differing = `
		SELECT count(*) FROM auth.accounts a FULL JOIN users.profiles p USING (id)
		WHERE a.email IS DISTINCT FROM p.email OR a.status IS DISTINCT FROM p.status OR a.version IS DISTINCT FROM p.account_version`
	if n := s.Count(t, differing); n != 0 {
		t.Errorf("%d accounts and profiles differ", n)
	}
}
