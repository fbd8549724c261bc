// Package postgres runs an embedded Postgres: it finds or downloads the programs,
// creates a database cluster, runs it, and leaves no process behind.
//
// # Files
//
// Everything is in the folder "postgres" in Gatehouse's data folder:
//
//	lock          held while a Gatehouse uses the folder; contains its process id
//	password      of the superuser
//	postgres.log  the log since Postgres' start; postgres.log.1 is the previous one
//	binaries/     a downloaded Postgres
//	data/         the cluster
//	run/          the socket
//	unfinished-…  incomplete files and folders, renamed once they are complete
//
// Postgres refuses to run as root. When Gatehouse is root, Postgres runs as the user
// postgres, or as nobody if there is no such user. That user owns data and run and can
// write to nothing else, so that it cannot make root follow a link or run a file of its
// own. If that user cannot reach the data folder, "postgres" is a symbolic link to a
// folder below /var/lib/gatehouse.
//
// # Access
//
// Postgres listens on no port. It listens on a socket in a folder that only root and the
// user that runs it can enter, and requires a password (SCRAM). The superuser is
// gatehouse, with a random password.
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

// Config configures a Postgres.
type Config struct {
	// Dir is Gatehouse's data folder. Start creates it if it is missing. Other users
	// have no access, except that as root Start lets the Postgres user traverse it.
	Dir string

	// Logger receives slow steps and unexpected states; nil for none.
	Logger *slog.Logger

	// NoSync disables fsync for speed in tests. A crash of the machine may then lose or
	// corrupt the data.
	NoSync bool

	// SearchDirs are the folders in which to search for initdb and postgres, in order of
	// preference; nil for PATH and the folders of common packages.
	SearchDirs []string

	// Repository is the URL of a Maven repository, from which Postgres is
	// downloaded if none is found; empty for Maven Central.
	Repository string
}

// Server is a running Postgres. The caller must call Stop, even if Postgres has ended.
type Server struct {
	dir      string
	sockets  string
	password string
	process  *process

	// release deletes the socket folder and releases the lock after Postgres has ended.
	release func() error
	stopped sync.Once
	stopErr error
}

// Start runs Postgres for the data folder, and returns when it accepts connections. It
// creates a cluster if there is none. If ctx ends first, it stops Postgres. It returns
// ErrInUse if another Gatehouse uses the data folder.
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

// run starts the postmaster and waits until it accepts connections.
func (s *Server) run(ctx context.Context, cfg Config, home *home, bin binaries) error {
	log, err := home.newLog()
	if err != nil {
		return err
	}
	defer log.Close() // the postmaster has its own descriptor

	args := append([]string{"-D", home.data()}, settings(cfg, s.sockets)...)
	// Only signals stop it, not the end of ctx. SIGINT is a fast shutdown.
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

// settings are passed on the command line, so that the cluster's files remain as initdb
// wrote them and another version of Gatehouse can use other settings.
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
		"jit=off",             // compiling takes longer than our queries
		"log_checkpoints=off", // frequent and not useful
	} {
		args = append(args, "-c", setting)
	}
	return args
}

// awaitReady polls the postmaster's status file. A failed connection attempt would write a
// line to Postgres' log.
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
		return fmt.Errorf("the password in %s is not the password of the cluster: %w", s.dir, err)
	}
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}

// URL returns the URL of a database, for the superuser. The database postgres always
// exists.
func (s *Server) URL(database string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword(superuser, s.password),
		Path:     "/" + database,
		RawQuery: url.Values{"host": {s.sockets}, "port": {strconv.Itoa(port)}}.Encode(),
	}
	return u.String()
}

// Dir returns the folder with Postgres' files, with symbolic links resolved.
func (s *Server) Dir() string { return s.dir }

// Done returns a channel that is closed when Postgres has ended for any reason.
func (s *Server) Done() <-chan struct{} { return s.process.done }

// Stop stops Postgres, deletes its socket and releases the lock of the folder. It does not
// wait for clients; Postgres rolls back their open transactions. After 5 s, or when ctx
// ends, Stop kills Postgres, which loses no data but makes the next start recover. It
// returns an error if the shutdown was not clean, or if Postgres had already ended.
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
		return fmt.Errorf("it had already ended: %v", s.process.cmd.ProcessState)
	}
	return s.process.stop(ctx)
}
