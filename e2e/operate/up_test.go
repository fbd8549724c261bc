package operate

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/pgtest"
	"gatehouse/internal/postgres"
	"gatehouse/internal/testneed"
)

func TestUpRunsEverythingAndSaysHowToUseIt(t *testing.T) {
	t.Parallel()
	h := harness.NewEmbedded(t)
	first, banner := h.Up(t)
	for name, want := range map[string]string{
		"gateway": h.URL, "docs": h.URL + "/docs", "data folder": h.Dir, "administrator": harness.AdminEmail,
	} {
		if got := harness.BannerField(banner, name); got != want {
			t.Errorf("the banner's %s is %q, want %q", name, got, want)
		}
	}
	if !strings.Contains(harness.BannerField(banner, "reset"), "rm -rf "+h.Dir) {
		t.Errorf("the banner says to reset by %q", harness.BannerField(banner, "reset"))
	}
	t.Run("the curl line works when pasted", func(t *testing.T) {
		if answer := pasteCurl(t, banner); !strings.Contains(answer, `"signedIn"`) || !strings.Contains(answer, `"accessToken"`) {
			t.Errorf("it answered %s", answer)
		}
	})
	s := h.System
	password := harness.BannerField(banner, "password")
	if _, err := s.Client("").Auth.Login(t.Context(), &bffv1.LoginRequest{Email: harness.AdminEmail, Password: password}); err != nil {
		t.Errorf("Login with the banner's password: %v", err)
	}

	t.Run("a second one on the same data is refused with the reason", func(t *testing.T) {
		second := harness.StartProcess(t, append(slices.Clone(h.Env), "GATEHOUSE_LISTEN="+harness.FreeAddress(t)))
		second.Wait(t)
		if code, said := second.Cmd.ProcessState.ExitCode(), second.Stderr.String(); code != 1 || !strings.Contains(said, strconv.Itoa(first.Cmd.Process.Pid)) {
			t.Errorf("exit status %d, said %q; want 1 and the first one's process ID", code, said)
		}
	})
	t.Run("an interrupt stops it within 5 s and leaves nothing behind", func(t *testing.T) {
		took, code := first.Interrupt(t)
		if took > 5*time.Second || code != 0 {
			t.Errorf("it took %s, exit status %d; said %s", took, code, first.Stderr.String())
		}
		if pids := h.PostgresOf(t); len(pids) > 0 {
			t.Errorf("the processes %v are left", pids)
		}
	})
	t.Run("the next run keeps the administrator", func(t *testing.T) {
		keepsAdministrator(t, h, password)
	})
	t.Run("admin create works while it is stopped", func(t *testing.T) {
		create := harness.StartProcess(t, h.Env[:1], "admin", "create", "second@example.com")
		create.Wait(t)
		fresh := harness.BannerField(create.Stdout.String(), "password")
		h.Up(t)
		response, err := s.Client("").Auth.Login(t.Context(), &bffv1.LoginRequest{Email: "second@example.com", Password: fresh})
		if err != nil || !slices.Contains(response.GetSignedIn().GetUser().GetRoles(), "admin") {
			t.Errorf("Login as the second administrator (%s): %v, %v", create.Stderr.String(), response, err)
		}
	})
}

// pasteCurl runs the banner's curl line in a shell.
func pasteCurl(t *testing.T, banner string) string {
	t.Helper()
	line := regexp.MustCompile(`(?m)^  (curl .+)$`).FindStringSubmatch(banner)
	if line == nil {
		t.Fatalf("no curl line in %s", banner)
	}
	testneed.Program(t, "curl")
	answer, err := exec.CommandContext(t.Context(), "sh", "-c", line[1]).Output()
	if err != nil {
		t.Fatalf("%s: %v", line[1], err)
	}
	return string(answer)
}

