// Package postgres runs an embedded Postgres: it finds or downloads the programs,
// creates a database cluster, runs it, and leaves no process behind.
//
// # Files
//
// Everything is in the folder "postgres" in Gatehouse's data folder:
//
//	lock          held while a Gatehouse uses the folder; contains its process id
//	password      of the superuser
//	postgres.log  what Postgres said since its start; postgres.log.1 is from before
//	binaries/     a downloaded Postgres
//	data/         the cluster
//	run/          the socket
//	unfinished-…  anything on its way to one of the names above
//
// Postgres refuses to run as root. When Gatehouse is root, Postgres runs as the user
// postgres, or as nobody if there is no such user. That user owns data and run and can
// write to nothing else, so that it cannot make root follow a link or run a file of its
// own. If that user cannot reach the data folder, "postgres" is a symbolic link to a
// folder below /var/lib/gatehouse.
//
// # Access
//
// Postgres listens on no port, only on a socket in a folder closed to all but the
// user that runs it and root, and there asks for a password (SCRAM). The superuser
// is gatehouse, with a random password.
//
// # Lifecycle
//
// On Linux, Postgres shuts down cleanly when its Gatehouse is killed. If a Postgres has
// outlived its Gatehouse, the next Start stops it.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"gatehouse/internal/database"
)

const superuser = "gatehouse"

// Config says where a Postgres lives and how it is run.
type Config struct {
	// Dir is Gatehouse's data folder. Start creates it if it is missing. Other users
	// have no access, except that as root Start lets the Postgres user traverse it.
	Dir string

	// Logger receives slow steps and unexpected states; nil for none.
	Logger *slog.Logger

	// NoSync disables fsync for speed in tests. A crash of the machine may then lose or
	// corrupt the data.
	NoSync bool

	// SearchDirs are the folders in which to look for initdb and postgres, best
	// first; nil for PATH and where packages put them.
	SearchDirs []string

	// Repository is the URL of a Maven repository, from which Postgres is
	// downloaded if none is found; empty for Maven Central.
	Repository string
}

// Server is a running Postgres. It must be stopped, even when Postgres has ended by
// itself.
type Server struct {
	dir      string
	sockets  string
	password string
	process  *process

	// release undoes what the running Postgres needed, when it has ended.
	release func() error
	stopped sync.Once
	stopErr error
}

// Start runs Postgres for the data folder, after making a cluster if there is none,
// and returns when it accepts connections. If ctx ends before, nothing is left
// running. It returns ErrInUse if another Gatehouse runs there.
func Start(ctx context.Context, cfg Config) (_ *Server, err error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	home, err := findHome(cfg.Dir)
	if err != nil {
		return nil, err
	}
	lock, err := home.lock()
	if err != nil {
		return nil, err
	}
	s := &Server{dir: home.dir}
	s.release = func() error { return errors.Join(home.removeSocketFolder(), unlock(lock)) }
	defer func() {
		if err != nil {
			err = errors.Join(err, s.release())
		}
	}()

	home.sweep(cfg.Logger)
	if err := stopOrphan(ctx, cfg.Logger, home.data()); err != nil {
		return nil, err
	}
	cluster, err := clusterMajor(home.data())
	if err != nil {
		return nil, err
	}
	bin, err := findBinaries(ctx, cfg, home, cluster)
	if err != nil {
		return nil, err
	}
	if cluster == 0 {
		s.password, err = home.makeCluster(ctx, cfg, bin)
	} else {
		s.password, err = home.openCluster()
	}
	if err != nil {
		return nil, err
	}
	if s.sockets, err = home.makeSocketFolder(); err != nil {
		return nil, err
	}
	if err := s.run(ctx, cfg, home, bin); err != nil {
		return nil, fmt.Errorf("start postgres: %w", err)
	}
	return s, nil
}

