//go:build cluster

package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
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
	cuts bool
	// lasts is how long it lasts, unless it is zero: longer than usual.
	lasts time.Duration
	// before, unless it is nil, waits until it may begin.
	before, breaks, fixes func(t *testing.T)
	// outcome is one that some calls must have, or the fault has hit nothing; answered for none.
	outcome outcome
	// reads is who must have answered some of the reads that the standby may answer; empty
	// for anybody. Nobody asks the standby if promoted is set: it is none any more.
	reads    string
	promoted bool
	// notRun is the reason why the machine cannot run it, or empty.
	notRun string
}

// faults returns what breaks, in this order. The last ones are the failover, from which on
// there is no standby, and the return of the lost machine.
func (c *cluster) faults() []fault {
	var all []fault
	for i, role := range []string{harness.RoleUsers, harness.RoleAuth, harness.RoleBff} {
		all = append(all, c.roleFaults(role, i)...)
	}
	all = append(all, c.frontFaults()...)
	all = append(all, programFaults("Redis", &c.redis, c.redisAddress, syscall.SIGTERM, true)...)
	all = append(all, programFaults("PgBouncer of the primary", &c.primary.bouncer, c.primary.pooled, syscall.SIGTERM, false)...)
	for _, f := range programFaults("PgBouncer of the standby", &c.standby.bouncer, c.standby.pooled, syscall.SIGTERM, true) {
		f.graceful, f.reads = true, primaryFailed
		all = append(all, f)
	}
	// Commits wait meanwhile, so hardly anybody gets to read.
	all = append(all, programFaults("standby", &c.standby.postgres, c.standby.address, syscall.SIGINT, false)...)
	all = append(all, c.lateStandby())
	all = append(all, programFaults("primary, started again", &c.primary.postgres, c.primary.address, syscall.SIGINT, false)...)
	return append(all, c.readOnly(), c.diskFull(), c.failover(), c.rejoin())
}

// roleFaults are those of one of the two copies of a role: now the first, now the second.
func (c *cluster) roleFaults(role string, from int) []fault {
	one := func(i int) (*harness.System, string) {
		i = (from + i) % 2
		return c.roles[i], fmt.Sprintf("%s %d of 2", role, i+1)
	}
	killed, kill := one(0)
	ended, end := one(1)
	frozen, freeze := one(2)
	start := func(s *harness.System) func(*testing.T) { return func(t *testing.T) { s.Start(t, role) } }
	send := func(s *harness.System, signal syscall.Signal) func(*testing.T) {
		return func(*testing.T) { _ = s.Processes[role].Cmd.Process.Signal(signal) }
	}
	return []fault{
		{name: "kill -9 " + kill, spare: true, cuts: role == harness.RoleBff, breaks: func(*testing.T) { killed.Processes[role].Kill() }, fixes: start(killed)},
		{name: "SIGTERM " + end, spare: true, graceful: true, breaks: func(t *testing.T) {
			send(ended, syscall.SIGTERM)(t)
			ended.Processes[role].Wait(t)
		}, fixes: start(ended)},
		{name: "SIGSTOP " + freeze, spare: true, breaks: send(frozen, syscall.SIGSTOP), fixes: send(frozen, syscall.SIGCONT)},
	}
}

// frontFaults are those of one of the two load balancers, which are stopped and get a new
// file as the guide advises. A frozen one still accepts connections. If it is frozen for
// longer than its callers wait, it is not continued, as the guide advises: it would send the
// requests of callers that have left and have refreshed their session many times since.
func (c *cluster) frontFaults() []fault {
	first, second := &c.fronts[0], &c.fronts[1]
	start := func(f *front) func(*testing.T) { return func(t *testing.T) { f.start(t, f.address) } }
	return []fault{
		{name: "kill -9 HAProxy 1 of 2", spare: true, cuts: true, breaks: func(*testing.T) { first.kill() }, fixes: start(first)},
		{name: "SIGUSR1 HAProxy 2 of 2", spare: true, graceful: true, breaks: func(t *testing.T) { second.stop(t, syscall.SIGUSR1) }, fixes: start(second)},
		{name: "SIGUSR2 (reload) HAProxy 1 of 2", spare: true, graceful: true, breaks: first.reload, fixes: func(*testing.T) {}},
		{name: "SIGSTOP HAProxy 2 of 2", spare: true,
			breaks: func(*testing.T) { second.signal(syscall.SIGSTOP) }, fixes: func(*testing.T) { second.signal(syscall.SIGCONT) }},
		{name: "SIGSTOP HAProxy 1 of 2, started again", spare: true, lasts: callLimit + 2*time.Second, outcome: timedOut,
			breaks: func(*testing.T) { first.signal(syscall.SIGSTOP) }, fixes: func(t *testing.T) {
				first.kill()
				first.start(t, first.address)
			}},
	}
}

