//go:build cluster

package cluster

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
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"gatehouse/e2e/harness"
	"gatehouse/internal/pgtest"
	"gatehouse/internal/testneed"
)

// ownerPassword is that of the owner of the database.
const ownerPassword = "owner"

// node is a machine of the database: a Postgres and the PgBouncer beside it.
type node struct {
	postgres, bouncer program
	dir               string
	address, pooled   string // of Postgres and of PgBouncer
	// limited says that the folder is a file system of its own, which can be filled.
	limited bool
}

// cluster is two of everything.
type cluster struct {
	primary, standby *node
	redis            program
	redisAddress     string
	fronts           [2]front
	roles            [2]*harness.System
	owner            string // the URL of the owner, at the primary of the moment
}

// front is a load balancer.
type front struct {
	program
	address string
}

// binaries is the folder of the programs of the newest Postgres.
func binaries(t *testing.T) string {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err == nil && len(found) > 0 {
		slices.Sort(found)
		return filepath.Dir(found[len(found)-1])
	}
	return filepath.Dir(testneed.Program(t, "initdb"))
}

// newNode makes the folder of a node: a file system with little space where this process
// may mount one.
func newNode(t *testing.T, name string, limit string) *node {
	t.Helper()
	dir, err := os.MkdirTemp(testneed.MemoryDir(), "gatehouse-cluster-")
	if err != nil {
		t.Fatal(err)
	}
	n := &node{dir: dir, address: harness.FreeAddress(t), pooled: harness.FreeAddress(t)}
	if limit != "" {
		err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=0755,size="+limit)
		n.limited = err == nil
	}
	t.Cleanup(func() {
		n.postgres.kill()
		n.bouncer.kill()
		if n.limited {
			_ = syscall.Unmount(dir, syscall.MNT_DETACH)
		}
		_ = os.RemoveAll(dir)
	})
	as := notRoot(t)
	if as != nil {
		if err := errors.Join(os.Chmod(dir, 0o755), os.Chown(dir, int(as.Uid), int(as.Gid))); err != nil {
			t.Fatal(err)
		}
	}
	_, port, _ := net.SplitHostPort(n.address)
	n.postgres = program{name: "Postgres " + name, path: filepath.Join(binaries(t), "postgres"), as: as, args: []string{
		"-D", n.data(), "-p", port, "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=" + dir,
		"-c", "shared_buffers=64MB", "-c", "min_wal_size=64MB", "-c", "max_wal_size=128MB", "-c", "wal_keep_size=64MB",
		// As in the how-to guide.
		"-c", "wal_receiver_timeout=5s", "-c", "wal_sender_timeout=5s", "-c", "wal_retrieve_retry_interval=500ms",
	}, ready: func() error { return expect(n.url("postgres"), "SELECT 1", 1) }}
	return n
}

func (n *node) data() string { return filepath.Join(n.dir, "data") }

// url is that of the owner.
func (n *node) url(database string) string {
	address := url.URL{Scheme: "postgres", User: url.UserPassword("postgres", ownerPassword), Host: n.address, Path: "/" + database, RawQuery: "sslmode=disable"}
	return address.String()
}

// makePrimary creates a cluster of databases and starts it.
func (n *node) makePrimary(t *testing.T) {
	t.Helper()
	secret := filepath.Join(n.dir, "password")
	if err := os.WriteFile(secret, []byte(ownerPassword), 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, n.postgres.as, nil, filepath.Join(binaries(t), "initdb"), "-D", n.data(), "-U", "postgres",
		"--auth=scram-sha-256", "--pwfile="+secret, "--encoding=UTF8", "--locale=C", "--no-sync", "--wal-segsize=4")
	n.postgres.start(t, n.address)
	execute(t, n.url("postgres"), "CREATE DATABASE gatehouse")
}

// makeStandby copies a primary, follows it, and makes it wait for the standby.
func (n *node) makeStandby(t *testing.T, primary *node) {
	t.Helper()
	host, port, _ := net.SplitHostPort(primary.address)
	run(t, n.postgres.as, []string{"PGPASSWORD=" + ownerPassword}, filepath.Join(binaries(t), "pg_basebackup"),
		"--dbname=host="+host+" port="+port+" user=postgres application_name=standby", "--pgdata="+n.data(),
		"--wal-method=stream", "--create-slot", "--slot=standby", "--checkpoint=fast", "--write-recovery-conf", "--no-sync")
	n.postgres.start(t, n.address)
	execute(t, primary.url("postgres"), "ALTER SYSTEM SET synchronous_standby_names = 'standby'", "SELECT pg_reload_conf()")
	harness.Eventually(t, 30*time.Second, "the standby is synchronous", func() error {
		return expect(primary.url("postgres"), "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'", 1)
	})
}

// pool starts the PgBouncer of the node with the file of the how-to guide.
func (n *node) pool(t *testing.T, database pgtest.Database) {
	t.Helper()
	users := ""
	for _, service := range database.Services() {
		config, err := pgx.ParseConfig(database.URL(service))
		if err != nil {
			t.Fatal(err)
		}
		users += fmt.Sprintf("%q %q\n", config.User, config.Password)
	}
	host, port, _ := net.SplitHostPort(n.pooled)
	_, behind, _ := net.SplitHostPort(n.address)
	file, list := filepath.Join(n.dir, "pgbouncer.ini"), filepath.Join(n.dir, "userlist.txt")
	text := replaced(t, "deploy/cluster/pgbouncer.ini", "host=127.0.0.1 port=5432", "host=127.0.0.1 port="+behind,
		"listen_addr = *", "listen_addr = "+host, "listen_port = 6432", "listen_port = "+port, "/etc/pgbouncer/userlist.txt", list)
	for path, text := range map[string]string{file: text, list: users} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	n.bouncer = program{name: "PgBouncer", path: testneed.Program(t, "pgbouncer", "/usr/sbin/pgbouncer"), as: n.postgres.as, args: []string{file}}
	n.bouncer.start(t, n.pooled)
}

