package e2e

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

	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/pgtest"
	"gatehouse/internal/postgres"
	"gatehouse/internal/testneed"
)

func field(banner, name string) string {
	found := regexp.MustCompile(`(?m)^  ` + name + ` +(.+)$`).FindStringSubmatch(banner)
	if found == nil {
		return ""
	}
	return found[1]
}

func TestUpRunsEverythingAndSaysHowToUseIt(t *testing.T) {
	t.Parallel()
	h := newUpHouse(t)
	first, banner := h.up(t)
	for name, want := range map[string]string{
		"gateway": h.url, "docs": h.url + "/docs", "data folder": h.dir, "administrator": adminEmail,
	} {
		if got := field(banner, name); got != want {
			t.Errorf("the banner's %s is %q, want %q", name, got, want)
		}
	}
	if !strings.Contains(field(banner, "reset"), "rm -rf "+h.dir) {
		t.Errorf("the banner says to reset by %q", field(banner, "reset"))
	}
	t.Run("the curl line works when pasted", func(t *testing.T) {
		if answer := pasteCurl(t, banner); !strings.Contains(answer, `"signedIn"`) || !strings.Contains(answer, `"accessToken"`) {
			t.Errorf("it answered %s", answer)
		}
	})
	s := h.system
	password := field(banner, "password")
	if _, err := s.client("").auth.Login(t.Context(), &bffv1.LoginRequest{Email: adminEmail, Password: password}); err != nil {
		t.Errorf("Login with the banner's password: %v", err)
	}

	t.Run("a second one on the same data is refused with the reason", func(t *testing.T) {
		second := startProcess(t, append(slices.Clone(h.env), "GATEHOUSE_LISTEN="+freeAddress(t)))
		second.wait(t)
		if code, said := second.cmd.ProcessState.ExitCode(), second.stderr.String(); code != 1 || !strings.Contains(said, strconv.Itoa(first.cmd.Process.Pid)) {
			t.Errorf("exit status %d, said %q; want 1 and the first one's process id", code, said)
		}
	})
	t.Run("an interrupt stops it within 5 s and leaves nothing behind", func(t *testing.T) {
		took, code := first.interrupt(t)
		if took > 5*time.Second || code != 0 {
			t.Errorf("it took %s, exit status %d; said %s", took, code, first.stderr.String())
		}
		if pids := h.postgresOf(t); len(pids) > 0 {
			t.Errorf("the processes %v are left", pids)
		}
	})
	t.Run("the next run keeps the administrator", func(t *testing.T) {
		next, banner := h.up(t)
		if got := field(banner, "administrator"); !strings.Contains(got, "kept") || !strings.Contains(got, "admin reset-password") || strings.Contains(banner, password) {
			t.Errorf("the banner says %q", got)
		}
		t.Run("the curl line works when pasted", func(t *testing.T) {
			if answer := pasteCurl(t, banner); !strings.Contains(answer, `"keys"`) {
				t.Errorf("it answered %s", answer)
			}
		})
		if _, err := s.client("").auth.Login(t.Context(), &bffv1.LoginRequest{Email: adminEmail, Password: password}); err != nil {
			t.Errorf("Login with the first banner's password: %v", err)
		}
		reset := startProcess(t, h.env[:1], "admin", "reset-password", adminEmail)
		reset.wait(t)
		fresh := field(reset.stdout.String(), "password")
		if _, err := s.client("").auth.Login(t.Context(), &bffv1.LoginRequest{Email: adminEmail, Password: fresh}); err != nil {
			t.Errorf("Login with the password that reset-password printed (%s%s): %v", reset.stdout.String(), reset.stderr.String(), err)
		}
		// The administrator's own setting, which stands where auth runs, is not
		// what an account gets that is reset there.
		given := startProcess(t, []string{h.env[0], "GATEHOUSE_ADMIN_PASSWORD=" + adminPassword, "GATEHOUSE_NEW_PASSWORD=another password"}, "admin", "reset-password", adminEmail)
		given.wait(t)
		if _, err := s.client("").auth.Login(t.Context(), &bffv1.LoginRequest{Email: adminEmail, Password: "another password"}); err != nil {
			t.Errorf("Login with GATEHOUSE_NEW_PASSWORD (%s%s): %v", given.stdout.String(), given.stderr.String(), err)
		}
		next.interrupt(t)
	})
	t.Run("admin create works while it is stopped", func(t *testing.T) {
		create := startProcess(t, h.env[:1], "admin", "create", "second@example.com")
		create.wait(t)
		fresh := field(create.stdout.String(), "password")
		h.up(t)
		response, err := s.client("").auth.Login(t.Context(), &bffv1.LoginRequest{Email: "second@example.com", Password: fresh})
		if err != nil || !slices.Contains(response.GetSignedIn().GetUser().GetRoles(), "admin") {
			t.Errorf("Login as the second administrator (%s): %v, %v", create.stderr.String(), response, err)
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
	h := newUpHouse(t)
	first, _ := h.up(t)
	ada := h.signUp(t, "ada@example.com")
	first.kill()
	second, _ := h.up(t)
	got, err := h.client(ada.Access).account.GetMe(t.Context(), &bffv1.GetMeRequest{})
	if err != nil || got.GetUser().GetFirstName() != "Ada" {
		t.Errorf("GetMe after a kill -9 and a start: %v, %v", got, err)
	}
	second.kill()
	eventually(t, 5*time.Second, "Postgres follows its killed parent", func() error {
		if pids := h.postgresOf(t); len(pids) > 0 {
			return fmt.Errorf("the processes %v are left", pids)
		}
		return nil
	})
}

func TestUpEndsWhenItsPostgresDoes(t *testing.T) {
	t.Parallel()
	h := newUpHouse(t)
	p, _ := h.up(t)
	server, ok := postgres.Running(h.dir)
	if !ok {
		t.Fatal("postgres.Running finds nothing")
	}
	pool := pgtest.Pool(t, server.URL("postgres"))
	if err := pool.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, pid := range h.postgresOf(t) {
		process, err := os.FindProcess(pid)
		if err == nil {
			_ = process.Signal(os.Interrupt)
		}
	}
	p.wait(t)
	if code := p.cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(p.stderr.String(), "ended by itself") {
		t.Errorf("exit status %d, said %s", code, p.stderr.String())
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
			want: []string{"REDIS_URL: it is no URL of a Redis or Valkey", "GATEHOUSE_THROTTLE"},
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
			p := startProcess(t, append(test.env, "GATEHOUSE_DATA_DIR="+t.TempDir()), test.args...)
			p.wait(t)
			if code := p.cmd.ProcessState.ExitCode(); code != 2 {
				t.Errorf("exit status %d, want 2", code)
			}
			for _, want := range test.want {
				if !strings.Contains(p.stderr.String(), want) {
					t.Errorf("it doesn't name %s:\n%s", want, p.stderr.String())
				}
			}
			if strings.Contains(p.stderr.String(), "short") || strings.Contains(p.stderr.String(), "tiny") {
				t.Errorf("it shows a secret:\n%s", p.stderr.String())
			}
		})
	}
}

func TestASecretCanComeFromAFile(t *testing.T) {
	t.Parallel()
	s := Start(t, ThreeProcesses)
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte(internalKey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.processes[roleUsers].kill()
	role := s.roles[roleUsers]
	role.env = slices.DeleteFunc(slices.Clone(role.env), func(v string) bool { return strings.HasPrefix(v, "GATEHOUSE_INTERNAL_KEY=") })
	role.env = append(role.env, "GATEHOUSE_INTERNAL_KEY_FILE="+file)
	s.roles[roleUsers] = role
	s.start(t, roleUsers)
	s.signUp(t, "ada@example.com")

	both := startProcess(t, []string{"GATEHOUSE_INTERNAL_KEY=" + internalKey, "GATEHOUSE_INTERNAL_KEY_FILE=" + file}, roleUsers)
	both.wait(t)
	if both.cmd.ProcessState.ExitCode() != 2 || !strings.Contains(both.stderr.String(), "GATEHOUSE_INTERNAL_KEY_FILE") {
		t.Errorf("with both: exit status %d, said %s", both.cmd.ProcessState.ExitCode(), both.stderr.String())
	}
}

func TestHealthcheckAndPolicy(t *testing.T) {
	t.Parallel()
	s := Start(t, ThreeProcesses)
	for name := range s.processes {
		check := startProcess(t, []string{"GATEHOUSE_LISTEN=" + s.roles[name].listen}, "healthcheck")
		check.wait(t)
		if code := check.cmd.ProcessState.ExitCode(); code != 0 {
			t.Errorf("healthcheck of %s: exit status %d: %s", name, code, check.stderr.String())
		}
	}
	check := startProcess(t, []string{"GATEHOUSE_LISTEN=" + freeAddress(t)}, "healthcheck")
	check.wait(t)
	if code := check.cmd.ProcessState.ExitCode(); code != 1 {
		t.Errorf("healthcheck of nothing: exit status %d, want 1", code)
	}
	policy := startProcess(t, nil, "policy")
	policy.wait(t)
	if said := policy.stdout.String(); !regexp.MustCompile(`/bff\.v1\.UserService/DeleteUser +admin +yes +10s `).MatchString(said) {
		t.Errorf("policy printed %s", said)
	}
	tightened := startProcess(t, []string{"GATEHOUSE_POLICY=bff.v1.UserService/DeleteUser limit=3s rate=1/m"}, "policy")
	tightened.wait(t)
	if said := tightened.stdout.String(); !regexp.MustCompile(`/bff\.v1\.UserService/DeleteUser +admin +yes +3s +1/m `).MatchString(said) {
		t.Errorf("policy, tightened, printed %s", said)
	}
	page := startProcess(t, nil, "policy", "--markdown")
	page.wait(t)
	committed, err := os.ReadFile("docs/reference/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	if said := page.stdout.String(); said != string(committed) {
		t.Errorf("policy --markdown printed another page than docs/reference/policy.md: %s", said)
	}
}

// A request that is under way when the program is told to stop is answered.
func TestAStopLetsRequestsFinish(t *testing.T) {
	t.Parallel()
	s := Start(t, OneProcess)
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
			request, _ := http.NewRequestWithContext(ctx, http.MethodPost, s.url+"/bff.v1.AuthService/Register", strings.NewReader(body))
			request.Header.Set("Content-Type", "application/json")
			response, err := h2c.Do(request)
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
	if err := s.processes["up"].cmd.Process.Signal(os.Interrupt); err != nil {
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
	s.processes["up"].wait(t)
}