func TestUpSurvivesBeingKilled(t *testing.T) {
	t.Parallel()
	h := harness.NewEmbedded(t)
	first, _ := h.Up(t)
	ada := h.SignUp(t, "ada@example.com")
	first.Kill()
	second, _ := h.Up(t)
	got, err := h.Client(ada.Access).Account.GetMe(t.Context(), &bffv1.GetMeRequest{})
	if err != nil || got.GetUser().GetFirstName() != "Ada" {
		t.Errorf("GetMe after a kill -9 and a start: %v, %v", got, err)
	}
	second.Kill()
	harness.Eventually(t, 5*time.Second, "Postgres follows its killed parent", func() error {
		if pids := h.PostgresOf(t); len(pids) > 0 {
			return fmt.Errorf("the processes %v are left", pids)
		}
		return nil
	})
}

func TestUpEndsWhenItsPostgresDoes(t *testing.T) {
	t.Parallel()
	h := harness.NewEmbedded(t)
	p, _ := h.Up(t)
	server, ok := postgres.Running(h.Dir)
	if !ok {
		t.Fatal("postgres.Running finds nothing")
	}
	pool := pgtest.Pool(t, server.URL("postgres"))
	if err := pool.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, pid := range h.PostgresOf(t) {
		process, err := os.FindProcess(pid)
		if err == nil {
			_ = process.Signal(os.Interrupt)
		}
	}
	p.Wait(t)
	if code := p.Cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(p.Stderr.String(), "already ended") {
		t.Errorf("exit status %d, said %s", code, p.Stderr.String())
	}
}

func TestEveryMistakeInTheSettingsIsReportedAtOnce(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		args, env, want []string
	}{
		"up": {
			env: []string{
				"GATEHOUSE_LISTEN=8001", "GATEHOUSE_PUBLIC_URL=localhost", "GATEHOUSE_INTERNAL_KEY=short", "GATEHOUSE_SESSION_IDLE=soon",
				"GATEHOUSE_REGISTRATION=maybe", "GATEHOUSE_TRUSTED_PROXIES=10.0.0.0/99", "GATEHOUSE_ORIGINS=example.com", "GATEHOUSE_ADMIN_PASSWORD=tiny",
				"DATABASE_URL=mysql://x", "GATEHOUSE_ORIGNS=http://x", "GATEHOUSE_POLICY=bff.v1.AuthService/Login limit=1m; bff.v1.AuthService/Logon rate=1/m",
			},
			want: []string{
				"GATEHOUSE_LISTEN", "GATEHOUSE_PUBLIC_URL", "GATEHOUSE_INTERNAL_KEY", "GATEHOUSE_SESSION_IDLE",
				"GATEHOUSE_REGISTRATION", "GATEHOUSE_TRUSTED_PROXIES", "GATEHOUSE_ORIGINS", "GATEHOUSE_ADMIN_PASSWORD",
				"DATABASE_URL", "GATEHOUSE_ORIGNS",
				"GATEHOUSE_POLICY: bff.v1.AuthService/Login: limit=1m is looser than the schema's 10s", "GATEHOUSE_POLICY: bff.v1.AuthService/Logon: there is no such method",
			},
		},
		"cookies that anybody could read": {
			args: []string{"bff"},
			env:  []string{"GATEHOUSE_COOKIES=localhost", "GATEHOUSE_PUBLIC_URL=http://gatehouse.example", "GATEHOUSE_DRAIN=-1s", "GATEHOUSE_STOP_LIMIT=1ms"},
			want: []string{"GATEHOUSE_COOKIES", "GATEHOUSE_DRAIN", "GATEHOUSE_STOP_LIMIT"},
		},
		"a Redis that is none": {
			args: []string{"bff"},
			env:  []string{"REDIS_URL=http://cache:6379", "GATEHOUSE_THROTTLE=maybe"},
			want: []string{"REDIS_URL: is not the URL of a Redis or Valkey", "GATEHOUSE_THROTTLE"},
		},
		"serve":                   {args: []string{"serve"}, want: []string{"DATABASE_URL", "GATEHOUSE_INTERNAL_KEY", "GATEHOUSE_SECRET_KEY", "GATEHOUSE_REGISTRATION"}},
		"auth":                    {args: []string{"auth"}, want: []string{"AUTH_DATABASE_URL", "USERS_URL", "GATEHOUSE_INTERNAL_KEY", "GATEHOUSE_SECRET_KEY", "GATEHOUSE_REGISTRATION"}},
		"users":                   {args: []string{"users"}, want: []string{"USERS_DATABASE_URL", "GATEHOUSE_INTERNAL_KEY"}},
		"bff":                     {args: []string{"bff"}, want: []string{"AUTH_URL", "USERS_URL", "GATEHOUSE_INTERNAL_KEY"}},
		"copies of a service":     {args: []string{"bff"}, env: []string{"AUTH_URL=http://a:1,http://b:2", "USERS_URL=http://a:1, users:2"}, want: []string{"USERS_URL", "users:2"}},
		"a flag that isn't there": {args: []string{"bff", "--nope"}, want: []string{"--nope"}},
		"a command that isn't":    {args: []string{"nope"}, want: []string{"nope"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := harness.StartProcess(t, append(test.env, "GATEHOUSE_DATA_DIR="+t.TempDir()), test.args...)
			p.Wait(t)
			if code := p.Cmd.ProcessState.ExitCode(); code != 2 {
				t.Errorf("exit status %d, want 2", code)
			}
			for _, want := range test.want {
				if !strings.Contains(p.Stderr.String(), want) {
					t.Errorf("it doesn't name %s:\n%s", want, p.Stderr.String())
				}
			}
			if strings.Contains(p.Stderr.String(), "short") || strings.Contains(p.Stderr.String(), "tiny") {
				t.Errorf("it shows a secret:\n%s", p.Stderr.String())
			}
		})
	}
}

