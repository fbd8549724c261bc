package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"github.com/jackc/pgx/v5/pgxpool"

	"gatehouse/app"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/database"
	"gatehouse/internal/fault"
	"gatehouse/internal/pgtest"
)

// The tests here start the program itself, as processes: the test binary runs
// as gatehouse when runAsGatehouse names schema.sql in its environment, and ends itself
// at the step that crashAt names.
const (
	runAsGatehouse = "GATEHOUSE_TEST_RUN"
	crashAt        = "GATEHOUSE_TEST_CRASH"
)

// schemaSQL is schema.sql.
var schemaSQL string

// The roles, by the commands that run them.
const (
	roleAuth  = "auth"
	roleUsers = "users"
	roleBff   = "bff"
)

// exitMistake is the exit status of a mistake in how a command was called.
const exitMistake = 2

// schemaPath returns where schema.sql is. It makes the root of the repository the
// working folder, as it is for those who paste the documents' commands.
func schemaPath() string {
	if err := os.Chdir(".."); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	root, err := os.Getwd()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return filepath.Join(root, "schema.sql")
}

// asGatehouse is the environment in which the test binary is the program.
func asGatehouse() string {
	root, _ := os.Getwd()
	return runAsGatehouse + "=" + filepath.Join(root, "schema.sql")
}

func TestMain(m *testing.M) {
	path := os.Getenv(runAsGatehouse)
	if path == "" {
		path = schemaPath()
	}
	text, err := os.ReadFile(path)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	schemaSQL = string(text)
	if os.Getenv(runAsGatehouse) == "" {
		pgtest.Main(m)
	}
	if name := os.Getenv(crashAt); name != "" {
		app.CrashAt(func(at string) {
			if at == name {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {} // until it has struck
			}
		})
	}
	app.Main(schemaSQL)
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

// eventually tries until it works or the time is over.
func eventually(t testing.TB, within time.Duration, what string, try func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s: %v", what, within, err)
		}
		<-ticker.C
	}
}

// system is the whole of Gatehouse as processes, in one of its shapes.
type system struct {
	url       string
	processes map[string]*process
	roles     map[string]role
	owner     *pgxpool.Pool
}

// role is how one process is started.
type role struct {
	env    []string
	listen string
}

// Shapes of the system. Tests that must hold in each run over all of them.
var shapes = []string{"one process", "three processes"}

const (
	adminEmail    = "admin@localhost"
	adminPassword = "the administrator's own"
	internalKey   = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	secretKey     = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

// newSystem starts the system on a database of its own and waits until it is
// ready.
func newSystem(t testing.TB, shape string, change ...func(*pgtest.Database)) *system {
	t.Helper()
	return newSystemOn(t, shape, pgtest.New(t), change...)
}

func newSystemOn(t testing.TB, shape string, database pgtest.Database, change ...func(*pgtest.Database)) *system {
	t.Helper()
	owner := openPool(t, database.Owner)
	for _, c := range change {
		c(&database)
	}
	bffAt, authAt, usersAt := freeAddress(t), freeAddress(t), freeAddress(t)
	s := &system{url: "http://" + bffAt, processes: map[string]*process{}, owner: owner}
	common := []string{"GATEHOUSE_INTERNAL_KEY=" + internalKey, "GATEHOUSE_PUBLIC_URL=" + s.url}
	private := []string{
		"GATEHOUSE_SECRET_KEY=" + secretKey, "GATEHOUSE_REGISTRATION=open",
		"GATEHOUSE_ADMIN_EMAIL=" + adminEmail, "GATEHOUSE_ADMIN_PASSWORD=" + adminPassword,
		"AUTH_DATABASE_URL=" + database.Auth,
	}
	peers := []string{"AUTH_URL=http://" + authAt, "USERS_URL=http://" + usersAt}
	s.roles = map[string]role{
		roleUsers: {listen: usersAt, env: append([]string{"USERS_DATABASE_URL=" + database.Users}, common...)},
		roleAuth:  {listen: authAt, env: slices.Concat(common, private, peers[1:])},
		roleBff:   {listen: bffAt, env: slices.Concat(common, peers)},
		"up": {listen: bffAt, env: slices.Concat(common, private,
			[]string{"DATABASE_URL=" + database.Owner, "USERS_DATABASE_URL=" + database.Users, "GATEHOUSE_DATA_DIR=" + t.TempDir()})},
	}
	names := []string{roleUsers, roleAuth, roleBff}
	if shape == "one process" {
		names = []string{"up"}
	}
	for _, name := range names {
		s.start(t, name)
	}
	return s
}

// start runs one process and waits until it is ready.
func (s *system) start(t testing.TB, name string, env ...string) *process {
	t.Helper()
	role := s.roles[name]
	p := startProcess(t, slices.Concat(role.env, []string{"GATEHOUSE_LISTEN=" + role.listen}, env), name)
	s.processes[name] = p
	eventually(t, 30*time.Second, "start "+name, func() error {
		if p.hasEnded() {
			t.Fatalf("%s ended: %s%s", name, p.stdout.String(), p.stderr.String())
		}
		response, err := http.Get("http://" + role.listen + "/readyz")
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("readyz: %s", response.Status)
		}
		return nil
	})
	if name == roleUsers {
		return p
	}
	// Whoever finds auth, serve or up ready can sign in as the administrator.
	var exists bool
	err := s.owner.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM auth.accounts WHERE 'admin' = ANY (roles))").Scan(&exists)
	if err != nil || !exists {
		t.Fatalf("%s is ready and there is no administrator (%v)", name, err)
	}
	return p
}