// run starts the postmaster and waits until it lets us in.
func (s *Server) run(ctx context.Context, cfg Config, home *home, bin binaries) error {
	log, err := home.newLog()
	if err != nil {
		return err
	}
	defer log.Close() // the postmaster has its own descriptor

	args := append([]string{"-D", home.data()}, settings(cfg, s.sockets)...)
	// It is stopped by signals, whatever becomes of ctx. SIGINT is a fast shutdown.
	cmd := command(context.WithoutCancel(ctx), home.account, syscall.SIGINT, bin.postgres, args...)
	cmd.Dir = home.data()
	cmd.Stdout, cmd.Stderr = log, log
	if s.process, err = startProcess(cmd); err != nil {
		return err
	}
	if err := s.awaitReady(ctx, home.data()); err != nil {
		if !s.process.ended() {
			err = errors.Join(err, s.process.stop(context.WithoutCancel(ctx)))
		}
		return fmt.Errorf("%w; the end of %s:\n%s", err, log.Name(), lastLines(log))
	}
	return nil
}

// settings go on the command line, so that the cluster's own files stay as initdb
// wrote them and another version of Gatehouse may set others.
func settings(cfg Config, sockets string) []string {
	durable := "on"
	if cfg.NoSync {
		durable = "off"
	}
	var args []string
	for _, setting := range []string{
		"listen_addresses=",
		"port=" + strconv.Itoa(port),
		`unix_socket_directories="` + sockets + `"`,
		"unix_socket_permissions=0700",
		"max_connections=100",
		"shared_buffers=64MB",
		"fsync=" + durable,
		"synchronous_commit=" + durable,
		"full_page_writes=" + durable,
		"jit=off",             // compiling costs more than queries of ours take
		"log_checkpoints=off", // a line every few minutes that nobody reads
	} {
		args = append(args, "-c", setting)
	}
	return args
}

// awaitReady reads the postmaster's own report: attempts to connect would leave a
// complaint in its log each.
func (s *Server) awaitReady(ctx context.Context, data string) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		r, err := readReport(data)
		if err != nil {
			return err
		}
		if r.ready && r.pid == s.process.cmd.Process.Pid {
			return s.enter(ctx)
		}
		select {
		case <-tick.C:
		case <-s.process.done:
			return fmt.Errorf("it ended: %v", s.process.cmd.ProcessState)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// enter connects once, to detect a wrong password at the start.
func (s *Server) enter(ctx context.Context) error {
	config, err := database.ParseConfig(s.URL("postgres"))
	if err != nil {
		return err
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if refusal, ok := errors.AsType[*pgconn.PgError](err); ok && refusal.Code == "28P01" { // invalid_password
		return fmt.Errorf("the password in %s isn't the cluster's: %w", s.dir, err)
	}
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}

// URL is for connecting to a database as the superuser. The database postgres is
// always there.
func (s *Server) URL(database string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword(superuser, s.password),
		Path:     "/" + database,
		RawQuery: url.Values{"host": {s.sockets}, "port": {strconv.Itoa(port)}}.Encode(),
	}
	return u.String()
}

// Dir is the folder where Postgres' files really are.
func (s *Server) Dir() string { return s.dir }

// Done is closed when Postgres has ended, for whatever reason.
func (s *Server) Done() <-chan struct{} { return s.process.done }

// Stop ends Postgres and returns when it is gone, with its socket and its claim on
// the folder. It doesn't wait for clients: what they haven't committed is rolled
// back. After 5 s, or when ctx ends, Postgres is ended the hard way, which loses
// nothing but makes the next start recover. Stop returns an error if it wasn't a
// clean end, or if Postgres had ended by itself.
func (s *Server) Stop(ctx context.Context) error {
	s.stopped.Do(func() {
		err := s.end(ctx)
		if s.stopErr = errors.Join(err, s.release()); s.stopErr != nil {
			s.stopErr = fmt.Errorf("stop postgres: %w", s.stopErr)
		}
	})
	return s.stopErr
}

func (s *Server) end(ctx context.Context) error {
	if s.process.ended() {
		return fmt.Errorf("it had ended by itself: %v", s.process.cmd.ProcessState)
	}
	return s.process.stop(ctx)
}