func TestASecretCanComeFromAFile(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.ThreeProcesses)
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte(harness.InternalKey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Processes[harness.RoleUsers].Kill()
	role := s.Roles[harness.RoleUsers]
	role.Env = slices.DeleteFunc(slices.Clone(role.Env), func(v string) bool { return strings.HasPrefix(v, "GATEHOUSE_INTERNAL_KEY=") })
	role.Env = append(role.Env, "GATEHOUSE_INTERNAL_KEY_FILE="+file)
	s.Roles[harness.RoleUsers] = role
	s.Start(t, harness.RoleUsers)
	s.SignUp(t, "ada@example.com")

	both := harness.StartProcess(t, []string{"GATEHOUSE_INTERNAL_KEY=" + harness.InternalKey, "GATEHOUSE_INTERNAL_KEY_FILE=" + file}, harness.RoleUsers)
	both.Wait(t)
	if both.Cmd.ProcessState.ExitCode() != 2 || !strings.Contains(both.Stderr.String(), "GATEHOUSE_INTERNAL_KEY_FILE") {
		t.Errorf("with both: exit status %d, said %s", both.Cmd.ProcessState.ExitCode(), both.Stderr.String())
	}
}

func TestHealthcheckAndPolicy(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.ThreeProcesses)
	for name := range s.Processes {
		check := harness.StartProcess(t, []string{"GATEHOUSE_LISTEN=" + s.Roles[name].Listen}, "healthcheck")
		check.Wait(t)
		if code := check.Cmd.ProcessState.ExitCode(); code != 0 {
			t.Errorf("healthcheck of %s: exit status %d: %s", name, code, check.Stderr.String())
		}
	}
	check := harness.StartProcess(t, []string{"GATEHOUSE_LISTEN=" + harness.FreeAddress(t)}, "healthcheck")
	check.Wait(t)
	if code := check.Cmd.ProcessState.ExitCode(); code != 1 {
		t.Errorf("healthcheck of nothing: exit status %d, want 1", code)
	}
	policy := harness.StartProcess(t, nil, "policy")
	policy.Wait(t)
	if said := policy.Stdout.String(); !regexp.MustCompile(`/bff\.v1\.UserService/DeleteUser +admin +own +- +yes +10s `).MatchString(said) {
		t.Errorf("policy printed %s", said)
	}
	tightened := harness.StartProcess(t, []string{"GATEHOUSE_POLICY=bff.v1.UserService/DeleteUser limit=3s rate=1/m"}, "policy")
	tightened.Wait(t)
	if said := tightened.Stdout.String(); !regexp.MustCompile(`/bff\.v1\.UserService/DeleteUser +admin +own +- +yes +3s +1/m `).MatchString(said) {
		t.Errorf("policy, tightened, printed %s", said)
	}
	page := harness.StartProcess(t, nil, "policy", "--markdown")
	page.Wait(t)
	committed, err := os.ReadFile("docs/reference/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	if said := page.Stdout.String(); said != string(committed) {
		t.Errorf("policy --markdown printed another page than docs/reference/policy.md: %s", said)
	}
}

