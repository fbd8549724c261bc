package harness

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"gatehouse/app"
	"gatehouse/internal/pgtest"
)

// Roles, by the commands that run them.
const (
	RoleAuth  = "auth"
	RoleUsers = "users"
	RoleBff   = "bff"
	RoleServe = "serve"
	RoleUp    = "up"
)

// ExitUsage is the exit status of a command that was called with wrong settings.
const ExitUsage = 2

// The accounts and secrets of a system that a test starts.
const (
	AdminEmail    = "admin@localhost"
	AdminPassword = "the administrator's own"
	InternalKey   = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	SecretKey     = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

// System is a running Gatehouse: its processes by role, how each is started, and a
// pool of the owner of its database. URL is that of its gateway.
type System struct {
	URL       string
	Processes map[string]*Process
	Roles     map[string]role
	Owner     *pgxpool.Pool
	// Program is what Start runs instead of the test binary, unless it is empty.
	Program string
}

// role is how one process is started.
type role struct {
	Env    []string
	Listen string
	ops    string
}

// Roles returns the names of the services, each the role of a process. The last one is
// the gateway.
func Roles() (names []string) {
	for _, service := range app.Services() {
		names = append(names, service.Name)
	}
	return names
}

// services returns the services in the order in which they start: each after those
// that it calls and does not repeat its calls to.
func services() []app.Definition {
	all := app.Services()
	var ordered []app.Definition
	started := map[string]bool{}
	for len(ordered) < len(all) {
		before := len(ordered)
		for _, service := range all {
			waits := slices.ContainsFunc(service.Calls, func(call app.Call) bool { return !call.Persistent && !started[call.Service] })
			if !started[service.Name] && !waits {
				started[service.Name] = true
				ordered = append(ordered, service)
			}
		}
		if len(ordered) == before {
			panic("services call each other in a circle")
		}
	}
	return ordered
}

// Shape is how a system is spread over processes.
type Shape string

// The shapes. OneProcess is gatehouse up; ThreeProcesses is a process for each service,
// of which there are three or more.
const (
	OneProcess     Shape = "one process"
	ThreeProcesses Shape = "a process for each service"
)

// Role returns which role runs a service in the shape.
func (s Shape) Role(service string) string {
	if s == OneProcess {
		return RoleUp
	}
	return service
}

// Shapes lists the shapes, for tests that must pass in each.
var Shapes = []Shape{OneProcess, ThreeProcesses}

// Option changes how a system is started.
type Option func(*options)

type options struct {
	database *pgtest.Database
	settings []string
	urls     func(*pgtest.Database)
	ops      bool
}

// OnDatabase uses a database instead of a new one.
func OnDatabase(database pgtest.Database) Option {
	return func(o *options) { o.database = &database }
}

// WithDatabaseURLs edits the URLs that the services connect to. The owner's pool of the
// system keeps the original one.
func WithDatabaseURLs(edit func(*pgtest.Database)) Option { return func(o *options) { o.urls = edit } }

// WithSettings adds settings to every role, which take precedence over the harness' own.
func WithSettings(settings ...string) Option {
	return func(o *options) { o.settings = append(o.settings, settings...) }
}

// WithOps gives every role a listener for operators; see [System.Ops].
func WithOps() Option { return func(o *options) { o.ops = true } }

// Start starts a system in a shape, on a database of its own unless an option says
// otherwise, and waits until it is ready.
func Start(t testing.TB, shape Shape, opts ...Option) *System {
	t.Helper()
	s := newSystems(t, 1, opts)[0]
	if shape == OneProcess {
		s.Start(t, RoleUp)
		return s
	}
	for _, service := range services() {
		s.Start(t, service.Name)
	}
	return s
}

// StartPair starts two copies of each service on one database. Every copy balances its
// calls over both copies of the services that it calls.
func StartPair(t testing.TB, opts ...Option) [2]*System {
	t.Helper()
	pair := NewPair(t, opts...)
	StartCopies(t, pair)
	return pair
}

// NewPair is StartPair without the start.
func NewPair(t testing.TB, opts ...Option) [2]*System {
	t.Helper()
	return [2]*System(newSystems(t, 2, opts))
}

// StartCopies starts each service of both copies.
func StartCopies(t testing.TB, pair [2]*System) {
	t.Helper()
	for _, service := range services() {
		for _, one := range pair {
			one.Start(t, service.Name)
		}
	}
}

// StartServe starts gatehouse serve with the settings on the database of an owner,
// whose schema has been applied.
func StartServe(t testing.TB, owner string, settings []string) *System {
	t.Helper()
	s := NewServe(t, owner, settings)
	s.Start(t, RoleServe)
	return s
}

// NewServe is StartServe without the start.
func NewServe(t testing.TB, owner string, settings []string) *System {
	t.Helper()
	listen := FreeAddress(t)
	return &System{
		URL: "http://" + listen, Owner: pgtest.Pool(t, owner), Processes: map[string]*Process{},
		Roles: map[string]role{RoleServe: {Env: settings, Listen: listen}},
	}
}

// newSystems returns copies of a system on one database, not started.
func newSystems(t testing.TB, copies int, opts []Option) []*System {
	t.Helper()
	var o options
	for _, option := range opts {
		option(&o)
	}
	if o.database == nil {
		database := pgtest.New(t)
		o.database = &database
	}
	owner := pgtest.Pool(t, o.database.Owner)
	if o.urls != nil {
		o.urls(o.database)
	}
	listen := map[string][]string{}
	for _, service := range services() {
		for range copies {
			listen[service.Name] = append(listen[service.Name], FreeAddress(t))
		}
	}
	urls := func(name string) string { return "http://" + strings.Join(listen[name], ",http://") }
	publicURL := "http://" + listen[RoleBff][0]
	common := []string{"GATEHOUSE_INTERNAL_KEY=" + InternalKey}
	public := append(slices.Clone(common), "GATEHOUSE_PUBLIC_URL="+publicURL)
	private := []string{
		"GATEHOUSE_SECRET_KEY=" + SecretKey, "GATEHOUSE_REGISTRATION=open",
		"GATEHOUSE_ADMIN_EMAIL=" + AdminEmail, "GATEHOUSE_ADMIN_PASSWORD=" + AdminPassword,
	}
	// Besides those, a role reads its own database and where the services are that it calls.
	settings := map[string][]string{RoleAuth: slices.Concat(public, private), RoleBff: public}
	own := func(service app.Definition) []string {
		env, known := settings[service.Name]
		if !known {
			env = common
		}
		if service.HasTables() {
			env = append(slices.Clone(env), o.database.Setting(service.Name))
		}
		for _, call := range service.AllCalls() {
			env = append(slices.Clone(env), strings.ToUpper(call.Service)+"_URL="+urls(call.Service))
		}
		return env
	}
	systems := make([]*System, copies)
	for i := range systems {
		roles := map[string]role{RoleUp: {Listen: listen[RoleBff][i], Env: slices.Concat(public, private, o.database.Settings(),
			[]string{"DATABASE_URL=" + o.database.Owner, "GATEHOUSE_DATA_DIR=" + t.TempDir()})}}
		for _, service := range services() {
			roles[service.Name] = role{Listen: listen[service.Name][i], Env: own(service)}
		}
		systems[i] = &System{URL: "http://" + listen[RoleBff][i], Processes: map[string]*Process{}, Owner: owner, Roles: roles}
		for name, role := range systems[i].Roles {
			role.Env = append(role.Env, o.settings...)
			if o.ops {
				role.ops = FreeAddress(t)
				role.Env = append(role.Env, "GATEHOUSE_OPS_LISTEN="+role.ops)
			}
			systems[i].Roles[name] = role
		}
	}
	return systems
}

// Start runs one process, with more settings, and waits until it is ready.
func (s *System) Start(t testing.TB, name string, env ...string) *Process {
	t.Helper()
	role := s.Roles[name]
	settings := slices.Concat(role.Env, []string{"GATEHOUSE_LISTEN=" + role.Listen}, env)
	var p *Process
	if s.Program == "" {
		p = StartProcess(t, settings, name)
	} else {
		p = StartProgram(t, s.Program, append(settings, "PATH="+os.Getenv("PATH")), name)
	}
	s.Processes[name] = p
	Eventually(t, 30*time.Second, "start "+name, func() error {
		if p.HasEnded() {
			t.Fatalf("%s ended: %s%s", name, p.Stdout.String(), p.Stderr.String())
		}
		response, err := http.Get("http://" + role.Listen + "/readyz")
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("readyz: %s", response.Status)
		}
		return nil
	})
	if name != RoleAuth && name != RoleServe && name != RoleUp {
		return p
	}
	// Once one of these is ready, the administrator can sign in.
	var exists bool
	err := s.Owner.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM auth.accounts WHERE 'admin' = ANY (roles))").Scan(&exists)
	if err != nil || !exists {
		t.Fatalf("%s is ready and there is no administrator (%v)", name, err)
	}
	return p
}

