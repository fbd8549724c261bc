//go:build cluster

package cluster

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gatehouse/e2e/harness"
	"gatehouse/internal/testneed"
)

// network is a bridge with three machines, each a network namespace: two with a load
// balancer, and one from which people call. HAProxy listens on its machine, and reaches the
// gateways from the namespace of the test.
type network struct {
	callers   string
	balancers [2]*balancer
}

// balancer is a machine with HAProxy and keepalived.
type balancer struct {
	machine             string // the name of its namespace
	haproxy, keepalived program
}

// newNetwork makes the machines with the addresses of the guide.
func newNetwork(t *testing.T) *network {
	t.Helper()
	name := func(of string) string {
		name := fmt.Sprintf("gatehouse-%d-%s", os.Getpid(), of)
		if text, err := exec.Command("ip", "netns", "add", name).CombinedOutput(); err != nil {
			if os.Geteuid() != 0 {
				t.Skipf("not run: only root may create network namespaces: %s", text)
			}
			testneed.Lacks(t, fmt.Sprintf("this process may not create network namespaces: %s", text), "give it CAP_SYS_ADMIN and the program ip")
		}
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "delete", name).Run() })
		return name
	}
	n := &network{callers: name("callers")}
	ip := func(args ...string) { run(t, nil, nil, "ip", args...) }
	ip("-n", n.callers, "link", "add", "br0", "type", "bridge")
	ip("-n", n.callers, "address", "add", "10.0.3.254/24", "dev", "br0")
	ip("-n", n.callers, "link", "set", "br0", "up")
	for i := range n.balancers {
		b := &balancer{machine: name(fmt.Sprint(i + 1))}
		n.balancers[i] = b
		port := fmt.Sprint("port", i+1)
		ip("link", "add", "eth0", "netns", b.machine, "type", "veth", "peer", "name", port, "netns", n.callers)
		ip("-n", n.callers, "link", "set", port, "master", "br0", "up")
		ip("-n", b.machine, "address", "add", fmt.Sprintf("10.0.3.%d/24", i+1), "dev", "eth0")
		ip("-n", b.machine, "link", "set", "eth0", "up")
		ip("-n", b.machine, "link", "set", "lo", "up")
	}
	return n
}

// startBalancers starts HAProxy and keepalived on both machines, with the files of the guide.
func (n *network) startBalancers(t *testing.T, roles [2]*harness.System) {
	t.Helper()
	path := testneed.Program(t, "keepalived", "/usr/sbin/keepalived")
	for i, b := range n.balancers {
		b.haproxy = haproxy(t, roles, "bind :8001 namespace "+b.machine, "bind 127.0.0.1:8009 namespace "+b.machine)
		var pairs []string
		if i == 1 {
			pairs = []string{"priority 101", "priority 100", "priority 100", "priority 101", "10.0.3.1\n", "10.0.3.2\n", "10.0.3.2\n", "10.0.3.1\n"}
		}
		dir := t.TempDir()
		file := filepath.Join(dir, "keepalived.conf")
		if err := os.WriteFile(file, []byte(replaced(t, "deploy/cluster/keepalived.conf", pairs...)), 0o644); err != nil {
			t.Fatal(err)
		}
		b.keepalived = program{name: "keepalived", path: testneed.Program(t, "ip"), args: []string{"netns", "exec", b.machine, path,
			"--dont-fork", "--log-console", "--vrrp", "--use-file=" + file, "--pid=" + filepath.Join(dir, "pid"), "--vrrp_pid=" + filepath.Join(dir, "vrrp")}}
		t.Cleanup(b.haproxy.kill)
		t.Cleanup(func() { b.keepalived.stop(t, syscall.SIGTERM) })
		b.haproxy.start(t, "")
		b.keepalived.start(t, "")
	}
}

// link switches the network of the machine on or off.
func (b *balancer) link(state string) func(t *testing.T) {
	return func(t *testing.T) { run(t, nil, nil, "ip", "-n", b.machine, "link", "set", "eth0", state) }
}

// connect connects from the machine of the callers.
func (n *network) connect(ctx context.Context, network, address string) (conn net.Conn, err error) {
	// A socket belongs to the namespace of the thread that creates it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	defer own.Close()
	there, err := os.Open("/run/netns/" + n.callers)
	if err != nil {
		return nil, err
	}
	defer there.Close()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, err
	}
	defer func() {
		if err := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); err != nil {
			panic(err) // the thread belongs to the test
		}
	}()
	return (&net.Dialer{Timeout: connectLimit}).DialContext(ctx, network, address)
}

