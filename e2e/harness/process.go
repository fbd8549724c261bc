package harness

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// AsGatehouse is the environment variable that makes the test binary run as gatehouse.
func AsGatehouse() string {
	root, _ := os.Getwd()
	return runAsGatehouse + "=" + filepath.Join(root, "schema.sql")
}

// Process is a running gatehouse. Ended is closed when it has ended.
type Process struct {
	Cmd    *exec.Cmd
	Stdout LockedBuffer
	Stderr LockedBuffer
	Ended  chan struct{}
}

// LockedBuffer is a buffer for several goroutines.
type LockedBuffer struct {
	mu   sync.Mutex
	data bytes.Buffer
}

func (b *LockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.data.Write(p)
}

func (b *LockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.data.String()
}

// StartProcess runs gatehouse with the arguments and only the given settings, of which
// those of [CrashPoints] are some. It is killed at the end of the test.
func StartProcess(t testing.TB, env []string, args ...string) *Process {
	t.Helper()
	program := os.Args[0]
	if slices.ContainsFunc(env, func(setting string) bool { return strings.HasPrefix(setting, crashFile+"=") }) {
		program = crashing(t)
	}
	p := &Process{Cmd: exec.Command(program, args...), Ended: make(chan struct{})}
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "GATEHOUSE_") && !strings.Contains(variable, "DATABASE_URL") {
			p.Cmd.Env = append(p.Cmd.Env, variable)
		}
	}
	p.Cmd.Env = append(append(p.Cmd.Env, AsGatehouse()), env...)
	p.start(t)
	return p
}

// StartProgram runs another program with an environment. It is killed at the end of the
// test.
func StartProgram(t testing.TB, program string, env []string, args ...string) *Process {
	t.Helper()
	p := &Process{Cmd: exec.Command(program, args...), Ended: make(chan struct{})}
	p.Cmd.Env = env
	p.start(t)
	return p
}

func (p *Process) start(t testing.TB) {
	t.Helper()
	p.Cmd.Stdout, p.Cmd.Stderr = &p.Stdout, &p.Stderr
	if err := p.Cmd.Start(); err != nil {
		t.Fatalf("start %v: %v", p.Cmd.Args, err)
	}
	go func() {
		defer close(p.Ended)
		_ = p.Cmd.Wait()
	}()
	t.Cleanup(p.Kill)
}

// Kill kills the process and waits for its end.
func (p *Process) Kill() {
	_ = p.Cmd.Process.Kill()
	<-p.Ended
}

// Interrupt stops the process as Ctrl-C does, and returns how long that took and the
// exit status.
func (p *Process) Interrupt(t testing.TB) (time.Duration, int) {
	t.Helper()
	start := time.Now()
	if err := p.Cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatalf("interrupt: %v", err)
	}
	p.Wait(t)
	return time.Since(start), p.Cmd.ProcessState.ExitCode()
}

// Wait waits until the process has ended.
func (p *Process) Wait(t testing.TB) {
	t.Helper()
	select {
	case <-p.Ended:
	case <-time.After(30 * time.Second):
		t.Fatalf("gatehouse does not end; its output:\n%s%s", p.Stdout.String(), p.Stderr.String())
	}
}

// HasEnded reports whether the process has ended.
func (p *Process) HasEnded() bool {
	select {
	case <-p.Ended:
		return true
	default:
		return false
	}
}

// RunCommand runs a command to its end and returns its exit status and output.
func RunCommand(t *testing.T, env []string, args ...string) (int, string) {
	t.Helper()
	p := StartProcess(t, env, args...)
	p.Wait(t)
	return p.Cmd.ProcessState.ExitCode(), p.Stdout.String() + p.Stderr.String()
}
