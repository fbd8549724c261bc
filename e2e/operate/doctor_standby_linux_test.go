package operate

import (
	"strings"
	"testing"

	"gatehouse/e2e/harness"
	"gatehouse/internal/pgtest"
)

func TestDoctorExaminesTheStandby(t *testing.T) {
	t.Parallel()
	replica := pgtest.StartReplica(t)
	other := pgtest.New(t)
	examine := func(url string) (int, string) {
		return doctor(t, []string{"USERS_DATABASE_URL=" + replica.Users, "USERS_READ_DATABASE_URL=" + url, "GATEHOUSE_INTERNAL_KEY=" + harness.InternalKey}, harness.RoleUsers)
	}
	_, host, _ := strings.Cut(replica.StandbyURL("users"), "@")
	for name, url := range map[string]string{"with a user": replica.StandbyURL("users"), "without a user": "postgres://" + host} {
		status, said := examine(url)
		if status != 0 || !strings.Contains(said, "standby of users") || !strings.Contains(said, "bytes behind the primary") {
			t.Errorf("%s: doctor exits with %d and says\n%s", name, status, said)
		}
	}
	for _, test := range []struct{ what, url, fault, fix string }{
		{"the primary", replica.Users, "standby of users: it is no standby", "name a standby in USERS_READ_DATABASE_URL"},
		{"another cluster", other.Users, "standby of users: it belongs to another primary", "name a standby of the primary in USERS_READ_DATABASE_URL"},
		{"no server", "postgres://127.0.0.1:1/gatehouse", "USERS_READ_DATABASE_URL: Postgres can't be reached", "start it, or correct the host"},
	} {
		status, said := examine(test.url)
		wantFault(t, test.what, status, said, test.fault, test.fix)
	}
}