// move is something after which keepalived moves an address.
type move struct {
	what  string
	does  func(t *testing.T)
	begun time.Time
}

// Callers of a frozen HAProxy do not take the other address of the name by themselves: its
// kernel accepts their connections. So the address has to move, as it does if the machine is lost.
func TestAddressesMoveFromALoadBalancerThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	roles := harness.StartPair(t, harness.WithSettings("GATEHOUSE_TRUSTED_PROXIES=127.0.0.1/32"))
	n.startBalancers(t, roles)
	token := roles[0].SignUp(t, "ada@example.com").Access
	calls := &journal{}
	call := func(address string, h2 bool) outcome {
		c := &client{h2: h2, connect: n.connect, fronts: []string{address}, journal: calls}
		c.reconnect()
		defer c.http.CloseIdleConnections()
		return c.call("AccountService/GetMe", token, "", "{}", nil).outcome
	}
	addresses := []string{"10.0.3.11:8001", "10.0.3.12:8001"}
	for _, address := range addresses {
		harness.Eventually(t, 30*time.Second, "an answer at "+address, func() error {
			if result := call(address, false); result != answered {
				return fmt.Errorf("outcome %d: %s%s", result, n.balancers[0].keepalived.tail(), n.balancers[1].keepalived.tail())
			}
			return nil
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	stop := sync.OnceFunc(func() { cancel(); running.Wait() })
	t.Cleanup(stop)
	running.Go(func() { // somebody comes every 100 ms, whatever becomes of those before
		for i := 0; ctx.Err() == nil; i++ {
			running.Go(func() { call(addresses[i%2], i/2%2 == 0) })
			time.Sleep(100 * time.Millisecond)
		}
	})
	first, second := n.balancers[0], n.balancers[1]
	moves := []move{
		{what: "SIGSTOP HAProxy 1", does: func(*testing.T) { first.haproxy.signal(syscall.SIGSTOP) }},
		{what: "SIGCONT HAProxy 1", does: func(*testing.T) { first.haproxy.signal(syscall.SIGCONT) }},
		{what: "kill -9 HAProxy 2", does: func(*testing.T) { second.haproxy.kill() }},
		{what: "HAProxy 2 started", does: func(t *testing.T) { second.haproxy.start(t, "") }},
		{what: "network of machine 1 lost", does: first.link("down")},
		{what: "network of machine 1 back", does: first.link("up")},
	}
	wanted := regexp.MustCompile(*only)
	moves = slices.DeleteFunc(moves, func(m move) bool { return !wanted.MatchString(m.what) })
	for i := range moves {
		moves[i].begun = time.Now()
		moves[i].does(t)
		time.Sleep(healBound + 3*time.Second) // the observed time
	}
	end := time.Now()
	stop()
	for i, m := range moves {
		until := end
		if i+1 < len(moves) {
			until = moves[i+1].begun
		}
		wantMoved(t, m, calls.between(m.begun, until))
	}
}

// wantMoved wants calls to succeed from 5 s after a move on.
func wantMoved(t *testing.T, m move, calls []call) {
	t.Helper()
	var counts [outcomes]int
	var healed time.Duration
	for _, c := range calls {
		counts[c.outcome]++
		if c.failed() {
			healed = max(healed, c.began.Sub(m.begun))
		}
		if c.outcome == wrong || c.failed() && c.began.Sub(m.begun) > healBound {
			t.Errorf("%s after %s: %s", c.began.Sub(m.begun), m.what, c.detail)
		}
	}
	if len(calls) < 40 {
		t.Errorf("%s: only %d calls", m.what, len(calls))
	}
	if m.what == "SIGSTOP HAProxy 1" && counts[timedOut] == 0 {
		t.Errorf("%s: no call was in the frozen HAProxy", m.what)
	}
	t.Logf("%-28s %3d calls: %d answered, %d refused, %d by the caller's deadline, %d lost; the last that failed began after %.1f s",
		m.what, len(calls), counts[answered]+counts[partly], counts[refused], counts[timedOut], counts[lost], healed.Seconds())
}
