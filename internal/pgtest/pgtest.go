// Package pgtest gives each test a Postgres database of its own.
//
// A test binary starts one embedded Postgres when a test first asks for a
// database; TestMain stops it:
//
//	func TestMain(m *testing.M) { pgtest.Main(m) }
//
// With GATEHOUSE_TEST_DATABASE_URL set, that server is used instead, by a user
// who should be a superuser. Whatever a test makes there is dropped.
package pgtest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"gatehouse/internal/postgres"
	"gatehouse/internal/schema"
	"gatehouse/internal/testneed"
)

// Database is a database with the tables of all services, by the URLs of those who
// may use it.
type Database struct {
	Owner string // who applied the schema
	Auth  string // the login role of auth
	Users string // the login role of users

	urls map[string]string // of each service's login role
}

// URL returns the URL of a service's login role.
func (d Database) URL(service string) string { return d.urls[service] }

// Services returns the services that have tables.
func (d Database) Services() []string { return slices.Sorted(maps.Keys(d.urls)) }

// Setting returns the setting by which a service gets the URL of its login role, as
// NAME=VALUE.
func (d Database) Setting(service string) string {
	return strings.ToUpper(service) + "_DATABASE_URL=" + d.urls[service]
}

// Settings returns the settings of all services.
func (d Database) Settings() []string {
	var settings []string
	for _, service := range d.Services() {
		settings = append(settings, d.Setting(service))
	}
	return settings
}

// SetURL replaces the URL of a service's login role.
func (d *Database) SetURL(service, url string) {
	d.urls = maps.Clone(d.urls)
	if d.urls == nil {
		d.urls = map[string]string{}
	}
	d.urls[service] = url
	d.Auth, d.Users = d.urls["auth"], d.urls["users"]
}

// Main runs the tests and exits. It belongs into TestMain.
func Main(m *testing.M) { os.Exit(Run(m)) }

// Run runs the tests, stops what they started, and returns the exit status.
func Run(m *testing.M) int {
	status := m.Run()
	if err := cluster.stop(); err != nil {
		log.Printf("pgtest: %v", err)
		status = max(status, 1)
	}
	return status
}

// Empty makes an empty database for the test and returns its URL. Its user may
// create roles and databases.
func Empty(t testing.TB) string {
	t.Helper()
	if err := cluster.started(); err != nil {
		t.Fatal(err)
	}
	return cluster.urlOf(cluster.database(t, "template0"))
}

// EmptyAs is Empty with options of CREATE DATABASE, such as an encoding.
func EmptyAs(t testing.TB, options string) string {
	t.Helper()
	if err := cluster.started(); err != nil {
		t.Fatal(err)
	}
	return cluster.urlOf(cluster.database(t, "template0 "+options))
}

// New makes a database with schema.sql applied for the test.
func New(t testing.TB) Database {
	t.Helper()
	template, err := cluster.template()
	if err != nil {
		t.Fatal(err)
	}
	return applied(t, cluster.database(t, template))
}

// Tables makes a database for the test that has the tables of schema.sql and lacks the
// roles, and returns its URL.
func Tables(t testing.TB) string {
	t.Helper()
	template, err := cluster.template()
	if err != nil {
		t.Fatal(err)
	}
	return cluster.urlOf(cluster.database(t, template))
}

// NewAs is New with options of CREATE DATABASE, such as a locale.
func NewAs(t testing.TB, options string) Database {
	t.Helper()
	if _, err := cluster.template(); err != nil {
		t.Fatal(err)
	}
	return applied(t, cluster.database(t, "template0 "+options))
}

// applied makes the roles of a database, and its tables if it has none.
func applied(t testing.TB, name string) Database {
	t.Helper()
	return Apply(t, cluster.urlOf(name))
}

// Apply makes the tables and the roles of all services in the owner's database, where
// they are missing. The password of a role is the name of its service.
func Apply(t testing.TB, owner string) Database {
	t.Helper()
	config, err := schemaConfig(owner)
	if err != nil {
		t.Fatal(err)
	}
	services, err := config.Services()
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := pgx.ParseConfig(owner)
	if err != nil {
		t.Fatal(err)
	}
	config.Roles = map[string]schema.Role{}
	for _, service := range services {
		config.Roles[service] = schema.Role{Password: service}
	}
	if _, err := schema.Apply(t.Context(), config); err != nil {
		t.Fatalf("apply the schema: %v", err)
	}
	db := Database{Owner: owner}
	for _, service := range services {
		url, err := schema.ServiceURL(owner, schema.RoleName(parsed.Database, service), service)
		if err != nil {
			t.Fatal(err)
		}
		db.SetURL(service, url)
	}
	return db
}

