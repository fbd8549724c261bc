//go:build cluster

package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"gatehouse/e2e/harness"
)

// fault is one thing that breaks.
type fault struct {
	name string
	// spare says that another copy serves meanwhile: calls succeed again within the bound
	// while the fault lasts. Otherwise they do so after the repair.
	spare bool
	// graceful says that no call may fail at all.
	graceful bool
	// cuts says that callers' own connections break: those to HAProxy. It also ends a
	// connection without an answer if the gateway is killed while it has a call, unless
	// that is the first one of the connection.
	cuts          bool
	breaks, fixes func(t *testing.T)
	// notRun is the reason why the machine cannot run it, or empty.
	notRun string
}

// faults returns what breaks, in this order. The failover is the last one: after it there is
// no standby.
func (c *cluster) faults() []fault {
	var all []fault
	for _, role := range []string{harness.RoleUsers, harness.RoleAuth, harness.RoleBff} {
		all = append(all, c.roleFaults(role)...)
	}
	all = append(all,
		fault{name: "kill -9 HAProxy, one of two", spare: true, cuts: true, breaks: func(*testing.T) { c.fronts[0].kill() }, fixes: func(t *testing.T) { c.fronts[0].start(t, c.fronts[0].address) }},
	)
	all = append(all, programFaults("Redis", &c.redis, c.redisAddress, syscall.SIGTERM, true)...)
	all = append(all, programFaults("PgBouncer of the primary", &c.primary.bouncer, c.primary.pooled, syscall.SIGTERM, false)...)
	all = append(all, programFaults("standby", &c.standby.postgres, c.standby.address, syscall.SIGINT, false)...)
	all = append(all, programFaults("primary, started again", &c.primary.postgres, c.primary.address, syscall.SIGINT, false)...)
	return append(all, c.readOnly(), c.diskFull(), c.failover())
}

// roleFaults are those of one of the two copies of a role.
func (c *cluster) roleFaults(role string) []fault {
	first, second := c.roles[0], c.roles[1]
	start := func(s *harness.System) func(*testing.T) { return func(t *testing.T) { s.Start(t, role) } }
	send := func(s *harness.System, signal syscall.Signal) func(*testing.T) {
		return func(*testing.T) { _ = s.Processes[role].Cmd.Process.Signal(signal) }
	}
	return []fault{
		{name: "kill -9 " + role + ", one of two", spare: true, cuts: role == harness.RoleBff, breaks: func(*testing.T) { first.Processes[role].Kill() }, fixes: start(first)},
		{name: "SIGTERM " + role + ", one of two", spare: true, graceful: true, breaks: func(t *testing.T) {
			send(first, syscall.SIGTERM)(t)
			first.Processes[role].Wait(t)
		}, fixes: start(first)},
		{name: "SIGSTOP " + role + ", one of two", spare: true, breaks: send(second, syscall.SIGSTOP), fixes: send(second, syscall.SIGCONT)},
	}
}

// programFaults are those of a program, which ends in good order by a signal.
func programFaults(name string, p *program, address string, ends syscall.Signal, spare bool) []fault {
	start := func(t *testing.T) { p.start(t, address) }
	return []fault{
		{name: "kill -9 " + name, spare: spare, breaks: func(*testing.T) { p.kill() }, fixes: start},
		{name: "stop " + name, spare: spare, breaks: func(t *testing.T) { p.stop(t, ends) }, fixes: start},
		{name: "SIGSTOP " + name, spare: spare, breaks: func(*testing.T) { p.signal(syscall.SIGSTOP) }, fixes: func(*testing.T) { p.signal(syscall.SIGCONT) }},
	}
}

// readOnly is a primary that takes no writes for a while, with its sessions kept open, as
// one does during a failover by DNS.
func (c *cluster) readOnly() fault {
	flip := func(to string) func(t *testing.T) {
		return func(t *testing.T) {
			execute(t, c.owner, "SET default_transaction_read_only = off",
				"ALTER SYSTEM SET default_transaction_read_only = "+to, "SELECT pg_reload_conf()")
		}
	}
	return fault{name: "primary takes no writes", breaks: flip("on"), fixes: flip("off")}
}

// diskFull fills the file system of the primary.
func (c *cluster) diskFull() fault {
	ballast := filepath.Join(c.primary.dir, "ballast")
	f := fault{name: "disk of the primary full", breaks: func(t *testing.T) {
		if err := fill(ballast); err != nil {
			t.Fatalf("fill the disk: %v", err)
		}
	}, fixes: func(t *testing.T) {
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
		// Postgres ends if there is no space for its log.
		c.primary.postgres.start(t, c.primary.address)
	}}
	if !c.primary.limited {
		f.notRun = "this process may not mount a file system of limited size"
	}
	return f
}

