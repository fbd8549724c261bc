package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// build compiles the program as make build does.
func build(ctx context.Context, into string) error {
	if out, err := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", into, "gatehouse").CombinedOutput(); err != nil {
		return fmt.Errorf("build gatehouse: %w\n%s", err, out)
	}
	return nil
}

// sizeOf returns a file's size in bytes; 0 if it can't be read.
func sizeOf(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// process is a running server with its log in a file.
type process struct {
	cmd       *exec.Cmd
	log       *os.File
	interrupt func() // as Ctrl-C does, once
	ended     chan struct{}
}

// passedOn are the only variables of bench's environment that a server gets.
var passedOn = []string{"PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "GODEBUG", "GOGC", "GOMAXPROCS", "GOMEMLIMIT"}

const stopPatience = 10 * time.Second

// start starts a server, which is interrupted when ctx ends.
//
// Call it from the main goroutine: the kernel ends the server with the thread that
// started it.
func start(ctx context.Context, program string, args, env []string, stdout *os.File, logPath string) (*process, error) {
	log, err := os.OpenFile(logPath, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(program, args...)
	for _, name := range passedOn {
		if value, ok := os.LookupEnv(name); ok {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	cmd.Env = append(cmd.Env, env...)
	cmd.Stderr = log
	if stdout != nil {
		cmd.Stdout = stdout
	}
	// In its own process group it does not get Ctrl-C from the terminal in addition to
	// ours: a second interrupt would end it at once.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	interruptAtOurDeath(cmd.SysProcAttr)
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	p := &process{cmd: cmd, log: log, ended: make(chan struct{})}
	p.interrupt = sync.OnceFunc(func() { _ = cmd.Process.Signal(os.Interrupt) })
	context.AfterFunc(ctx, p.interrupt)
	go func() {
		defer close(p.ended)
		_ = cmd.Wait()
	}()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// stop interrupts the server and waits until it has ended.
func (p *process) stop() {
	p.interrupt()
	select {
	case <-p.ended:
	case <-time.After(stopPatience):
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
	_ = p.log.Close()
}

// forget truncates the log, which would otherwise grow with every round.
func (p *process) forget() { _ = p.log.Truncate(0) }

// logTail returns the end of the log.
func (p *process) logTail() string {
	text, err := os.ReadFile(p.log.Name())
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-5):], []byte("\n")))
}

// answers waits until the server is ready.
func (p *process) answers(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		if isReady(ctx, address) {
			return nil
		}
		select {
		case <-p.ended:
			return fmt.Errorf("%s ended: %s", p.name(), p.logTail())
		case <-ctx.Done():
			return fmt.Errorf("%s isn't ready: %w: %s", p.name(), ctx.Err(), p.logTail())
		case <-ticker.C:
		}
	}
}

func (p *process) name() string {
	return strings.Join(append([]string{filepath.Base(p.cmd.Path)}, p.cmd.Args[1:]...), " ")
}

func isReady(ctx context.Context, address string) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/readyz", nil)
	if err != nil {
		return false
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	_ = response.Body.Close()
	return response.StatusCode == http.StatusOK
}

func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}
