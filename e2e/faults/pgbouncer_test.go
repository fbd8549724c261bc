package faults

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
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/jackc/pgx/v5"

	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/pgtest"
	"gatehouse/internal/testneed"
)

// bouncer is a PgBouncer in transaction mode before the tests' Postgres.
type bouncer struct{ address string }

// newBouncer starts one that knows the roles of the database, each with two
// connections, which many transactions have to share.
func newBouncer(t *testing.T, database pgtest.Database) *bouncer {
	t.Helper()
	program := testneed.Program(t, "pgbouncer", "/usr/sbin/pgbouncer") // which a user's PATH may lack
	owner, err := pgx.ParseConfig(database.Owner)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("/tmp", "gatehouse-bouncer-") // t.TempDir is closed to others
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	var roles string
	for _, service := range database.Services() {
		config, err := pgx.ParseConfig(database.URL(service))
		if err != nil {
			t.Fatal(err)
		}
		roles += fmt.Sprintf("%q %q\n", config.User, config.Password)
	}
	roles += `"stats" "stats"` + "\n"
	host, port, _ := net.SplitHostPort(harness.FreeAddress(t))
	config := fmt.Sprintf(`[databases]
* = host=%s port=%d
[pgbouncer]
listen_addr = %s
listen_port = %s
unix_socket_dir =
auth_type = scram-sha-256
auth_file = %s
pool_mode = transaction
default_pool_size = 2
stats_users = stats
`, owner.Host, owner.Port, host, port, filepath.Join(dir, "users.txt"))
	for name, text := range map[string]string{"users.txt": roles, "pgbouncer.ini": config} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, filepath.Join(dir, "pgbouncer.ini"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: notRoot(t)}
	var said harness.LockedBuffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatalf("start pgbouncer: %v", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("pgbouncer said:\n%s", said.String())
		}
	})
	b := &bouncer{address: net.JoinHostPort(host, port)}
	harness.Eventually(t, 20*time.Second, "pgbouncer listens", func() error {
		conn, err := net.Dial("tcp", b.address)
		if err != nil {
			return fmt.Errorf("%w: %s", err, said.String())
		}
		return conn.Close()
	})
	return b
}