// Ops returns the URLs of the operators' listeners of the processes, by role.
func (s *System) Ops() map[string]string {
	at := map[string]string{}
	for name := range s.Processes {
		at[name] = "http://" + s.Roles[name].ops
	}
	return at
}

// Copy starts another process of a role at an address of its own, with more settings,
// and waits until it is ready. The system that it returns has that process alone.
func (s *System) Copy(t testing.TB, name string, env ...string) *System {
	t.Helper()
	listen := FreeAddress(t)
	copied := &System{URL: "http://" + listen, Owner: s.Owner, Processes: map[string]*Process{}, Roles: map[string]role{
		name: {Listen: listen, Env: slices.Concat(s.Roles[name].Env, env)},
	}}
	copied.Start(t, name)
	return copied
}

// Restart stops a process and starts it with more settings.
func (s *System) Restart(t testing.TB, name string, env ...string) {
	t.Helper()
	s.Processes[name].Interrupt(t)
	s.Start(t, name, env...)
}

// Count returns the number that a query selects.
func (s *System) Count(t testing.TB, sql string, args ...any) int {
	t.Helper()
	var n int
	if err := s.Owner.QueryRow(t.Context(), sql, args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return n
}

// IdOf returns the id of the account with an email.
func (s *System) IdOf(t *testing.T, email string) string {
	t.Helper()
	var id string
	if err := s.Owner.QueryRow(t.Context(), "SELECT id FROM auth.accounts WHERE email = $1", email).Scan(&id); err != nil {
		t.Fatalf("look up %s: %v", email, err)
	}
	return id
}

// Mailbox is the folder into which gatehouse up writes mail.
func (s *System) Mailbox() string {
	for _, setting := range s.Roles[RoleUp].Env {
		if dir, ok := strings.CutPrefix(setting, "GATEHOUSE_DATA_DIR="); ok {
			return filepath.Join(dir, "mailbox")
		}
	}
	return ""
}
