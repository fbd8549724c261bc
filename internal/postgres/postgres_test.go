package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"gatehouse/internal/testneed"
)

// The tests run themselves again as a Gatehouse that can be killed.
const roleVariable = "POSTGRES_TEST_ROLE"

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		if err := play(context.Background(), role, os.Args[1]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(testWithTemplate(m))
}

func testWithTemplate(m *testing.M) int {
	if err := os.Setenv("TMPDIR", testneed.MemoryDir()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	above, err := os.MkdirTemp("", "gatehouse-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(above)
	template = sync.OnceValues(func() (string, error) {
		dir := filepath.Join(above, "gatehouse")
		s, err := Start(context.Background(), Config{Dir: dir, NoSync: true})
		if err != nil {
			return "", err
		}
		return dir, s.Stop(context.Background())
	})
	if err := os.Chmod(above, 0o711); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// template is a data folder with a cluster, to be copied where its making isn't
// the matter.
var template func() (string, error)

// madeDir is a data folder with a cluster in it.
func madeDir(t *testing.T) string {
	t.Helper()
	from, err := template()
	if err != nil {
		t.Fatal(err)
	}
	dir := newDir(t)
	if out, err := exec.Command("cp", "-a", from, dir).CombinedOutput(); err != nil {
		t.Fatalf("copy the template: %v: %s", err, out)
	}
	return dir
}

// newDir is a data folder to be made, which
// Postgres' user can reach when the tests run as root.
func newDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "gatehouse")
}

// start is Start for tests that aren't about the start.
func start(t *testing.T, dir string) *Server {
	t.Helper()
	return startWith(t, Config{Dir: dir, NoSync: true})
}

func startWith(t *testing.T, cfg Config) *Server {
	t.Helper()
	s, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatalf("Start(%+v) = %v", cfg, err)
	}
	t.Cleanup(func() { s.Stop(context.Background()) })
	return s
}

func stop(t *testing.T, s *Server) {
	t.Helper()
	if err := s.Stop(t.Context()); err != nil {
		t.Fatalf("Stop() = %v", err)
	}
}

func connect(t *testing.T, s *Server) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.URL("postgres"))
	if err != nil {
		t.Fatalf("connect to %s: %v", s.URL("postgres"), err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func execute(t *testing.T, s *Server, sql string) {
	t.Helper()
	if _, err := connect(t, s).Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func ask(t *testing.T, s *Server, sql string) string {
	t.Helper()
	var answer string
	if err := connect(t, s).QueryRow(t.Context(), sql).Scan(&answer); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return answer
}

// await polls, for things whose coming nobody tells.
func await(t *testing.T, what string, come func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(20 * time.Second); !come(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("never came: %s", what)
		}
	}
}

// processesIn are the processes that work below dir.
func processesIn(t *testing.T, dir string) []int {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("needs /proc")
	}
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		// A process may end while we look.
		if cwd, err := os.Readlink("/proc/" + entry.Name() + "/cwd"); err == nil && strings.HasPrefix(cwd, dir+"/") {
			pids = append(pids, pid)
		}
	}
	return pids
}

// awaitNoProcess waits until no process works below dir: a killed child closes its
// files, which ends the wait for it, shortly before it leaves /proc.
func awaitNoProcess(t *testing.T, dir string) {
	t.Helper()
	await(t, "the end of every process", func() bool { return processesIn(t, dir) == nil })
}

func TestDataSurvivesARestart(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	begun := time.Now()
	s := startWith(t, Config{Dir: dir})
	t.Logf("first start with fsync: %v", time.Since(begun))
	execute(t, s, `CREATE TABLE kept AS SELECT 'a word' AS word`)

	begun = time.Now()
	stop(t, s)
	t.Logf("stop: %v", time.Since(begun))

	begun = time.Now()
	s = startWith(t, Config{Dir: dir})
	t.Logf("start on existing data: %v", time.Since(begun))
	if got := ask(t, s, `SELECT word FROM kept`); got != "a word" {
		t.Errorf("after a restart the row holds %q, want %q", got, "a word")
	}
}

