package postgres

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
)

// play is the child. It prints "ready" when its Postgres is, and stops it at the end
// of the standard input, which comes with the end of the test at the latest.
func play(ctx context.Context, role, dir string) error {
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, os.Interrupt)

	run := Start
	if role == "orphan" {
		run = startOrphan
	}
	s, err := run(ctx, Config{Dir: dir})
	if err != nil {
		return err
	}
	if err := write(ctx, s, `CREATE TABLE kept AS SELECT 'a word' AS word`); err != nil {
		return err
	}
	fmt.Println("ready")
	if role == "interrupted" {
		<-interrupts
		if err := write(ctx, s, `CREATE TABLE last_words ()`); err != nil {
			return err
		}
		return s.Stop(ctx)
	}
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	return s.Stop(ctx)
}

func write(ctx context.Context, s *Server, sql string) error {
	conn, err := pgx.Connect(ctx, s.URL("postgres"))
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, sql)
	return errors.Join(err, conn.Close(ctx))
}

// startOrphan runs a Postgres that doesn't notice our death, as where the system
// can't tell it.
func startOrphan(ctx context.Context, cfg Config) (*Server, error) {
	s, err := Start(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if err := s.Stop(ctx); err != nil {
		return nil, err
	}
	cfg.Logger = slog.New(slog.DiscardHandler)
	home, err := findHome(cfg.Dir)
	if err != nil {
		return nil, err
	}
	bin, err := findBinaries(ctx, cfg, home, 0)
	if err != nil {
		return nil, err
	}
	if s.sockets, err = home.makeSocketFolder(); err != nil {
		return nil, err
	}
	cmd := command(ctx, home.account, 0, bin.postgres, append([]string{"-D", home.data()}, settings(cfg, s.sockets)...)...)
	cmd.Dir = home.data()
	if s.process, err = startProcess(cmd); err != nil {
		return nil, err
	}
	return s, s.awaitReady(ctx, home.data())
}

// gatehouse is a child that plays a role.
type gatehouse struct {
	*exec.Cmd
	stdin  io.Closer
	errors *strings.Builder
}

func begin(t *testing.T, role, dir string, change func(*exec.Cmd)) *gatehouse {
	t.Helper()
	g := &gatehouse{Cmd: exec.Command(os.Args[0], dir), errors: new(strings.Builder)}
	g.Env = append(os.Environ(), roleVariable+"="+role)
	g.SysProcAttr = &syscall.SysProcAttr{}
	g.Stderr = g.errors
	var err error
	if g.stdin, err = g.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(g.Cmd)
	}
	return g
}

// awaitReady starts the child and waits until its Postgres runs.
func (g *gatehouse) awaitReady(t *testing.T) *gatehouse {
	t.Helper()
	stdout, err := g.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		g.stdin.Close()
		g.Wait()
	})
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "ready\n" {
		g.Wait()
		t.Fatalf("the child said %q, %v; %s", line, err, g.errors)
	}
	return g
}

func (g *gatehouse) kill(t *testing.T) {
	t.Helper()
	if err := g.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := g.Wait(); err == nil || err.Error() != "signal: killed" {
		t.Fatalf("the killed child ended with %v", err)
	}
}

func TestStopLeavesNoProcess(t *testing.T) {
	t.Parallel()
	dir := madeDir(t)
	s := start(t, dir)
	connect(t, s)
	if n := len(processesIn(t, dir)); n < 5 {
		t.Fatalf("%d processes work in %s: this test doesn't see them all", n, dir)
	}
	stop(t, s)
	awaitNoProcess(t, dir)
}

func TestAKilledGatehouseTakesItsPostgresAlong(t *testing.T) {
	t.Parallel()
	dir := madeDir(t)
	if runtime.GOOS != "linux" {
		t.Skip("only Linux signals a parent's death")
	}
	g := begin(t, "gatehouse", dir, nil).awaitReady(t)
	if processesIn(t, dir) == nil {
		t.Fatal("no Postgres is running")
	}
	g.kill(t)
	await(t, "the end of Postgres", func() bool { return processesIn(t, dir) == nil })
	if _, err := os.Stat(pidFile(filepath.Join(dir, "postgres", "data"))); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("postmaster.pid: %v, want none after a clean shutdown", err)
	}
	s := start(t, dir)
	if got := ask(t, s, `SELECT word FROM kept`); got != "a word" {
		t.Errorf("after a kill the row holds %q", got)
	}
}

func TestANewStartNeedNotWaitForTheKilledOnesPostgres(t *testing.T) {
	t.Parallel()
	dir := madeDir(t)
	g := begin(t, "gatehouse", dir, nil).awaitReady(t)
	for range 3 {
		g.kill(t)
		s := start(t, dir)
		if got := ask(t, s, `SELECT word FROM kept`); got != "a word" {
			t.Errorf("after a kill the row holds %q", got)
		}
		execute(t, s, `DROP TABLE kept`)
		stop(t, s)
		g = begin(t, "gatehouse", dir, nil).awaitReady(t)
	}
}

