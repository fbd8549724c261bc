package faults

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/fault"
)

// freeze stops a process as a stalled machine does: its kernel goes on accepting
// connections. The returned function lets it go on.
func freeze(t *testing.T, p *harness.Process) (thaw func()) {
	t.Helper()
	if err := p.Cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatalf("freeze: %v", err)
	}
	var once sync.Once
	thaw = func() { once.Do(func() { _ = p.Cmd.Process.Signal(syscall.SIGCONT) }) }
	t.Cleanup(thaw)
	return thaw
}

// tally counts calls and what came of them.
type tally struct {
	mu       sync.Mutex
	answered int
	failed   []string
	created  []string // emails of the accounts whose creation was acknowledged
}

func (c *tally) note(what string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		c.answered++
		return
	}
	c.failed = append(c.failed, fmt.Sprintf("%s %s: %v (%s)", time.Now().Format("15:04:05.000"), what, err, fault.Reason(err)))
}

// keepCalling calls the gateway in closed loops for a while.
func keepCalling(t *testing.T, s *harness.System, people []*loadUser, admin harness.Client, label string, duration time.Duration) *tally {
	t.Helper()
	c := &tally{}
	end := time.Now().Add(duration)
	var loops sync.WaitGroup
	for i, p := range people {
		loops.Go(func() {
			for n := 0; time.Now().Before(end); n++ {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				switch {
				case n%8 == 7:
					name := fmt.Sprintf("Ada %s %d", label, n)
					err := p.rename(ctx, name)
					c.note("UpdateMe", err)
				default:
					c.note("GetMe", p.getMe(ctx))
				}
				cancel()
				time.Sleep(25 * time.Millisecond) // a pace, not a wait
			}
		})
		if i > 0 {
			continue
		}
		loops.Go(func() {
			for n := 0; time.Now().Before(end); n++ {
				email := fmt.Sprintf("%s-%d@example.com", label, n)
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				err := createUser(ctx, admin, email)
				cancel()
				c.note("CreateUser", err)
				if err == nil {
					c.created = append(c.created, email) // only this loop does
				}
				time.Sleep(200 * time.Millisecond)
			}
		})
	}
	loops.Wait()
	return c
}

// wantAnswered wants at least 95 % of the calls answered.
func (c *tally) wantAnswered(t *testing.T, what string) {
	t.Helper()
	total := c.answered + len(c.failed)
	t.Logf("%s: %d of %d answered", what, c.answered, total)
	if total < 50 || float64(c.answered) < 0.95*float64(total) {
		t.Errorf("%s: %d of %d calls were answered, want 95 %%; failed: %s", what, c.answered, total, strings.Join(c.failed[:min(len(c.failed), 10)], "\n"))
	}
}

// A frozen copy of a service takes its calls with it for a moment, and not the
// service: the kernel of a frozen process goes on accepting connections, so only
// its silence shows.
func TestAFrozenEndpointDoesNotTakeTheServiceDown(t *testing.T) {
	pair := harness.StartPair(t, harness.WithSettings("GATEHOUSE_DRAIN=1s", "GATEHOUSE_THROTTLE=off"))
	s := pair[0]
	var people []*loadUser
	for i := range 8 {
		people = append(people, newLoadUser(t, s, func(token string) harness.Client { return s.Client(token) }, fmt.Sprintf("frozen-%d@example.com", i)))
	}
	admin := s.Admin(t).Client()
	var created []string
	run := func(label string, duration time.Duration) *tally {
		c := keepCalling(t, s, people, admin, label, duration)
		created = append(created, c.created...)
		return c
	}
	for _, name := range []string{harness.RoleAuth, harness.RoleUsers} { // those that these calls reach
		run(name+"-before", time.Second).wantAnswered(t, name+": before")
		thaw := freeze(t, pair[1].Processes[name])
		run(name+"-freezing", 3*time.Second) // may fail in part
		run(name+"-frozen", 6*time.Second).wantAnswered(t, name+": from 3s after it froze on")
		if name == harness.RoleAuth {
			wantRevocationKnown(t, s)
		}
		thaw()
		harness.Eventually(t, 20*time.Second, name+": the endpoint is healthy again", func() error {
			_ = people[0].getMe(t.Context())
			if log := gatewayLog(s); strings.Count(log, "load balancer: endpoint ejected") != strings.Count(log, "load balancer: endpoint healthy") {
				return fmt.Errorf("it isn't")
			}
			return nil
		})
		run(name+"-after", time.Second).wantAnswered(t, name+": after it goes on")
	}
	if !strings.Contains(gatewayLog(s), "load balancer: endpoint ejected") {
		t.Error("the gateway ejected no endpoint")
	}

	// Nothing was made twice, and nothing that was acknowledged is missing.
	for _, email := range created {
		if n := s.Count(t, "SELECT count(*) FROM auth.accounts WHERE email = $1", email); n != 1 {
			t.Errorf("the acknowledged account %s is there %d times", email, n)
		}
	}
	if n := s.Count(t, "SELECT count(*) FROM (SELECT email FROM auth.accounts GROUP BY email HAVING count(*) > 1) doubled"); n > 0 {
		t.Errorf("%d accounts are there more than once", n)
	}
	s.UntilRead(t, harness.RoleUsers)
	wantSameAccountsInBoth(t, s)
}

func gatewayLog(s *harness.System) string {
	return s.Processes[harness.RoleBff].Stdout.String() + s.Processes[harness.RoleBff].Stderr.String()
}

// wantRevocationKnown signs somebody in, lets their session be revoked by another
// auth than this gateway asks for it, and wants their access token refused.
func wantRevocationKnown(t *testing.T, s *harness.System) {
	t.Helper()
	ada := s.SignUp(t, "revoked@example.com")
	token := ada.Access
	if _, err := s.Owner.Exec(t.Context(), `
		WITH ended AS (UPDATE auth.sessions SET revoke_time = now(), revoke_reason = 'test' WHERE account_id = $1 RETURNING id)
		INSERT INTO auth.revocations (session_id, expire_time) SELECT id, now() + interval '5 minutes' FROM ended`, ada.ID); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, 10*time.Second, "the gateway knows of a revocation while an auth is frozen", func() error {
		_, err := s.Client(token).Account.ListSessions(t.Context(), &bffv1.ListSessionsRequest{})
		if fault.Reason(err) != "SESSION_ENDED" {
			return fmt.Errorf("got %v", err)
		}
		return nil
	})
}