func TestCommitsAreDurableUnlessNoSync(t *testing.T) {
	t.Parallel()
	for _, noSync := range []bool{false, true} {
		t.Run(fmt.Sprintf("NoSync=%v", noSync), func(t *testing.T) {
			t.Parallel()
			s := startWith(t, Config{Dir: madeDir(t), NoSync: noSync})
			want := "on"
			if noSync {
				want = "off"
			}
			for _, setting := range []string{"fsync", "synchronous_commit", "full_page_writes"} {
				if got := ask(t, s, "SHOW "+setting); got != want {
					t.Errorf("%s is %s, want %s", setting, got, want)
				}
			}
		})
	}
}

func TestClusterIsUTF8InLocaleC(t *testing.T) {
	t.Parallel()
	s := start(t, newDir(t))
	got := ask(t, s, `SELECT concat_ws(' ', pg_encoding_to_char(encoding), datcollate, datctype, current_setting('timezone'), current_user)
		FROM pg_database WHERE datname = current_database()`)
	if want := "UTF8 C C UTC gatehouse"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestOnlyThePasswordOpens(t *testing.T) {
	t.Parallel()
	s := start(t, madeDir(t))
	for name, user := range map[string]*url.Userinfo{
		"wrong password": url.UserPassword(superuser, "guess"),
		"no password":    url.User(superuser),
	} {
		u, err := url.Parse(s.URL("postgres"))
		if err != nil {
			t.Fatal(err)
		}
		u.User = user
		_, err = pgx.Connect(t.Context(), u.String())
		if refusal, ok := errors.AsType[*pgconn.PgError](err); !ok || refusal.Code != "28P01" {
			t.Errorf("%s: got %v, want SQLSTATE 28P01", name, err)
		}
	}
	if got := ask(t, s, `SELECT string_agg(DISTINCT auth_method, ' ') FROM pg_hba_file_rules`); got != "scram-sha-256" {
		t.Errorf("ways to sign in: %q, want scram-sha-256 alone", got)
	}
	if got := ask(t, s, `SELECT split_part(rolpassword, '$', 1) FROM pg_authid WHERE rolname = current_user`); got != "SCRAM-SHA-256" {
		t.Errorf("the password is kept as %q, want SCRAM-SHA-256", got)
	}
}

func TestListensOnAPrivateSocketAlone(t *testing.T) {
	t.Parallel()
	s := start(t, madeDir(t))
	if got := ask(t, s, `SHOW listen_addresses`); got != "" {
		t.Errorf("listens on %q, want nothing", got)
	}
	for path, want := range map[string]fs.FileMode{
		s.sockets:                            fs.ModeDir | 0o700,
		filepath.Join(s.dir, "data"):         fs.ModeDir | 0o700,
		filepath.Join(s.dir, "password"):     0o600,
		filepath.Join(s.dir, "lock"):         0o600,
		filepath.Join(s.dir, "postgres.log"): 0o600,
	} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != want {
			t.Errorf("%s has mode %v, want %v", path, info.Mode(), want)
		}
	}
}

func TestEachClusterHasItsOwnPassword(t *testing.T) {
	t.Parallel()
	a, b := start(t, newDir(t)), start(t, madeDir(t))
	if a.password == b.password || len(a.password) < 26 {
		t.Errorf("passwords %q and %q, want two long ones", a.password, b.password)
	}
}

func TestPostgresSeesNothingOfOurEnvironment(t *testing.T) {
	t.Setenv("GATEHOUSE_SECRET_KEY", "don't tell")
	t.Setenv("PGPORT", "1")
	t.Setenv("PGDATA", "/nowhere")
	s := start(t, madeDir(t))
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", s.process.cmd.Process.Pid))
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("needs /proc")
	}
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(environ), "GATEHOUSE") || strings.Contains(string(environ), "PG") {
		t.Errorf("Postgres' environment is %q", environ)
	}
}

