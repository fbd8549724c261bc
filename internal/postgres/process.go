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

// command is a program to be run by the account, which gets the signal when we die.
//
// It has a session of its own, so that Ctrl-C in a terminal reaches Gatehouse alone,
// which stops Postgres last. Its environment is bare: our secrets are none of its
// business, and the user's PG… variables would change what it does.
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
	signalAtOurDeath(cmd.SysProcAttr, atOurDeath)
	// What initdb runs in turn is in its process group.
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

// output runs a command to its end and returns what it wrote.
func output(cmd *exec.Cmd) ([]byte, error) {
	// With a buffer, unlike a file, the wait is also for the command's children,
	// which hold the other end of the pipe.
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
		// For the kernel the parent is the thread that forked: were it to end, the
		// child would get the signal meant for our death.
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

// stopSteps end a postmaster: roll back and shut down; else drop everything and
// recover at the next start, for which it gives its children 5 s; else just end.
// SIGTERM isn't among them: it waits for clients to leave.
var stopSteps = []struct {
	signal   syscall.Signal
	patience time.Duration
}{
	{syscall.SIGINT, 5 * time.Second},
	{syscall.SIGQUIT, 10 * time.Second},
	{syscall.SIGKILL, 10 * time.Second},
}

// stop ends a postmaster and returns when it has ended. The end of ctx is the end
// of the patience with the first step.
func (p *process) stop(ctx context.Context) error {
	for i, step := range stopSteps {
		if err := p.cmd.Process.Signal(step.signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
		select {
		case <-p.done:
			if i > 0 {
				return errors.New("it didn't shut down in time and was ended; the next start recovers")
			}
			return p.err
		case <-ctx.Done():
			ctx = context.WithoutCancel(ctx)
		case <-time.After(step.patience):
		}
	}
	return errors.New("it can't be stopped")
}
