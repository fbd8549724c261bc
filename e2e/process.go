package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// asGatehouse is the environment in which the test binary is the program.
func asGatehouse() string {
	root, _ := os.Getwd()
	return runAsGatehouse + "=" + filepath.Join(root, "schema.sql")
}

// process is a running gatehouse.
type process struct {
	cmd    *exec.Cmd
	stdout lockedBuffer
	stderr lockedBuffer
	ended  chan struct{}
}

type lockedBuffer struct {
	mu   sync.Mutex
	data bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.data.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.data.String()
}

// startProcess runs gatehouse with the arguments and nothing but the given
// settings. It is killed at the end of the test if it still runs.
func startProcess(t testing.TB, env []string, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(os.Args[0], args...), ended: make(chan struct{})}
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "GATEHOUSE_") && !strings.Contains(variable, "DATABASE_URL") {
			p.cmd.Env = append(p.cmd.Env, variable)
		}
	}
	p.cmd.Env = append(append(p.cmd.Env, asGatehouse()), env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start gatehouse %v: %v", args, err)
	}
	go func() {
		defer close(p.ended)
		_ = p.cmd.Wait()
	}()
	t.Cleanup(p.kill)
	return p
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// interrupt stops it as Ctrl-C does, and returns how long it took and its exit
// status.
func (p *process) interrupt(t testing.TB) (time.Duration, int) {
	t.Helper()
	start := time.Now()
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatalf("interrupt: %v", err)
	}
	p.wait(t)
	return time.Since(start), p.cmd.ProcessState.ExitCode()
}

// wait waits until it has ended.
func (p *process) wait(t testing.TB) {
	t.Helper()
	select {
	case <-p.ended:
	case <-time.After(30 * time.Second):
		t.Fatalf("gatehouse doesn't end; it said:\n%s%s", p.stdout.String(), p.stderr.String())
	}
}

func (p *process) hasEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// ended runs a command to its end and returns its exit status and output.
func ended(t *testing.T, env []string, args ...string) (int, string) {
	t.Helper()
	p := startProcess(t, env, args...)
	p.wait(t)
	return p.cmd.ProcessState.ExitCode(), p.stdout.String() + p.stderr.String()
}