func TestSecondStartIsRefusedWithTheHoldersID(t *testing.T) {
	t.Parallel()
	dir := madeDir(t)
	first := start(t, dir)
	_, err := Start(t.Context(), Config{Dir: dir, NoSync: true})
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), fmt.Sprintf("process ID %d ", os.Getpid())) {
		t.Errorf("second Start = %v, want ErrInUse naming process %d", err, os.Getpid())
	}
	ask(t, first, `SELECT 'still there'`)
	stop(t, first)
	start(t, dir)
}

func TestRunningFindsThePostgresOfADataFolder(t *testing.T) {
	t.Parallel()
	dir := madeDir(t)
	if address, ok := Running(dir); ok {
		t.Errorf("before the start: found %v", address)
	}
	s := start(t, dir)
	address, ok := Running(dir)
	if got, want := address.URL("postgres"), s.URL("postgres"); !ok || got != want {
		t.Errorf("found %s, %v; want %s", got, ok, want)
	}
	stop(t, s)
	if address, ok := Running(dir); ok {
		t.Errorf("after the stop: found %v", address)
	}
}

func TestStopDoesNotWaitForClients(t *testing.T) {
	t.Parallel()
	s := start(t, madeDir(t))
	conn := connect(t, s)
	if _, err := conn.Exec(t.Context(), `BEGIN; CREATE TABLE lost (); SELECT 1`); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	stop(t, s)
	if took := time.Since(begun); took > 3*time.Second {
		t.Errorf("Stop took %v beside an open transaction", took)
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Errorf("second Stop() = %v, want the first one's answer", err)
	}
}

func TestStopLeavesNoSocketAndNoLock(t *testing.T) {
	t.Parallel()
	s := start(t, madeDir(t))
	stop(t, s)
	select {
	case <-s.Done():
	default:
		t.Error("Done is open after Stop")
	}
	entries, err := os.ReadDir(s.Dir())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	if got, want := strings.Join(names, " "), "data lock password postgres.log postgres.log.1"; got != want {
		t.Errorf("left in the folder: %s, want %s", got, want)
	}
	if _, err := os.Stat(pidFile(filepath.Join(s.dir, "data"))); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("postmaster.pid is there after a clean stop: %v", err)
	}
}

func TestDoneReportsACrashAndTheNextStartRecovers(t *testing.T) {
	t.Parallel()
	dir := madeDir(t)
	s := startWith(t, Config{Dir: dir})
	execute(t, s, `CREATE TABLE kept AS SELECT 'a word' AS word`)
	if err := s.process.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-s.Done()
	if err := s.Stop(t.Context()); err == nil || !strings.Contains(err.Error(), "already ended: signal: killed") {
		t.Errorf("Stop after a crash = %v, want it told", err)
	}
	s = start(t, dir)
	if got := ask(t, s, `SELECT word FROM kept`); got != "a word" {
		t.Errorf("after a crash the row holds %q", got)
	}
}

func TestStartEndsWithItsContext(t *testing.T) {
	t.Parallel()
	for name, reached := range map[string]string{
		"in initdb":   unfinished + "*/data/global",
		"in postgres": "data/postmaster.pid",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := newDir(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			answer := make(chan error)
			go func() {
				s, err := Start(ctx, Config{Dir: dir, NoSync: true})
				if err == nil {
					err = s.Stop(context.Background())
				}
				answer <- err
			}()
			await(t, reached, func() bool {
				found, err := filepath.Glob(filepath.Join(dir, "postgres", reached))
				return err == nil && found != nil
			})
			cancel()
			if err := <-answer; err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("cancelled Start = %v, want context.Canceled", err)
			}
			if left, _ := filepath.Glob(filepath.Join(dir, "postgres", unfinished+"*")); left != nil {
				t.Errorf("left behind: %v", left)
			}
			awaitNoProcess(t, dir)
			start(t, dir)
		})
	}
}

