package pgtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"gatehouse/internal/testneed"
)

const replicaPassword = "owner"

// Replica is a Postgres with a streaming standby, which a test may pause, freeze and kill.
type Replica struct {
	Database // of the primary
	primary  *node
	standby  *node
}

// node is one Postgres, in a folder of its own.
type node struct {
	dir, port, bin string
	as             *syscall.Credential
	cmd            *exec.Cmd
	ended          chan struct{}
}

// StartReplica starts a primary with the schema applied, and a standby of it.
func StartReplica(t testing.TB) *Replica {
	t.Helper()
	r := &Replica{primary: newNode(t), standby: newNode(t)}
	secret := filepath.Join(r.primary.dir, "password")
	if err := os.WriteFile(secret, []byte(replicaPassword), 0o644); err != nil {
		t.Fatal(err)
	}
	r.primary.run(t, "initdb", "-D", r.primary.data(), "-U", "postgres", "--auth=scram-sha-256", "--pwfile="+secret, "--encoding=UTF8", "--locale=C", "--no-sync")
	r.primary.start(t)
	execute(t, r.primary.url("postgres"), "CREATE DATABASE gatehouse")
	r.Database = Apply(t, r.primary.url("gatehouse"))
	r.standby.run(t, "pg_basebackup", "--dbname=host=127.0.0.1 user=postgres password="+replicaPassword+" port="+r.primary.port,
		"--pgdata="+r.standby.data(), "--wal-method=stream", "--checkpoint=fast", "--write-recovery-conf", "--no-sync")
	r.standby.start(t)
	return r
}

// StandbyURL returns the URL of a service's login role at the standby.
func (r *Replica) StandbyURL(service string) string {
	return strings.Replace(r.URL(service), ":"+r.primary.port+"/", ":"+r.standby.port+"/", 1)
}

// StandbyOwner returns the URL of the owner at the standby.
func (r *Replica) StandbyOwner() string { return r.standby.url("gatehouse") }

// PauseReplay lets the standby fall behind, until ResumeReplay.
func (r *Replica) PauseReplay(t testing.TB) {
	t.Helper()
	execute(t, r.StandbyOwner(), "SELECT pg_wal_replay_pause()")
	conn := Connect(t, r.StandbyOwner())
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		var state string
		if err := conn.QueryRow(t.Context(), "SELECT pg_get_wal_replay_pause_state()").Scan(&state); err != nil {
			t.Fatal(err)
		}
		if state == "paused" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the replay is %s, want paused", state)
		}
	}
}

// ResumeReplay lets the standby catch up.
func (r *Replica) ResumeReplay(t testing.TB) {
	t.Helper()
	execute(t, r.StandbyOwner(), "SELECT pg_wal_replay_resume()")
}

// Promote makes the standby a primary with a history of its own.
func (r *Replica) Promote(t testing.TB) {
	t.Helper()
	execute(t, r.StandbyOwner(), "SELECT pg_promote()")
}

// FreezeStandby stops the standby's processes without ending them, until ThawStandby.
func (r *Replica) FreezeStandby() { r.standby.signal(syscall.SIGSTOP) }

// ThawStandby continues the standby's processes.
func (r *Replica) ThawStandby() { r.standby.signal(syscall.SIGCONT) }

// KillStandby ends the standby as the loss of its machine does, until StartStandby.
func (r *Replica) KillStandby() { r.standby.kill() }

// StartStandby starts the standby again.
func (r *Replica) StartStandby(t testing.TB) {
	t.Helper()
	r.standby.start(t)
}