// reload lets HAProxy read its file again, as systemctl reload does: a new worker takes the
// new connections.
func (f *front) reload(t *testing.T) {
	t.Helper()
	before := childrenOf(f.cmd.Process.Pid)
	f.signal(syscall.SIGUSR2)
	harness.Eventually(t, 30*time.Second, "a new worker of HAProxy", func() error {
		for _, worker := range childrenOf(f.cmd.Process.Pid) {
			if !slices.Contains(before, worker) {
				return nil
			}
		}
		return errors.New(f.tail())
	})
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

// lateStandby is a standby that receives the log, so that commits succeed, and does not
// replay it. It must not answer reads meanwhile.
func (c *cluster) lateStandby() fault {
	replay := func(what string) func(t *testing.T) {
		return func(t *testing.T) { execute(t, c.standby.url("postgres"), "SELECT pg_wal_replay_"+what+"()") }
	}
	return fault{name: "standby does not replay", spare: true, graceful: true, reads: primaryBehind, breaks: replay("pause"), fixes: replay("resume")}
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

// failover loses the machine of the primary and promotes the standby. It waits first until
// the standby answers reads, which nobody asks it for afterwards.
func (c *cluster) failover() fault {
	return fault{name: "machine of the primary lost, failover", promoted: true, before: c.untilStandbyReads, breaks: func(*testing.T) {
		c.primary.bouncer.kill()
		c.primary.postgres.kill()
	}, fixes: func(t *testing.T) {
		c.primary, c.standby = c.standby, c.primary
		c.owner = c.primary.url("gatehouse")
		execute(t, c.primary.url("postgres"), "SELECT pg_promote(true, 60)")
		harness.Eventually(t, 30*time.Second, "the standby takes writes", func() error {
			return expect(c.owner, "SELECT pg_is_in_recovery()::int", 0)
		})
	}}
}

// rejoin makes the lost machine the standby of the new primary, on the new timeline. The
// services' settings stay as they are.
func (c *cluster) rejoin() fault {
	return fault{name: "lost machine is the standby", spare: true, graceful: true, reads: byStandby, breaks: func(t *testing.T) {
		if err := os.RemoveAll(c.standby.data()); err != nil {
			t.Fatal(err)
		}
		c.standby.makeStandby(t, c.primary)
		c.standby.bouncer.start(t, c.standby.pooled)
	}, fixes: c.untilStandbyReads}
}

// row is a line of the table.
type row struct {
	fault  string
	counts [outcomes]int
	healed time.Duration
	// onStandby and onPrimary are the reads that the standby may answer, by who did.
	onStandby, onPrimary int
	notRun               string
	wrongs               []string
	from, to             time.Time
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
	if f.before != nil {
		f.before(t)
	}
	t.Logf("%s %s", time.Now().Format("15:04:05.000"), f.name)
	before := c.readsNow(t)
	held := c.holdUp(t)
	begun := time.Now()
	f.breaks(t)
	lasts := lastsAlone
	if f.spare {
		lasts = lastsBesideSpare
	}
	time.Sleep(max(f.lasts, lasts) - time.Since(begun)) // the fault lasts that long
	f.fixes(t)
	fixed, repaired := time.Now(), c.readsNow(t)
	<-held
	time.Sleep(healBound + calm - time.Since(fixed)) // the observed time
	r.from, r.to = begun.Add(-heldUp), time.Now()
	calls := all.between(r.from, r.to)
	for _, c := range calls {
		r.counts[c.outcome]++
		if f.forbids(c) || c.failed() && f.since(c.began, begun, fixed) > healBound {
			r.wrong("%s after the fault, %s after the repair, %s: %s", c.began.Sub(begun), c.began.Sub(fixed), c.method, c.detail)
		}
		if c.failed() {
			r.healed = max(r.healed, f.since(c.began, begun, fixed))
		}
	}
	if len(calls) < 50 {
		r.wrong("only %d calls were made", len(calls))
	}
	if f.outcome != answered && r.counts[f.outcome] == 0 {
		r.wrong("no call was in what broke")
	}
	f.countReads(&r, before, repaired, c.readsNow(t))
	return r
}

// countReads counts the reads that the standby may answer.
func (f fault) countReads(r *row, before, repaired, after reads) {
	by := map[string]int{}
	for _, service := range readers {
		for who, n := range after.since(before, service) {
			if by[who] += n; who == byStandby {
				r.onStandby += n
			} else {
				r.onPrimary += n
			}
		}
		if n := after.since(repaired, service)[byStandby]; f.promoted && n > 0 {
			r.wrong("the server that was promoted answered %d reads of %s as a standby", n, service)
		}
	}
	if f.reads != "" && by[f.reads] == 0 {
		r.wrong("the reads that the standby may answer were answered by %v, none by %s", by, f.reads)
	}
}

func (r *row) wrong(format string, args ...any) {
	r.wrongs = append(r.wrongs, fmt.Sprintf(format, args...))
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

// table is the result, a line for each fault. The columns standby and primary are the reads
// that the standby may answer, by who did.
func table(rows []row) string {
	var text strings.Builder
	fmt.Fprintf(&text, "%-42s %6s %6s %6s %6s %6s %8s %5s %8s %8s %8s %6s\n", "fault", "calls", "ok", "partly", "503", "queue",
		"deadline", "lost", "healed", "standby", "primary", "wrong")
	for _, r := range rows {
		if r.notRun != "" {
			fmt.Fprintf(&text, "%-42s not run: %s\n", r.fault, r.notRun)
			continue
		}
		calls := 0
		for _, n := range r.counts {
			calls += n
		}
		fmt.Fprintf(&text, "%-42s %6d %6d %6d %6d %6d %8d %5d %7.1fs %8d %8d %6d\n", r.fault, calls, r.counts[answered], r.counts[partly], r.counts[refused],
			r.counts[queued], r.counts[timedOut], r.counts[lost], r.healed.Seconds(), r.onStandby, r.onPrimary, len(r.wrongs))
	}
	return text.String()
}