// replaced returns the text of a file of the tree with other addresses, each of which it
// must contain.
func replaced(t *testing.T, path string, pairs ...string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(string(text), pairs[i]) {
			t.Fatalf("%s does not contain %q", path, pairs[i])
		}
	}
	return strings.NewReplacer(pairs...).Replace(string(text))
}

// start starts two of everything.
func start(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{primary: newNode(t, "primary", "512m"), standby: newNode(t, "standby", "")}
	c.primary.makePrimary(t)
	c.standby.makeStandby(t, c.primary)
	c.owner = c.primary.url("gatehouse")
	database := pgtest.Apply(t, c.owner)
	c.primary.pool(t, database)
	c.standby.pool(t, database)
	c.redisAddress = harness.FreeAddress(t)
	_, port, _ := net.SplitHostPort(c.redisAddress)
	c.redis = program{name: "Redis", path: testneed.Program(t, "redis-server", "valkey-server"),
		args: []string{"--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", t.TempDir()}}
	t.Cleanup(c.redis.kill)
	c.redis.start(t, c.redisAddress)
	c.roles = harness.NewPair(t, harness.OnDatabase(database), harness.WithDatabaseURLs(c.throughPools(t)), harness.WithOps(),
		harness.WithSettings("GATEHOUSE_DRAIN=3s", "GATEHOUSE_TRUSTED_PROXIES=127.0.0.1/32", "REDIS_URL=redis://"+c.redisAddress,
			"AUTH_READ_DATABASE_URL="+preferStandby(c.standby.address, c.primary.address),
			"USERS_READ_DATABASE_URL="+preferStandby(c.standby.pooled, c.primary.pooled)))
	harness.StartCopies(t, c.roles)
	for i := range c.fronts {
		c.fronts[i].run(t, c.roles)
	}
	return c
}

// preferStandby is the URL for reads: of auth at Postgres itself, of users through PgBouncer.
func preferStandby(standby, primary string) string {
	return "postgres://" + standby + "," + primary + "/gatehouse?target_session_attrs=prefer-standby&sslmode=disable"
}

// throughPools returns what makes the services' URLs name both PgBouncers and take the one
// whose Postgres accepts writes.
func (c *cluster) throughPools(t *testing.T) func(*pgtest.Database) {
	return func(database *pgtest.Database) {
		for _, service := range database.Services() {
			config, err := pgx.ParseConfig(database.URL(service))
			if err != nil {
				t.Fatal(err)
			}
			through := url.URL{Scheme: "postgres", User: url.UserPassword(config.User, config.Password), Host: c.primary.pooled + "," + c.standby.pooled,
				Path: "/" + config.Database, RawQuery: "target_session_attrs=read-write&sslmode=disable"}
			database.SetURL(service, through.String())
		}
	}
}

// run starts a load balancer before both gateways, with the files of the how-to guide.
func (f *front) run(t *testing.T, roles [2]*harness.System) {
	t.Helper()
	f.address = harness.FreeAddress(t)
	f.program = haproxy(t, roles, "bind "+f.address, "bind "+harness.FreeAddress(t))
	t.Cleanup(f.kill)
	f.start(t, f.address)
}

// haproxy returns a load balancer before both gateways, with the files of the how-to guide
// and other lines for its two listeners.
func haproxy(t *testing.T, roles [2]*harness.System, public, health string) program {
	t.Helper()
	dir := t.TempDir()
	message := filepath.Join(dir, "unavailable.http")
	const runAs = "    user haproxy\n    group haproxy\n"
	keep := runAs
	if _, err := user.Lookup("haproxy"); err != nil || os.Geteuid() != 0 {
		keep = "" // HAProxy refuses a user that does not exist, and only root may change its own
	}
	text := replaced(t, "deploy/cluster/haproxy.cfg", "bind :8001", public, "bind 127.0.0.1:8009", health, "/etc/haproxy/unavailable.http", message,
		"10.0.1.1:8001", roles[0].Roles[harness.RoleBff].Listen, "10.0.1.2:8001", roles[1].Roles[harness.RoleBff].Listen, runAs, keep)
	file := filepath.Join(dir, "haproxy.cfg")
	answer := replaced(t, "deploy/cluster/unavailable.http")
	if err := errors.Join(os.WriteFile(file, []byte(text), 0o600), os.WriteFile(message, []byte(answer), 0o600)); err != nil {
		t.Fatal(err)
	}
	path := testneed.Program(t, "haproxy", "/usr/sbin/haproxy")
	if text, err := exec.Command(path, "-c", "-f", file).CombinedOutput(); err != nil {
		t.Fatalf("check the file of HAProxy: %v: %s", err, text)
	}
	// With a master, as its unit of systemd runs it.
	return program{name: "HAProxy", path: path, args: []string{"-W", "-f", file}}
}

// execute runs statements as the owner.
func execute(t *testing.T, url string, statements ...string) {
	t.Helper()
	harness.Execute(t, url, statements...)
}

// expect returns an error unless a query selects a number.
func expect(url, sql string, want int) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	var got int
	if err := conn.QueryRow(ctx, sql).Scan(&got); err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("%s: %d, want %d", sql, got, want)
	}
	return nil
}
