package e2e

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
	roleAuth  = "auth"
	roleUsers = "users"
	roleBff   = "bff"
	RoleServe = "serve"
	RoleUp    = "up"
)

// exitMistake is the exit status of a command that was called with wrong settings.
const exitMistake = 2

// The accounts and secrets of a system that a test starts.
const (
	adminEmail    = "admin@localhost"
	adminPassword = "the administrator's own"
	internalKey   = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	secretKey     = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

// system is a running Gatehouse: its processes by role, how each is started, and a
// pool of the owner of its database. url is that of its gateway.
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

// Shape is how a system is spread over processes.
type Shape string

// The shapes. OneProcess is gatehouse up.
const (
	OneProcess     Shape = "one process"
	ThreeProcesses Shape = "three processes"
)

// shapes lists the shapes, for tests that must pass in each.
var shapes = []Shape{OneProcess, ThreeProcesses}

// Option changes how a system is started.
type Option func(*options)

type options struct {
	database *pgtest.Database
	settings []string
	urls     func(*pgtest.Database)
}

// OnDatabase uses a database instead of a new one.
func OnDatabase(database pgtest.Database) Option {
	return func(o *options) { o.database = &database }
}

// WithDatabaseURLs edits the URLs that the services connect to. The owner's pool of the
// system keeps the original one.
func WithDatabaseURLs(edit func(*pgtest.Database)) Option { return func(o *options) { o.urls = edit } }

// WithSettings adds settings to every role.
func WithSettings(settings ...string) Option {
	return func(o *options) { o.settings = append(o.settings, settings...) }
}

// Start starts a system in a shape, on a database of its own unless an option says
// otherwise, and waits until it is ready.
func Start(t testing.TB, shape Shape, opts ...Option) *system {
	t.Helper()
	s := newSystems(t, 1, opts)[0]
	if shape == OneProcess {
		s.start(t, RoleUp)
		return s
	}
	for _, name := range []string{roleUsers, roleAuth, roleBff} {
		s.start(t, name)
	}
	return s
}

// StartPair starts two copies of each service on one database. Every copy balances its
// calls over both copies of the services that it calls.
func StartPair(t testing.TB, opts ...Option) [2]*system {
	t.Helper()
	pair := newSystems(t, 2, opts)
	for _, name := range []string{roleUsers, roleAuth, roleBff} {
		for _, one := range pair {
			one.start(t, name)
		}
	}
	return [2]*system(pair)
}

// StartServe starts gatehouse serve with the settings on the database of an owner,
// whose schema has been applied.
func StartServe(t testing.TB, owner string, settings []string) *system {
	t.Helper()
	s := NewServe(t, owner, settings)
	s.start(t, RoleServe)
	return s
}

// NewServe is StartServe without the start.
func NewServe(t testing.TB, owner string, settings []string) *system {
	t.Helper()
	listen := freeAddress(t)
	return &system{
		url: "http://" + listen, owner: pgtest.Pool(t, owner), processes: map[string]*process{},
		roles: map[string]role{RoleServe: {env: settings, listen: listen}},
	}
}

// newSystems returns copies of a system on one database, not started.
func newSystems(t testing.TB, copies int, opts []Option) []*system {
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
	for _, name := range []string{roleUsers, roleAuth, roleBff} {
		for range copies {
			listen[name] = append(listen[name], freeAddress(t))
		}
	}
	urls := func(name string) string { return "http://" + strings.Join(listen[name], ",http://") }
	publicURL := "http://" + listen[roleBff][0]
	common := append([]string{"GATEHOUSE_INTERNAL_KEY=" + internalKey}, o.settings...)
	public := append(slices.Clone(common), "GATEHOUSE_PUBLIC_URL="+publicURL)
	private := []string{
		"GATEHOUSE_SECRET_KEY=" + secretKey, "GATEHOUSE_REGISTRATION=open",
		"GATEHOUSE_ADMIN_EMAIL=" + adminEmail, "GATEHOUSE_ADMIN_PASSWORD=" + adminPassword,
		"AUTH_DATABASE_URL=" + o.database.Auth,
	}
	usersDatabase := "USERS_DATABASE_URL=" + o.database.Users
	usersURL, authURL := "USERS_URL="+urls(roleUsers), "AUTH_URL="+urls(roleAuth)
	systems := make([]*system, copies)
	for i := range systems {
		systems[i] = &system{url: "http://" + listen[roleBff][i], processes: map[string]*process{}, owner: owner, roles: map[string]role{
			roleUsers: {listen: listen[roleUsers][i], env: append([]string{usersDatabase}, common...)},
			roleAuth:  {listen: listen[roleAuth][i], env: slices.Concat(public, private, []string{usersURL})},
			roleBff:   {listen: listen[roleBff][i], env: slices.Concat(public, []string{authURL, usersURL})},
			RoleUp: {listen: listen[roleBff][i], env: slices.Concat(public, private,
				[]string{"DATABASE_URL=" + o.database.Owner, usersDatabase, "GATEHOUSE_DATA_DIR=" + t.TempDir()})},
		}}
	}
	return systems
}

// start runs one process, with more settings, and waits until it is ready.
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
	// Once auth, serve or up is ready, the administrator can sign in.
	var exists bool
	err := s.owner.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM auth.accounts WHERE 'admin' = ANY (roles))").Scan(&exists)
	if err != nil || !exists {
		t.Fatalf("%s is ready and there is no administrator (%v)", name, err)
	}
	return p
}

// set stops a process and starts it with more settings.
func (s *system) set(t testing.TB, name string, env ...string) {
	t.Helper()
	s.processes[name].interrupt(t)
	s.start(t, name, env...)
}

// count returns the number that a query selects.
func (s *system) count(t testing.TB, sql string, args ...any) int {
	t.Helper()
	var n int
	if err := s.owner.QueryRow(t.Context(), sql, args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return n
}

// idOf returns the id of the account with an email.
func (s *system) idOf(t *testing.T, email string) string {
	t.Helper()
	var id string
	if err := s.owner.QueryRow(t.Context(), "SELECT id FROM auth.accounts WHERE email = $1", email).Scan(&id); err != nil {
		t.Fatalf("look up %s: %v", email, err)
	}
	return id
}

// mailbox is the folder into which gatehouse up writes mail.
func (s *system) mailbox() string {
	for _, setting := range s.roles[RoleUp].env {
		if dir, ok := strings.CutPrefix(setting, "GATEHOUSE_DATA_DIR="); ok {
			return filepath.Join(dir, "mailbox")
		}
	}
	return ""
}