// lastPort is the port that freeAddress gave last. Each process begins elsewhere.
var lastPort = func() *atomic.Uint32 {
	var port atomic.Uint32
	port.Store(uint32(os.Getpid()) * 251)
	return &port
}()

// freeAddress returns an address at which nobody listens, and which it doesn't
// give again. The kernel gives none of these ports to anybody who asks for any:
// such a one could be taken before it is used.
func freeAddress(t testing.TB) string {
	t.Helper()
	const first, ports = 10_000, 20_000
	for range ports {
		address := fmt.Sprintf("127.0.0.1:%d", first+lastPort.Add(1)%ports)
		if listener, err := net.Listen("tcp", address); err == nil {
			_ = listener.Close()
			return address
		}
	}
	t.Fatal("no port is free")
	return ""
}

// openDB opens a service's pool as the service does.
func openDB(t testing.TB, url, service string) *pgxpool.Pool {
	t.Helper()
	pool, err := database.Open(t.Context(), url, service)
	if err != nil {
		t.Fatalf("open the pool of %s: %v", service, err)
	}
	return pool
}

func openPool(t testing.TB, url string) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatalf("open a pool: %v", err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// client speaks to the gateway over one protocol, perhaps with a token.
type client struct {
	auth    bffv1.AuthServiceClient
	account bffv1.AccountServiceClient
	users   bffv1.UserServiceClient
}

// h2c is an HTTP client that speaks HTTP/2 without TLS.
var h2c = func() *http.Client {
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	return &http.Client{Transport: transport}
}()

func (s *system) client(token string, options ...connecthttp.Option) client {
	return s.clientOver(h2c, token, options...)
}

func (s *system) clientOver(over *http.Client, token string, options ...connecthttp.Option) client {
	c := connect.NewClient(connecthttp.NewTransport(over, s.url, options...), func(next connect.ClientFunc) connect.ClientFunc {
		return func(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
			if token != "" {
				info, _ := connect.CallInfoForClientContext(ctx)
				info.RequestHeader().Set("Authorization", "Bearer "+token)
			}
			return next(ctx, spec)
		}
	})
	return client{
		auth: bffv1.NewAuthServiceClient(c), account: bffv1.NewAccountServiceClient(c), users: bffv1.NewUserServiceClient(c),
	}
}

// signUp registers somebody and returns them, signed in.
func (s *system) signUp(t testing.TB, email string) *bffv1.SignedIn {
	t.Helper()
	response, err := s.client("").auth.Register(t.Context(), &bffv1.RegisterRequest{
		Email: email, Password: "correct horse battery", FirstName: "Ada", LastName: "Lovelace",
	})
	if err != nil {
		t.Fatalf("Register %s: %v", email, err)
	}
	return response.GetSignedIn()
}

// admin returns a client that is signed in as the administrator.
func (s *system) admin(t testing.TB) client {
	t.Helper()
	response, err := s.client("").auth.Login(t.Context(), &bffv1.LoginRequest{Email: adminEmail, Password: adminPassword})
	if err != nil {
		t.Fatalf("Login as the administrator: %v", err)
	}
	return s.client(response.GetSignedIn().GetTokens().GetAccessToken())
}

// post sends JSON as plain curl does and returns the status, the headers and
// the body.
func (s *system) post(t testing.TB, procedure, token, body string) (int, http.Header, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+procedure, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	return do(t, request)
}

func do(t testing.TB, request *http.Request) (int, http.Header, string) {
	t.Helper()
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatalf("%s %s: %v", request.Method, request.URL, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", request.Method, request.URL, err)
	}
	return response.StatusCode, response.Header, string(body)
}

func wantReason(t testing.TB, err error, code connect.Code, reason string) {
	t.Helper()
	if connect.CodeOf(err) != code || fault.Reason(err) != reason {
		t.Errorf("got %v (reason %q), want %s %s", err, fault.Reason(err), code, reason)
	}
}