func newNode(t testing.TB) *node {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/pg_basebackup")
	slices.Sort(found)
	bin := ""
	if len(found) > 0 {
		bin = filepath.Dir(found[len(found)-1])
	} else {
		bin = filepath.Dir(testneed.Program(t, "pg_basebackup"))
	}
	dir, err := os.MkdirTemp(testneed.MemoryDir(), "gatehouse-replica-")
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	_ = listener.Close()
	n := &node{dir: dir, port: port, bin: bin}
	t.Cleanup(func() { n.kill(); _ = os.RemoveAll(dir) })
	if os.Geteuid() != 0 { // Postgres refuses to run as root
		return n
	}
	account, err := user.Lookup("postgres")
	if err != nil {
		t.Fatal(err)
	}
	uid, err1 := strconv.ParseUint(account.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(account.Gid, 10, 32)
	n.as = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	if err := errors.Join(err1, err2, os.Chmod(dir, 0o755), os.Chown(dir, int(uid), int(gid))); err != nil {
		t.Fatal(err)
	}
	return n
}

func (n *node) data() string { return filepath.Join(n.dir, "data") }

func (n *node) url(database string) string {
	at := url.URL{Scheme: "postgres", User: url.UserPassword("postgres", replicaPassword), Host: "127.0.0.1:" + n.port, Path: "/" + database, RawQuery: "sslmode=disable"}
	return at.String()
}

func (n *node) run(t testing.TB, program string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(n.bin, program), args...)
	cmd.SysProcAttr, cmd.Dir = &syscall.SysProcAttr{Credential: n.as}, "/"
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", program, err, text)
	}
}

// start starts the server, and waits until it answers. It starts it again if the server
// ends because a child of the server before has its shared memory still.
func (n *node) start(t testing.TB) {
	t.Helper()
	log, err := os.OpenFile(filepath.Join(n.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	for deadline := time.Now().Add(timeout); ; time.Sleep(20 * time.Millisecond) {
		if n.hasEnded() {
			n.launch(t, log)
		}
		conn, err := pgx.Connect(t.Context(), n.url("postgres"))
		if err == nil {
			_ = conn.Close(t.Context())
			return
		}
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(log.Name())
			t.Fatalf("start Postgres: %v: %s", err, text)
		}
	}
}

func (n *node) launch(t testing.TB, log *os.File) {
	t.Helper()
	n.cmd = exec.Command(filepath.Join(n.bin, "postgres"), "-D", n.data(), "-p", n.port, "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="+n.dir,
		"-c", "shared_buffers=64MB", "-c", "wal_retrieve_retry_interval=200ms", "-c", "jit=off")
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: n.as}
	n.cmd.Dir, n.cmd.Stdout, n.cmd.Stderr = "/", log, log
	n.ended = make(chan struct{})
	if err := n.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func(cmd *exec.Cmd, ended chan struct{}) { _ = cmd.Wait(); close(ended) }(n.cmd, n.ended)
}

// hasEnded reports whether the server doesn't run.
func (n *node) hasEnded() bool {
	if n.cmd == nil {
		return true
	}
	select {
	case <-n.ended:
		return true
	default:
		return false
	}
}

// signal sends a signal to the server and to its children: to those of before, since a
// server that has ended is no longer their parent, and to those that it had when it got the
// signal.
func (n *node) signal(signal syscall.Signal) {
	pid := n.cmd.Process.Pid
	children := childrenOf(pid)
	_ = syscall.Kill(pid, signal)
	for _, child := range append(children, childrenOf(pid)...) {
		_ = syscall.Kill(child, signal)
	}
}

// childrenOf returns the processes that a process has started and that run.
func childrenOf(pid int) (children []int) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		_, after, _ := strings.Cut(string(text), ") ") // the name, in parentheses
		var state string
		var parent int
		if _, err := fmt.Sscan(after, &state, &parent); err != nil || parent != pid {
			continue
		}
		if child, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
			children = append(children, child)
		}
	}
	return children
}

func (n *node) kill() {
	if n.hasEnded() {
		return
	}
	n.signal(syscall.SIGKILL)
	<-n.ended
}

func execute(t testing.TB, databaseURL, statement string) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	conn, err := pgx.Connect(ctx, databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}