func TestAnOrphanIsStoppedByTheNextStart(t *testing.T) {
	t.Parallel()
	dir := madeDir(t)
	g := begin(t, "orphan", dir, nil)
	g.awaitReady(t).kill(t)
	orphan, err := readReport(filepath.Join(dir, "postgres", "data"))
	if err != nil {
		t.Fatal(err)
	}
	if syscall.Kill(orphan.pid, 0) != nil || processesIn(t, dir) == nil {
		t.Fatal("the orphan didn't survive")
	}

	var log strings.Builder
	s := startWith(t, Config{Dir: dir, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if runsOn(orphan.pid, filepath.Join(dir, "postgres", "data")) {
		t.Errorf("the orphan %d still runs", orphan.pid)
	}
	if got := ask(t, s, `SELECT word FROM kept`); got != "a word" {
		t.Errorf("the row holds %q", got)
	}
	if want := fmt.Sprintf("outlived its Gatehouse\" pid=%d", orphan.pid); !strings.Contains(log.String(), want) {
		t.Errorf("log %q, want %q", log.String(), want)
	}
}

func TestAStalePidFileOfALivingProcessIsNoObstacle(t *testing.T) {
	t.Parallel()
	dir := madeDir(t)
	s := start(t, dir)
	file := pidFile(filepath.Join(s.Dir(), "data"))
	report, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	stop(t, s)

	// A process of the same user: Postgres itself would take it for a postmaster.
	bystander := exec.Command("sleep", "600")
	uid, gid := owner(info)
	if os.Geteuid() == 0 {
		bystander.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	}
	bystander.Dir = "/"
	if err := bystander.Start(); err != nil {
		t.Fatal(err)
	}
	defer bystander.Wait()
	defer bystander.Process.Kill()
	_, rest, _ := strings.Cut(string(report), "\n")
	stale := strconv.Itoa(bystander.Process.Pid) + "\n" + rest
	if err := os.WriteFile(file, []byte(stale), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Lchown(file, uid, gid); err != nil {
		t.Fatal(err)
	}

	ask(t, start(t, dir), `SELECT 'reached'`)
	if err := bystander.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the bystander was harmed: %v", err)
	}
}

func TestAKillDuringInitdbLeavesNoCluster(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	g := begin(t, "gatehouse", dir, nil)
	if err := g.Start(); err != nil {
		t.Fatal(err)
	}
	await(t, "initdb at work", func() bool {
		found, _ := filepath.Glob(filepath.Join(dir, "postgres", unfinished+"*", "data", "PG_VERSION"))
		return found != nil
	})
	g.kill(t)
	if _, err := os.Stat(filepath.Join(dir, "postgres", "data")); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("data is there in the middle of initdb: %v", err)
	}
	s := start(t, dir)
	execute(t, s, `CREATE TABLE fine ()`)
	stop(t, s)
	await(t, "the end of the processes that initdb started", func() bool { return processesIn(t, dir) == nil })
}

func TestSecondProcessIsRefusedWithTheHoldersID(t *testing.T) {
	t.Parallel()
	dir := madeDir(t)
	g := begin(t, "gatehouse", dir, nil).awaitReady(t)
	_, err := Start(t.Context(), Config{Dir: dir})
	if want := fmt.Sprintf("process ID %d ", g.Process.Pid); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), want) {
		t.Errorf("Start = %v, want ErrInUse naming process %d", err, g.Process.Pid)
	}
	if err := g.stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if err := g.Wait(); err != nil {
		t.Errorf("the child ended with %v; %s", err, g.errors)
	}
}

func TestCtrlCReachesOnlyGatehouse(t *testing.T) {
	t.Parallel()
	dir := madeDir(t)
	g := begin(t, "interrupted", dir, func(cmd *exec.Cmd) { cmd.SysProcAttr.Setpgid = true }).awaitReady(t)
	if err := syscall.Kill(-g.Process.Pid, syscall.SIGINT); err != nil { // as a terminal does
		t.Fatal(err)
	}
	if err := g.Wait(); err != nil {
		t.Errorf("the child, which writes before it stops, ended with %v; %s", err, g.errors)
	}
	awaitNoProcess(t, dir)
}

func TestOrdinaryUserRunsPostgresAsItself(t *testing.T) {
	needRoot(t)
	t.Parallel()
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Skip(err)
	}
	uid, _ := strconv.Atoi(nobody.Uid)
	gid, _ := strconv.Atoi(nobody.Gid)
	dir := newDir(t)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatal(err)
	}
	// The folder in which go test builds is closed to others.
	program := filepath.Join(filepath.Dir(dir), "gatehouse.test")
	binary, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, binary, 0o755); err != nil {
		t.Fatal(err)
	}
	g := begin(t, "gatehouse", filepath.Join(dir, "theirs"), func(cmd *exec.Cmd) {
		cmd.Path, cmd.Dir = program, "/"
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}).awaitReady(t)
	for _, pid := range processesIn(t, dir) {
		if got := ownerName(t, "/proc/"+strconv.Itoa(pid)); got != "nobody" {
			t.Errorf("process %d runs as %s", pid, got)
		}
	}
	if err := g.stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if err := g.Wait(); err != nil {
		t.Errorf("the child ended with %v; %s", err, g.errors)
	}
	awaitNoProcess(t, dir)

	// Root may use the folder once without taking it away from its owner.
	s := start(t, filepath.Join(dir, "theirs"))
	if got := ask(t, s, `SELECT word FROM kept`); got != "a word" {
		t.Errorf("the row holds %q", got)
	}
	if got := ownerName(t, filepath.Join(s.Dir(), "data", "PG_VERSION")); got != "nobody" {
		t.Errorf("the data now belongs to %s", got)
	}
}
