package harness

import (
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

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
}

// role is how one process is started.
type role struct {
	Env    []string
	Listen string
	ops    string
}

// Shape is how a system is spread over processes.
type Shape string

// The shapes. OneProcess is gatehouse up.
const (
	OneProcess     Shape = "one process"
	ThreeProcesses Shape = "three processes"
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
	for _, name := range []string{RoleUsers, RoleAuth, RoleBff} {
		s.Start(t, name)
	}
	return s
}

// StartPair starts two copies of each service on one database. Every copy balances its
// calls over both copies of the services that it calls.
func StartPair(t testing.TB, opts ...Option) [2]*System {
	t.Helper()
	pair := newSystems(t, 2, opts)
	for _, name := range []string{RoleUsers, RoleAuth, RoleBff} {
		for _, one := range pair {
			one.Start(t, name)
		}
	}
	return [2]*System(pair)
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
	for _, name := range []string{RoleUsers, RoleAuth, RoleBff} {
		for range copies {
			listen[name] = append(listen[name], FreeAddress(t))
		}
	}
	urls := func(name string) string { return "http://" + strings.Join(listen[name], ",http://") }
	publicURL := "http://" + listen[RoleBff][0]
	common := []string{"GATEHOUSE_INTERNAL_KEY=" + InternalKey}
	public := append(slices.Clone(common), "GATEHOUSE_PUBLIC_URL="+publicURL)
	private := []string{
		"GATEHOUSE_SECRET_KEY=" + SecretKey, "GATEHOUSE_REGISTRATION=open",
		"GATEHOUSE_ADMIN_EMAIL=" + AdminEmail, "GATEHOUSE_ADMIN_PASSWORD=" + AdminPassword,
		"AUTH_DATABASE_URL=" + o.database.Auth,
	}
	usersDatabase := "USERS_DATABASE_URL=" + o.database.Users
	usersURL, authURL := "USERS_URL="+urls(RoleUsers), "AUTH_URL="+urls(RoleAuth)
	systems := make([]*System, copies)
	for i := range systems {
		systems[i] = &System{URL: "http://" + listen[RoleBff][i], Processes: map[string]*Process{}, Owner: owner, Roles: map[string]role{
			RoleUsers: {Listen: listen[RoleUsers][i], Env: append([]string{usersDatabase, authURL}, common...)},
			RoleAuth:  {Listen: listen[RoleAuth][i], Env: slices.Concat(public, private, []string{usersURL})},
			RoleBff:   {Listen: listen[RoleBff][i], Env: slices.Concat(public, []string{authURL, usersURL})},
			RoleUp: {Listen: listen[RoleBff][i], Env: slices.Concat(public, private,
				[]string{"DATABASE_URL=" + o.database.Owner, usersDatabase, "GATEHOUSE_DATA_DIR=" + t.TempDir()})},
		}}
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
	p := StartProcess(t, slices.Concat(role.Env, []string{"GATEHOUSE_LISTEN=" + role.Listen}, env), name)
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
	if name == RoleUsers {
		return p
	}
	// Once auth, serve or up is ready, the administrator can sign in.
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
