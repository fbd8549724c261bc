package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/pgtest"
	"gatehouse/internal/testneed"
)

// maxRenewals of a session during the backup: a restored session accepts a token that is
// up to 100 exchanges newer than its row.
const maxRenewals = 90

// readsPerRenewal stretch the renewals over the time of the backup.
const readsPerRenewal = 10

// signInsAndRenewals is load on a system.
type signInsAndRenewals struct {
	signIns, renewals atomic.Int64
	failed            atomic.Pointer[error]
}

// run makes people sign in, register and exchange their refresh tokens until ctx ends.
func (l *signInsAndRenewals) run(ctx context.Context, t *testing.T, s *harness.System, people []*harness.Person) {
	var running sync.WaitGroup
	repeat := func(count int, call func(i int) error) {
		running.Go(func() {
			for i := range count {
				if ctx.Err() != nil {
					return
				}
				if err := call(i); err != nil {
					l.failed.Store(&err)
					return
				}
			}
		})
	}
	whole := context.WithoutCancel(ctx) // a call that is cut off may have exchanged a token
	for _, person := range people {
		repeat(maxRenewals, func(int) error {
			l.renewals.Add(1)
			if err := person.Renew(whole, ""); err != nil {
				return err
			}
			for range readsPerRenewal {
				if _, err := person.Client().Account.GetMe(whole, &bffv1.GetMeRequest{}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	repeat(1e6, func(i int) error {
		_, err := s.Client("").Auth.Login(whole, &bffv1.LoginRequest{Email: people[i%len(people)].Email, Password: harness.Password})
		l.signIns.Add(1)
		return err
	})
	repeat(1e6, func(i int) error {
		_, err := s.Client("").Auth.Register(whole, &bffv1.RegisterRequest{Email: fmt.Sprintf("during-%d@example.com", i), Password: harness.Password, FirstName: "Ada", LastName: "Lovelace"})
		return err
	})
	running.Wait()
	if err := l.failed.Load(); err != nil {
		t.Errorf("under load: %v", *err)
	}
}

// backUpUnderLoad backs up a database while people use it. It repeats the backup until
// some signed in and some exchanged a refresh token meanwhile.
func backUpUnderLoad(t *testing.T, s *harness.System, people []*harness.Person, env []string) (file string) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	load, done := &signInsAndRenewals{}, make(chan struct{})
	go func() {
		defer close(done)
		load.run(ctx, t, s, people)
	}()
	defer func() { <-done }()
	defer stop()
	dir := t.TempDir()
	for attempt := range 10 {
		file = filepath.Join(dir, fmt.Sprintf("%d.dump", attempt))
		signIns, renewals := load.signIns.Load(), load.renewals.Load()
		status, said := harness.RunCommand(t, env, "backup", file)
		if status != 0 || !strings.Contains(said, "GATEHOUSE_SECRET_KEY with the fingerprint ") {
			t.Fatalf("backup: exit status %d, said %s", status, said)
		}
		signIns, renewals = load.signIns.Load()-signIns, load.renewals.Load()-renewals
		if signIns > 0 && renewals > 0 {
			t.Logf("during the backup there were %d sign-ins and %d exchanges of refresh tokens", signIns, renewals)
			return file
		}
	}
	t.Fatal("nobody used the system during a backup")
	return ""
}

// Everybody who had an account before the backup signs in after the restore, and no
// session that existed then is signed out.
func TestABackupUnderLoadIsRestored(t *testing.T) {
	testneed.Program(t, "pg_dump")
	database := pgtest.New(t)
	s := harness.Start(t, harness.ThreeProcesses, harness.OnDatabase(database), harness.WithSettings("GATEHOUSE_THROTTLE=off"))
	var people []*harness.Person
	for i := range 4 {
		people = append(people, s.SignUp(t, fmt.Sprintf("before-%d@example.com", i)))
	}
	secrets := []string{"GATEHOUSE_SECRET_KEY=" + harness.SecretKey, "GATEHOUSE_INTERNAL_KEY=" + harness.InternalKey}
	file := backUpUnderLoad(t, s, people, append([]string{"DATABASE_URL=" + database.Owner}, secrets...))
	wantNoSecret(t, file+".json")
	settings := append([]string{
		"GATEHOUSE_THROTTLE=off", "GATEHOUSE_REGISTRATION=open", "GATEHOUSE_PUBLIC_URL=" + s.URL,
		"GATEHOUSE_ADMIN_EMAIL=" + harness.AdminEmail, "GATEHOUSE_ADMIN_PASSWORD=" + harness.AdminPassword,
	}, secrets...)

	t.Run("into an empty database", func(t *testing.T) {
		target := passwordDatabase(t)
		env := append([]string{"DATABASE_URL=" + target}, settings...)
		wrong := append([]string{"DATABASE_URL=" + target, "GATEHOUSE_SECRET_KEY=" + strings.Repeat("c", 64)}, settings[:1]...)
		if status, said := harness.RunCommand(t, wrong, "restore", file); status != 1 || !strings.Contains(said, "the secret key is not the one of the backup") {
			t.Errorf("restore with another secret key: exit status %d, said %s", status, said)
		}
		restore(t, env, file)
		wantEverybody(t, harness.StartServe(t, target, env), people, true)
		if status, said := harness.RunCommand(t, env, "restore", file); status != 1 || !strings.Contains(said, "services are connected to the database") {
			t.Errorf("restore under running services: exit status %d, said %s", status, said)
		}
	})
	t.Run("into the embedded Postgres", func(t *testing.T) {
		up := harness.NewEmbedded(t)
		up.Env = append(up.Env, settings...)
		restore(t, up.Env, file)
		process, _ := up.Up(t)
		wantEverybody(t, up.System, people, false)
		again := filepath.Join(t.TempDir(), "embedded.dump")
		if status, said := harness.RunCommand(t, up.Env, "backup", again); status != 0 {
			t.Fatalf("backup of gatehouse up: exit status %d, said %s", status, said)
		}
		process.Interrupt(t)
		if status, said := harness.RunCommand(t, up.Env, "restore", again); status != 1 || !strings.Contains(said, "already holds data of Gatehouse") {
			t.Errorf("restore over data: exit status %d, said %s", status, said)
		}
		restore(t, up.Env, "--replace", again)
		up.Up(t)
		wantEverybody(t, up.System, people, false)
	})
}

func restore(t *testing.T, env []string, args ...string) {
	t.Helper()
	status, said := harness.RunCommand(t, env, append([]string{"restore"}, args...)...)
	if status != 0 || !strings.Contains(said, "The secret key opens the signing keys") {
		t.Fatalf("restore: exit status %d, said %s", status, said)
	}
}

// wantEverybody checks that people sign in, and that their sessions continue unless they
// have continued elsewhere since.
func wantEverybody(t *testing.T, s *harness.System, people []*harness.Person, sessions bool) {
	t.Helper()
	for _, person := range people {
		signedIn := s.SignIn(t, person.Email, harness.Password)
		// The profile is that of users.
		harness.Eventually(t, 20*time.Second, "read the profile of "+person.Email, func() error {
			me, err := signedIn.Client().Account.GetMe(t.Context(), &bffv1.GetMeRequest{})
			if err == nil && me.GetUser().GetFirstName() != "Ada" {
				err = fmt.Errorf("the profile is %v", me)
			}
			return err
		})
		if !sessions {
			continue
		}
		if _, err := s.Client("").Refresh(t.Context(), person.Refresh, ""); err != nil {
			t.Errorf("the session of %s is not restored: %v", person.Email, err)
		}
	}
	s.SignIn(t, harness.AdminEmail, harness.AdminPassword)
	s.SignUp(t, fmt.Sprintf("after-%d@example.com", time.Now().UnixNano()))
}

func wantNoSecret(t *testing.T, path string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), harness.SecretKey[:16]) || strings.Contains(string(text), "postgres://") {
		t.Errorf("the manifest contains a secret: %s", text)
	}
}
