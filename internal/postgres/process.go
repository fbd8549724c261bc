package postgres

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// command returns a command that runs as the account. The kernel sends it the signal when
// this process dies.
//
// It runs in its own session, so that Ctrl-C in a terminal reaches only Gatehouse, which
// stops Postgres last. Its environment has neither our secrets nor the user's PG…
// variables, which would change its behaviour.
func command(ctx context.Context, as account, atOurDeath syscall.Signal, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = []string{"LC_ALL=C", "TZ=UTC"}
	for _, name := range []string{"PATH", "LD_LIBRARY_PATH"} {
		if value, ok := os.LookupEnv(name); ok {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if as.other {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(as.uid), Gid: uint32(as.gid)}
	}
	setParentDeathSignal(cmd.SysProcAttr, atOurDeath)
	// The children of initdb are in its process group.
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

// output runs a command to its end and returns what it wrote.
func output(cmd *exec.Cmd) ([]byte, error) {
	// With a buffer, unlike with a file, Wait also waits for the command's children, which
	// hold the other end of the pipe.
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	p, err := startProcess(cmd)
	if err != nil {
		return nil, err
	}
	<-p.done
	return out.Bytes(), p.err
}

// process is a running child.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // how it ended, once done is closed
}

func startProcess(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The kernel considers the forking thread the parent. If that thread ended, the
		// child would receive the signal for the parent's death.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()

		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// stopSteps are the signals that stop a postmaster, in order: a fast shutdown, which rolls
// back open transactions; an immediate shutdown, which makes the next start recover, and
// for which Postgres gives its children 5 s; and a kill. SIGTERM is not used, because it
// waits for clients to disconnect.
var stopSteps = []struct {
	signal   syscall.Signal
	patience time.Duration
}{
	{syscall.SIGINT, 5 * time.Second},
	{syscall.SIGQUIT, 10 * time.Second},
	{syscall.SIGKILL, 10 * time.Second},
}

// stop stops a postmaster and returns when it has ended. When ctx ends, it continues with
// the second signal.
func (p *process) stop(ctx context.Context) error {
	for i, step := range stopSteps {
		if err := p.cmd.Process.Signal(step.signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
		select {
		case <-p.done:
			if i > 0 {
				return errors.New("it did not shut down in time and was killed; the next start recovers")
			}
			return p.err
		case <-ctx.Done():
			ctx = context.WithoutCancel(ctx)
		case <-time.After(step.patience):
		}
	}
	return errors.New("it cannot be stopped")
}