// notRoot is a user for PgBouncer, which refuses to run as root; nil for ourselves.
func notRoot(t *testing.T) *syscall.Credential {
	t.Helper()
	if os.Geteuid() != 0 {
		return nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		found, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(found.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(found.Gid, 10, 32)
		if err := errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	t.Fatal("there is no user postgres or nobody to run pgbouncer")
	return nil
}

// before returns the URL by which the role of another is reached through it.
func (b *bouncer) before(t *testing.T, direct string) string {
	t.Helper()
	config, err := pgx.ParseConfig(direct)
	if err != nil {
		t.Fatal(err)
	}
	through := url.URL{Scheme: "postgres", User: url.UserPassword(config.User, config.Password), Host: b.address, Path: "/" + config.Database}
	return through.String()
}

// transactions counts what went through it.
func (b *bouncer) transactions(t *testing.T) (n int64) {
	t.Helper()
	config, err := pgx.ParseConfig("postgres://stats:stats@" + b.address + "/pgbouncer?default_query_exec_mode=simple_protocol")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	results, err := conn.PgConn().Exec(t.Context(), "SHOW STATS_TOTALS").ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range results[0].Rows {
		for i, field := range results[0].FieldDescriptions {
			if field.Name == "xact_count" {
				count, _ := strconv.ParseInt(string(row[i]), 10, 64)
				n += count
			}
		}
	}
	return n
}

// The services need no setting for it: they notice.
func TestTheSystemWorksThroughPgBouncerInTransactionMode(t *testing.T) {
	t.Parallel()
	var through *bouncer
	s := harness.Start(t, harness.ThreeProcesses, harness.WithDatabaseURLs(func(database *pgtest.Database) {
		through = newBouncer(t, *database)
		for _, service := range database.Services() {
			database.SetURL(service, through.before(t, database.URL(service)))
		}
	}))
	admin := s.Admin(t).Client()
	var group sync.WaitGroup
	for i := range 4 {
		email := fmt.Sprintf("person%d@example.com", i)
		person := s.SignUp(t, email)
		group.Go(func() {
			if err := wholeStory(t, s, admin, email, person); err != nil {
				t.Errorf("person %d: %v", i, err)
			}
		})
	}
	group.Wait()
	if err := seesChanges(t, s.SignUp(t, "watcher@example.com")); err != nil {
		t.Errorf("a stream of changes: %v", err)
	}
	if n := through.transactions(t); n < 100 {
		t.Errorf("only %d transactions went through PgBouncer", n)
	}
}

// seesChanges has somebody watch while they change their profile.
func seesChanges(t *testing.T, person *harness.Person) error {
	ctx, stop := context.WithTimeout(t.Context(), 60*time.Second)
	defer stop()
	stream, err := person.Client().Account.WatchMe(ctx, &bffv1.WatchMeRequest{})
	if err != nil {
		return fmt.Errorf("WatchMe: %w", err)
	}
	if first, err := stream.Receive(); err != nil || !first.GetComplete() {
		return fmt.Errorf("the stream begins with %v: %w", first, err)
	}
	for i := range 5 {
		err := harness.Patiently(func() error {
			_, err := person.Client().Account.UpdateMe(ctx, &bffv1.UpdateMeRequest{User: &bffv1.User{FirstName: fmt.Sprint("Ada", i)}})
			return err
		})
		if err != nil {
			return fmt.Errorf("UpdateMe: %w", err)
		}
		for seen := false; !seen; {
			event, err := stream.Receive()
			if err != nil {
				return fmt.Errorf("after change %d: %w", i, err)
			}
			seen = slices.Contains(event.GetChanged().GetParts(), "profile")
		}
	}
	return nil
}

// search finds the account of an email.
func search(t *testing.T, admin harness.Client, email string) error {
	return harness.Patiently(func() error {
		found, err := admin.Users.ListUsers(t.Context(), &bffv1.ListUsersRequest{Query: email})
		if err == nil && len(found.GetUsers()) != 1 {
			return fmt.Errorf("found %v", found)
		}
		return err
	})
}

// wholeStory has somebody sign in, refresh, be found, change, and be revoked.
func wholeStory(t *testing.T, s *harness.System, admin harness.Client, email string, person *harness.Person) error {
	tokens := &bffv1.Tokens{AccessToken: person.Access, RefreshToken: person.Refresh}
	for range 10 {
		err := harness.Patiently(func() error {
			refreshed, err := s.Client("").Auth.Refresh(t.Context(), &bffv1.RefreshRequest{RefreshToken: tokens.GetRefreshToken()})
			if err == nil {
				tokens = refreshed.GetTokens()
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("Refresh: %w", err)
		}
		err = harness.Patiently(func() error {
			me, err := s.Client(tokens.GetAccessToken()).Account.GetMe(t.Context(), &bffv1.GetMeRequest{})
			if err == nil && (me.GetUser().GetEmail() != email || me.GetUser().GetFirstName() != "Ada") {
				return fmt.Errorf("got %v", me)
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("GetMe: %w", err)
		}
		if err := search(t, admin, email); err != nil {
			return fmt.Errorf("ListUsers: %w", err)
		}
	}
	var other *bffv1.Tokens
	err := harness.Patiently(func() error {
		login, err := s.Client("").Auth.Login(t.Context(), &bffv1.LoginRequest{Email: email, Password: harness.Password})
		other = login.GetSignedIn().GetTokens()
		return err
	})
	if err != nil {
		return fmt.Errorf("Login: %w", err)
	}
	err = harness.Patiently(func() error {
		_, err := s.Client("").Auth.Logout(t.Context(), &bffv1.LogoutRequest{RefreshToken: tokens.GetRefreshToken()})
		return err
	})
	if err != nil {
		return fmt.Errorf("Logout: %w", err)
	}
	if err := wantTokenRefused(t, s, tokens.GetAccessToken()); err != nil {
		return fmt.Errorf("after Logout: %w", err)
	}
	// The relay tells users, and the stream the gateway.
	err = harness.Patiently(func() error {
		_, err := admin.Users.DisableUser(t.Context(), &bffv1.DisableUserRequest{UserId: person.ID})
		return err
	})
	if err != nil {
		return fmt.Errorf("DisableUser: %w", err)
	}
	if err := wantTokenRefused(t, s, other.GetAccessToken()); err != nil {
		return fmt.Errorf("after DisableUser: %w", err)
	}
	return harness.Within(20*time.Second, func() error {
		var status string
		if err := s.Owner.QueryRow(t.Context(), "SELECT status FROM users.profiles WHERE id = $1", person.ID).Scan(&status); err != nil || status != "disabled" {
			return fmt.Errorf("users has the status %q: %w", status, err)
		}
		return nil
	})
}

// refused waits until a token is refused.
func wantTokenRefused(t *testing.T, s *harness.System, token string) error {
	return harness.Within(2*harness.RevocationBound, func() error {
		_, err := s.Client(token).Account.ListSessions(t.Context(), &bffv1.ListSessionsRequest{})
		if connect.CodeOf(err) != connect.CodeUnauthenticated {
			return fmt.Errorf("the token is not refused: %w", err)
		}
		return nil
	})
}