// SchemaConfig is the configuration that applies the tables of all services to a
// database.
func SchemaConfig(t testing.TB, databaseURL string) schema.Config {
	t.Helper()
	config, err := schemaConfig(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	return config
}

func schemaConfig(databaseURL string) (schema.Config, error) {
	root, err := moduleRoot()
	if err != nil {
		return schema.Config{}, err
	}
	config := schema.Config{DatabaseURL: databaseURL, Own: map[string]string{}}
	text, err := os.ReadFile(filepath.Join(root, "schema.sql"))
	if err != nil {
		return schema.Config{}, err
	}
	config.SQL = string(text)
	own, err := filepath.Glob(filepath.Join(root, "*", "schema.sql"))
	if err != nil {
		return schema.Config{}, err
	}
	for _, path := range own {
		text, err := os.ReadFile(path)
		if err != nil {
			return schema.Config{}, err
		}
		config.Own[filepath.Base(filepath.Dir(path))] = string(text)
	}
	return config, nil
}

// SchemaSQL is the text of the module's schema.sql.
func SchemaSQL(t testing.TB) string {
	t.Helper()
	return SchemaConfig(t, "").SQL
}

// Connect opens a connection that ends with the test.
func Connect(t testing.TB, databaseURL string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), databaseURL)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// Pool opens a pool that is closed at the end of the test.
func Pool(t testing.TB, databaseURL string) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), databaseURL)
	if err != nil {
		t.Fatalf("open a pool: %v", err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// One server for each test binary, whose tests share nothing but this.
var cluster server

type server struct {
	start sync.Once
	err   error
	url   *url.URL      // of a database to sign in to
	admin *pgxpool.Pool // there
	dir   string
	own   *postgres.Server

	makeTemplate sync.Once
	templateErr  error
	templateName string
}

// Postgres starts in a second, and on a busy machine in ten.
const timeout = time.Minute

// started starts the server when it is first needed.
func (s *server) started() error {
	s.start.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		if s.err = s.run(ctx); s.err != nil {
			s.err = fmt.Errorf("start a Postgres for tests: %w", s.err)
		}
	})
	return s.err
}

func (s *server) run(ctx context.Context) (err error) {
	given := os.Getenv("GATEHOUSE_TEST_DATABASE_URL")
	if given == "" {
		if s.dir, err = makeDir(); err != nil {
			return err
		}
		if s.own, err = postgres.Start(ctx, postgres.Config{Dir: s.dir, NoSync: true}); err != nil {
			return err
		}
		given = s.own.URL("postgres")
	}
	if s.url, err = url.Parse(given); err != nil || s.url.Path == "" {
		return errors.New("GATEHOUSE_TEST_DATABASE_URL must look like postgres://user:password@host:5432/database")
	}
	if s.admin, err = pgxpool.New(ctx, given); err != nil {
		return err
	}
	return s.admin.Ping(ctx)
}

const dirPrefix = "gatehouse-pgtest-"

// makeDir makes a folder for the cluster.
func makeDir() (string, error) {
	parent := testneed.MemoryDir()
	removeLeftovers(parent)
	dir, err := os.MkdirTemp(parent, fmt.Sprintf("%s%d-", dirPrefix, os.Getpid()))
	if err != nil {
		return "", err
	}
	// Root's Postgres runs as another user, who has to pass through.
	return dir, os.Chmod(dir, 0o711)
}

// removeLeftovers removes the folders of test binaries that were killed.
func removeLeftovers(parent string) {
	dirs, _ := filepath.Glob(filepath.Join(parent, dirPrefix+"*-*"))
	for _, dir := range dirs {
		var pid int
		if _, err := fmt.Sscanf(filepath.Base(dir), dirPrefix+"%d-", &pid); err != nil {
			continue
		}
		if err := syscall.Kill(pid, 0); errors.Is(err, syscall.ESRCH) {
			os.RemoveAll(dir)
		}
	}
}

func (s *server) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	var errs []error
	if s.admin != nil {
		if s.templateName != "" {
			errs = append(errs, s.drop(ctx, s.templateName))
		}
		s.admin.Close()
	}
	if s.own != nil {
		errs = append(errs, s.own.Stop(ctx))
	}
	if s.dir != "" {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	return errors.Join(errs...)
}

// template is the name of a database with schema.sql applied, less the roles,
// which belong to the whole server and would be the same for all its copies.
func (s *server) template() (string, error) {
	if err := s.started(); err != nil {
		return "", err
	}
	s.makeTemplate.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		if s.templateErr = s.fillTemplate(ctx); s.templateErr != nil {
			s.templateErr = fmt.Errorf("make a template database: %w", s.templateErr)
		}
	})
	return s.templateName, s.templateErr
}

func (s *server) fillTemplate(ctx context.Context) (err error) {
	name := newName()
	config, err := schemaConfig(s.urlOf(name))
	if err != nil {
		return err
	}
	if err := s.create(ctx, name, "template0"); err != nil {
		return err
	}
	s.templateName = name
	config.TablesOnly = true
	_, err = schema.Apply(ctx, config)
	return err
}

// database makes a database that is dropped, with its roles, after the test. It
// returns the name.
func (s *server) database(t testing.TB, template string) string {
	t.Helper()
	name := newName()
	if err := s.create(t.Context(), name, template); err != nil {
		t.Fatalf("make a database: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		if err := s.drop(ctx, name); err != nil {
			t.Errorf("drop the test's database: %v", err)
		}
	})
	return name
}

func (s *server) create(ctx context.Context, name, template string) error {
	_, err := s.admin.Exec(ctx, "CREATE DATABASE "+name+" TEMPLATE "+template)
	return err
}

func (s *server) drop(ctx context.Context, name string) error {
	if _, err := s.admin.Exec(ctx, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)"); err != nil {
		return err
	}
	config, err := schemaConfig("")
	if err != nil {
		return err
	}
	services, err := config.Services()
	if err != nil {
		return err
	}
	for _, service := range append(services, schema.Reader) {
		if _, err := s.admin.Exec(ctx, "DROP ROLE IF EXISTS "+schema.RoleName(name, service)); err != nil {
			return err
		}
	}
	return nil
}

// newName is one that nobody else has, on a server that several test binaries
// may share.
func newName() string {
	var unique [6]byte
	rand.Read(unique[:])
	return "gatehouse_test_" + hex.EncodeToString(unique[:])
}

func (s *server) urlOf(name string) string {
	u := *s.url
	u.Path = "/" + name
	return u.String()
}

// moduleRoot finds the folder with go.mod above the package under test.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no go.mod above the working directory")
		}
		dir = parent
	}
}