// fill writes a file until there is no space, and checks that a further byte finds none.
func fill(path string) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	for size := 1 << 20; size > 0; {
		if _, err := file.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
	if err := os.WriteFile(path+" more", []byte{0}, 0o600); err == nil {
		return fmt.Errorf("there is space for another file beside %s", path)
	}
	return os.Remove(path + " more")
}

// failover loses the machine of the primary for good and promotes the standby.
func (c *cluster) failover() fault {
	return fault{name: "machine of the primary lost, failover", breaks: func(*testing.T) {
		c.primary.bouncer.kill()
		c.primary.postgres.kill()
	}, fixes: func(t *testing.T) {
		c.owner = c.standby.url("gatehouse")
		execute(t, c.standby.url("postgres"), "SELECT pg_promote(true, 60)")
		harness.Eventually(t, 30*time.Second, "the standby takes writes", func() error {
			return expect(c.owner, "SELECT pg_is_in_recovery()::int", 0)
		})
	}}
}

// row is a line of the table.
type row struct {
	fault  string
	counts [outcomes]int
	healed time.Duration
	notRun string
	wrongs []string
}

const (
	// healBound is how long calls may fail, after a fault or its repair.
	healBound = 5 * time.Second
	// lasts is how long a fault lasts where another copy serves, and where none does.
	lastsBesideSpare, lastsAlone = healBound + 2*time.Second, 3 * time.Second
	// heldUp is how long calls are held up in the database when a part breaks, at least.
	heldUp = 500 * time.Millisecond
	// calm is how long no call fails before the next fault.
	calm = 1500 * time.Millisecond
)

// run breaks one thing while the crowd calls, and repairs it.
func (f fault) run(t *testing.T, c *cluster, all *crowd) row {
	t.Helper()
	r := row{fault: f.name, notRun: f.notRun}
	if f.notRun != "" {
		return r
	}
	t.Logf("%s %s", time.Now().Format("15:04:05.000"), f.name)
	held := c.holdUp(t)
	begun := time.Now()
	f.breaks(t)
	lasts := lastsAlone
	if f.spare {
		lasts = lastsBesideSpare
	}
	time.Sleep(max(0, lasts-time.Since(begun))) // the fault lasts that long
	f.fixes(t)
	fixed := time.Now()
	<-held
	time.Sleep(healBound + calm) // the observed time
	end := time.Now()
	calls := all.between(begun.Add(-heldUp), end)
	for _, c := range calls {
		r.counts[c.outcome]++
		if f.forbids(c) || c.failed() && f.since(c.began, begun, fixed) > healBound {
			r.wrongs = append(r.wrongs, fmt.Sprintf("%s after the fault, %s after the repair, %s: %s", c.began.Sub(begun), c.began.Sub(fixed), c.method, c.detail))
		}
		if c.failed() {
			r.healed = max(r.healed, f.since(c.began, begun, fixed))
		}
	}
	if len(calls) < 50 {
		r.wrongs = append(r.wrongs, fmt.Sprintf("only %d calls were made", len(calls)))
	}
	return r
}

// since is the time between a failed call and the moment from which calls should succeed:
// the repair, and the fault itself where another copy serves.
func (f fault) since(began, begun, fixed time.Time) time.Duration {
	if began.Before(fixed) {
		if f.spare {
			return began.Sub(begun)
		}
		return 0
	}
	return began.Sub(fixed)
}

// forbids says whether a call must not end like this, whenever it began. Only a call that
// is in flight in a frozen process may take longer than its caller waits.
func (f fault) forbids(c call) bool {
	return c.outcome == wrong || c.outcome == lost && !f.cuts || c.outcome == timedOut && !strings.HasPrefix(f.name, "SIGSTOP") || c.failed() && f.graceful
}

// table is the result, a line for each fault.
func table(rows []row) string {
	var text strings.Builder
	fmt.Fprintf(&text, "%-42s %6s %6s %6s %6s %6s %8s %5s %8s %6s\n", "fault", "calls", "ok", "partly", "503", "queue", "deadline", "lost", "healed", "wrong")
	for _, r := range rows {
		if r.notRun != "" {
			fmt.Fprintf(&text, "%-42s not run: %s\n", r.fault, r.notRun)
			continue
		}
		calls := 0
		for _, n := range r.counts {
			calls += n
		}
		fmt.Fprintf(&text, "%-42s %6d %6d %6d %6d %6d %8d %5d %7.1fs %6d\n", r.fault, calls, r.counts[answered], r.counts[partly], r.counts[refused],
			r.counts[queued], r.counts[timedOut], r.counts[lost], r.healed.Seconds(), len(r.wrongs))
	}
	return text.String()
}