// A request that is under way when the program receives the signal to stop is answered.
func TestAStopLetsRequestsFinish(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.OneProcess)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	type answer struct {
		err  error
		body string
	}
	answers := make(chan answer)
	stopped := make(chan struct{})
	go func() {
		defer close(answers)
		for n := 0; ; n++ {
			select {
			case <-stopped:
				return
			default:
			}
			body := fmt.Sprintf(`{"email":"stop-%d@example.com","password":"correct horse battery"}`, n)
			request, _ := http.NewRequestWithContext(ctx, http.MethodPost, s.URL+"/bff.v1.AuthService/Register", strings.NewReader(body))
			request.Header.Set("Content-Type", "application/json")
			response, err := harness.H2C.Do(request)
			if err != nil {
				answers <- answer{err: err}
				return
			}
			var got struct {
				SignedIn struct{ User struct{ Id string } }
			}
			err = json.NewDecoder(response.Body).Decode(&got)
			response.Body.Close()
			answers <- answer{err: err, body: got.SignedIn.User.Id}
		}
	}()
	for range 3 {
		if first := <-answers; first.err != nil {
			t.Fatalf("Register: %v", first.err)
		}
	}
	if err := s.Processes["up"].Cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	for one := range answers {
		// Once it is gone, dials are refused; nothing that it took is lost.
		if one.err != nil {
			if !strings.Contains(one.err.Error(), "refused") {
				t.Errorf("a request was lost: %v", one.err)
			}
			close(stopped)
			break
		}
	}
	s.Processes["up"].Wait(t)
}

// keepsAdministrator starts it again: the administrator is kept, with the password that
// the first banner printed, until a command resets it.
func keepsAdministrator(t *testing.T, h *harness.Embedded, password string) {
	s := h.System
	next, banner := h.Up(t)
	if got := harness.BannerField(banner, "administrator"); !strings.Contains(got, "kept") || !strings.Contains(got, "admin reset-password") || strings.Contains(banner, password) {
		t.Errorf("the banner says %q", got)
	}
	t.Run("the curl line works when pasted", func(t *testing.T) {
		if answer := pasteCurl(t, banner); !strings.Contains(answer, `"keys"`) {
			t.Errorf("it answered %s", answer)
		}
	})
	if _, err := s.Client("").Auth.Login(t.Context(), &bffv1.LoginRequest{Email: harness.AdminEmail, Password: password}); err != nil {
		t.Errorf("Login with the first banner's password: %v", err)
	}
	reset := harness.StartProcess(t, h.Env[:1], "admin", "reset-password", harness.AdminEmail)
	reset.Wait(t)
	fresh := harness.BannerField(reset.Stdout.String(), "password")
	if _, err := s.Client("").Auth.Login(t.Context(), &bffv1.LoginRequest{Email: harness.AdminEmail, Password: fresh}); err != nil {
		t.Errorf("Login with the password that reset-password printed (%s%s): %v", reset.Stdout.String(), reset.Stderr.String(), err)
	}
	// The administrator's own setting, which stands where auth runs, is not
	// what an account gets that is reset there.
	given := harness.StartProcess(t, []string{h.Env[0], "GATEHOUSE_ADMIN_PASSWORD=" + harness.AdminPassword, "GATEHOUSE_NEW_PASSWORD=another password"}, "admin", "reset-password", harness.AdminEmail)
	given.Wait(t)
	if _, err := s.Client("").Auth.Login(t.Context(), &bffv1.LoginRequest{Email: harness.AdminEmail, Password: "another password"}); err != nil {
		t.Errorf("Login with GATEHOUSE_NEW_PASSWORD (%s%s): %v", given.Stdout.String(), given.Stderr.String(), err)
	}
	next.Interrupt(t)
}