func TestFailedStartQuotesTheLog(t *testing.T) {
	t.Parallel()
	dir := madeDir(t)
	s := start(t, dir)
	stop(t, s)
	conf, err := os.OpenFile(filepath.Join(s.Dir(), "data", "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conf.WriteString("no_such_setting = 1\n"); err != nil {
		t.Fatal(err)
	}
	if err := conf.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = Start(t.Context(), Config{Dir: dir, NoSync: true})
	if err == nil || !strings.Contains(err.Error(), "no_such_setting") || !strings.Contains(err.Error(), "exit status 1") {
		t.Errorf("Start with a faulty postgresql.conf = %v, want the fault named", err)
	}
}

func TestLogIsRenewedAtEachStart(t *testing.T) {
	t.Parallel()
	dir := madeDir(t)
	for range 3 {
		stop(t, start(t, dir))
	}
	logs, err := filepath.Glob(filepath.Join(dir, "postgres", "postgres.log*"))
	if err != nil {
		t.Fatal(err)
	}
	if len(logs) != 2 {
		t.Errorf("logs after three starts: %v, want two", logs)
	}
	for _, log := range logs {
		text, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(text), "ready to accept connections"); n != 1 {
			t.Errorf("%s tells of %d starts, want 1", log, n)
		}
	}
}

func TestAWrongPasswordFileIsReported(t *testing.T) {
	t.Parallel()
	dir := madeDir(t)
	s := start(t, dir)
	stop(t, s)
	if err := os.WriteFile(filepath.Join(s.Dir(), "password"), []byte("other\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Start(t.Context(), Config{Dir: dir, NoSync: true})
	if err == nil || !strings.Contains(err.Error(), "password in "+s.Dir()+" is not the password of the cluster") {
		t.Errorf("Start with another password = %v", err)
	}
	awaitNoProcess(t, dir)
}

// The kernel takes the thread that forked for the parent.
func TestPostgresOutlivesTheThreadThatCalledStart(t *testing.T) {
	t.Parallel()
	dir := madeDir(t)
	started := make(chan error)
	var s *Server
	go func() {
		runtime.LockOSThread() // without an unlock the thread ends with this function
		var err error
		s, err = Start(context.Background(), Config{Dir: dir, NoSync: true})
		started <- err
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Stop(context.Background()) })
	for range 20 {
		ask(t, s, `SELECT 'still there'`)
	}
	stop(t, s)
}

func awaitLog(t *testing.T, s *Server, line string) {
	t.Helper()
	await(t, line, func() bool {
		text, err := os.ReadFile(filepath.Join(s.dir, "postgres.log"))
		return err == nil && strings.Contains(string(text), line)
	})
}

func TestStopKillsPostgresAfterTheTimeout(t *testing.T) {
	t.Parallel()
	dir := madeDir(t)
	s := startWith(t, Config{Dir: dir})
	execute(t, s, `CREATE TABLE kept AS SELECT 'a word' AS word`)
	// A backend that doesn't react holds up a clean shutdown.
	backend := int(connect(t, s).PgConn().PID())
	if err := syscall.Kill(backend, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	answer := make(chan error)
	go func() { answer <- s.Stop(ctx) }()
	awaitLog(t, s, "fast shutdown request")
	cancel()
	awaitLog(t, s, "immediate shutdown request")
	if err := syscall.Kill(backend, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if err := <-answer; err == nil || !strings.Contains(err.Error(), "did not shut down in time") {
		t.Errorf("Stop = %v, want it told that the end was hard", err)
	}
	awaitNoProcess(t, dir)
	s = start(t, dir)
	if got := ask(t, s, `SELECT word FROM kept`); got != "a word" {
		t.Errorf("after a hard stop the row holds %q", got)
	}
}
