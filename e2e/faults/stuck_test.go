package faults

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
)

// A deletion that users cannot carry out keeps nobody else's from being carried out, is
// not confirmed, shows in a metric and the log, and is carried out once it can be.
func TestAnAccountThatIsStuckKeepsNobodyElseWaiting(t *testing.T) {
	t.Parallel()
	for _, shape := range harness.Shapes {
		t.Run(string(shape), func(t *testing.T) {
			t.Parallel()
			s := harness.Start(t, shape, harness.WithOps())
			admin := s.Admin(t).Client()
			stuck, other := s.SignUp(t, "stuck@example.com"), s.SignUp(t, "other@example.com")
			exec := func(statement string) {
				t.Helper()
				if _, err := s.Owner.Exec(t.Context(), statement); err != nil {
					t.Fatalf("%s: %v", statement, err)
				}
			}
			exec(`CREATE FUNCTION users.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'refused'; END $$`)
			exec(`CREATE TRIGGER refuse BEFORE DELETE ON users.profiles FOR EACH ROW WHEN (OLD.id = '` + stuck.ID + `') EXECUTE FUNCTION users.refuse()`)
			for _, person := range []*harness.Person{stuck, other} {
				if _, err := person.Client().Account.DeleteMe(t.Context(), &bffv1.DeleteMeRequest{}); err != nil {
					t.Fatalf("DeleteMe: %v", err)
				}
			}
			profiles := func(person *harness.Person) int {
				return s.Count(t, "SELECT count(*) FROM users.profiles WHERE id = $1", person.ID)
			}
			process := shape.Role(harness.RoleUsers)
			harness.Eventually(t, time.Minute, "the other account is erased", func() error {
				if n := profiles(other); n > 0 {
					return fmt.Errorf("%d profiles", n)
				}
				return nil
			})
			wantStuck(t, s, process, "1")
			if profiles(stuck) != 1 {
				t.Fatal("the account is not stuck: the test tests nothing")
			}
			if response, err := admin.Users.GetErasure(t.Context(), &bffv1.GetErasureRequest{UserId: stuck.ID}); err != nil || response.GetComplete() {
				t.Errorf("the erasure that is stuck: got %v (%v), want one that is not complete", response, err)
			}
			const event = "lifecycle: account event stuck, continuing with other accounts"
			if log := s.Processes[process].Stderr.String(); strings.Count(log, event) != 1 || !strings.Contains(log, stuck.ID) {
				t.Errorf("the log does not have %q once, with the account:\n%s", event, log)
			}
			late := s.SignUp(t, "late@example.com")
			if _, err := admin.Users.ChangeUserEmail(t.Context(), &bffv1.ChangeUserEmailRequest{UserId: late.ID, Email: "later@example.com"}); err != nil {
				t.Fatalf("ChangeUserEmail: %v", err)
			}
			harness.Eventually(t, time.Minute, "a change of afterwards is applied", func() error {
				if s.Count(t, "SELECT count(*) FROM users.profiles WHERE email = 'later@example.com'") != 1 {
					return fmt.Errorf("it is not")
				}
				return nil
			})
			exec("DROP TRIGGER refuse ON users.profiles")
			for _, person := range []*harness.Person{stuck, other} { // one call for each try: the method has a rate
				harness.Eventually(t, 2*time.Minute, "the erasure is complete", func() error {
					response, err := admin.Users.GetErasure(t.Context(), &bffv1.GetErasureRequest{UserId: person.ID})
					if err != nil || !response.GetComplete() {
						return fmt.Errorf("of %s: %v (%v)", person.ID, response, err)
					}
					return nil
				})
			}
			if profiles(stuck) != 0 {
				t.Error("the account that was stuck has a profile")
			}
			wantStuck(t, s, process, "0")
		})
	}
}

// wantStuck waits until the metric says how many accounts are stuck.
func wantStuck(t *testing.T, s *harness.System, process, want string) {
	t.Helper()
	harness.Eventually(t, time.Minute, "the metric is "+want, func() error {
		_, text := harness.Get(t, s.Ops()[process]+"/metrics")
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, "gatehouse_lifecycle_stuck{") && strings.Contains(line, `service="users"`) && strings.HasSuffix(strings.TrimSpace(line), " "+want) {
				return nil
			}
		}
		return fmt.Errorf("it is not")
	})
}
