package faults

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"gatehouse/e2e/harness"
)

// A copy of auth that has lost its database answers each call at once with 503. It
// always has the fewest calls in flight, and must not attract those that the healthy
// copy would serve.
func TestACopyWithoutItsDatabaseDoesNotAttractTheCalls(t *testing.T) {
	pair := harness.StartPair(t, harness.WithSettings("GATEHOUSE_DRAIN=1s", "GATEHOUSE_THROTTLE=off"))
	s := pair[0]
	var people []*loadUser
	for i := range 8 {
		people = append(people, newLoadUser(t, s, func(token string) harness.Client { return s.Client(token) }, fmt.Sprintf("refused-%d@example.com", i)))
	}
	admin := s.Admin(t).Client()

	// The second auth signs in as a role of its own, which can be locked out.
	at := ""
	for _, setting := range pair[1].Roles[harness.RoleAuth].Env {
		if value, ok := strings.CutPrefix(setting, "AUTH_DATABASE_URL="); ok {
			at = value
		}
	}
	address, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	role := address.User.Username()
	twin := role + "_twin"
	exec := func(statements ...string) {
		t.Helper()
		for _, statement := range statements {
			if _, err := s.Owner.Exec(t.Context(), statement); err != nil {
				t.Fatalf("%s: %v", statement, err)
			}
		}
	}
	exec(fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD 'twin' IN ROLE %s", twin, role))
	address.User = url.UserPassword(twin, "twin")
	pair[1].Processes[harness.RoleAuth].Kill()
	pair[1].Start(t, harness.RoleAuth, "AUTH_DATABASE_URL="+address.String())
	keepCalling(t, s, people, admin, "before", 2*time.Second).wantAnswered(t, "before")

	exec("ALTER ROLE "+twin+" NOLOGIN", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '"+twin+"'")
	run := keepCalling(t, s, people, admin, "without", 6*time.Second)
	run.wantAnswered(t, "while one of two copies has no database")
	for _, failure := range run.failed {
		if !strings.Contains(failure, "SERVICE_UNAVAILABLE") {
			t.Errorf("got %s, want SERVICE_UNAVAILABLE alone", failure)
		}
	}
	if log := gatewayLog(s); !strings.Contains(log, "load balancer: endpoint refuses calls") {
		t.Error("the gateway did not notice the endpoint that refuses calls")
	}

	exec("ALTER ROLE " + twin + " LOGIN")
	harness.Eventually(t, 20*time.Second, "the copy gets calls again", func() error {
		_ = people[0].getMe(t.Context())
		if !strings.Contains(gatewayLog(s), "load balancer: endpoint serves calls again") {
			return fmt.Errorf("it doesn't")
		}
		return nil
	})
	keepCalling(t, s, people, admin, "after", 2*time.Second).wantAnswered(t, "after")
}
