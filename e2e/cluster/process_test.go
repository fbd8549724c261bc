//go:build cluster

package cluster

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"gatehouse/e2e/harness"
)

// program is a server of somebody else that the test stops, kills, freezes and starts.
type program struct {
	name, path string
	args       []string
	as         *syscall.Credential
	// ready, unless it is nil, returns an error until it serves.
	ready func() error
	log   harness.LockedBuffer

	cmd   *exec.Cmd
	ended chan struct{}
}

// start starts it, and waits until it serves: at an address, unless that is empty.
func (p *program) start(t *testing.T, address string) {
	t.Helper()
	harness.Eventually(t, time.Minute, "start "+p.name, func() error {
		if p.cmd == nil || p.hasEnded() {
			p.cmd, p.ended = exec.Command(p.path, p.args...), make(chan struct{})
			p.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.as, Pdeathsig: syscall.SIGKILL}
			p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
			if err := p.cmd.Start(); err != nil {
				t.Fatalf("start %s: %v", p.name, err)
			}
			go func(cmd *exec.Cmd, ended chan struct{}) {
				defer close(ended)
				_ = cmd.Wait()
			}(p.cmd, p.ended)
		}
		if address != "" {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				return fmt.Errorf("%w: %s", err, p.tail())
			}
			_ = conn.Close()
		}
		if p.ready != nil {
			return p.ready()
		}
		return nil
	})
}

func (p *program) tail() string {
	text := p.log.String()
	return text[max(0, len(text)-2000):]
}

func (p *program) hasEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// signal sends a signal to the process and then to its children, as they were when the
// process got it: a parent that is frozen or dead starts no others.
func (p *program) signal(signal syscall.Signal) {
	if p.cmd == nil || p.hasEnded() {
		return
	}
	children := childrenOf(p.cmd.Process.Pid)
	_ = p.cmd.Process.Signal(signal)
	if signal != syscall.SIGKILL && signal != syscall.SIGSTOP && signal != syscall.SIGCONT {
		return
	}
	for _, pid := range append(children, childrenOf(p.cmd.Process.Pid)...) {
		_ = syscall.Kill(pid, signal)
	}
}

// kill ends it and its children at once, as the loss of its machine does.
func (p *program) kill() {
	if p.cmd == nil {
		return
	}
	p.signal(syscall.SIGKILL)
	<-p.ended
}

// stop asks it to end, and waits.
func (p *program) stop(t *testing.T, signal syscall.Signal) {
	t.Helper()
	p.signal(signal)
	select {
	case <-p.ended:
	case <-time.After(30 * time.Second):
		t.Errorf("%s does not end: %s", p.name, p.tail())
		p.kill()
	}
}

// childrenOf returns the processes that a process has started and that run.
func childrenOf(parent int) (pids []int) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		// The name, in parentheses, may contain spaces.
		_, rest, _ := strings.Cut(string(text[strings.LastIndexByte(string(text), ')'):]), " ")
		fields := strings.Fields(rest)
		if len(fields) < 2 || fields[1] != strconv.Itoa(parent) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// notRoot is the user of Postgres and PgBouncer, which refuse to run as root; nil for the
// user of this process.
func notRoot(t *testing.T) *syscall.Credential {
	t.Helper()
	if os.Geteuid() != 0 {
		return nil
	}
	found, err := user.Lookup("postgres")
	if err != nil {
		t.Fatal(err)
	}
	uid, err := strconv.ParseUint(found.Uid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	gid, err := strconv.ParseUint(found.Gid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// run runs a command to its end.
func run(t *testing.T, as *syscall.Credential, env []string, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	cmd.Env = append(os.Environ(), env...)
	cmd.Dir = "/"
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, text)
	}
}
