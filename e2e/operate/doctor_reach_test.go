package operate

import (
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"gatehouse/e2e/harness"
	"gatehouse/internal/mailtest"
)

// upEnv are settings of gatehouse up that the doctor finds nothing wrong with.
func upEnv(t *testing.T, more ...string) []string {
	return append([]string{"GATEHOUSE_DATA_DIR=" + t.TempDir() + "/data"}, more...)
}

func TestDoctorSignsInToTheMailServer(t *testing.T) {
	t.Parallel()
	server := mailtest.Start(t, mailtest.Config{User: "gatehouse", Password: "right"})
	with := func(user string) string { return strings.Replace("SMTP_URL="+server.URL(), "://", "://"+user+"@", 1) }
	status, said := doctor(t, upEnv(t, with("gatehouse:right")))
	wantHealthy(t, "the right password", status, said, "ok   mail: "+server.Address()+" accepts the sign-in; nothing was sent")
	if got := server.Received(); len(got) != 0 {
		t.Errorf("the doctor has sent %v", got)
	}
	status, said = doctor(t, upEnv(t, with("gatehouse:wrong")))
	wantFault(t, "a wrong password", status, said, "SMTP_URL: "+server.Address()+" refuses: 535", "correct the user and the password")
	if strings.Contains(said, "wrong@") {
		t.Errorf("it prints a secret:\n%s", said)
	}
	status, said = doctor(t, upEnv(t, with("gatehouse:right")), "--test-mail", "ada@example.com")
	wantHealthy(t, "a test mail", status, said, "accepted a mail from", "to ada@example.com")
	if got := server.Received(); len(got) != 1 || got[0].To != "ada@example.com" || !strings.Contains(got[0].Text, "mail works") {
		t.Errorf("the server has received %v", got)
	}
	status, said = doctor(t, upEnv(t, "SMTP_URL=smtp://"+harness.FreeAddress(t)))
	wantFault(t, "no mail server", status, said, "SMTP_URL: 127.0.0.1:", "correct the host")
	// STARTTLS is required where a password would go over a network.
	status, said = doctor(t, upEnv(t, with("gatehouse:right")+"?tls=required"))
	wantFault(t, "a server without STARTTLS", status, said, "SMTP_URL: "+server.Address(), "correct the host")
	status, said = doctor(t, upEnv(t), "--test-mail", "ada@example.com")
	wantFault(t, "a test mail without a server", status, said, "--test-mail: there is no mail server", "set SMTP_URL")
}

func TestDoctorAsksRedis(t *testing.T) {
	t.Parallel()
	address := harness.FreeAddress(t)
	status, said := doctor(t, upEnv(t, "REDIS_URL=redis://"+address))
	wantFault(t, "no Redis", status, said, "REDIS_URL: it doesn't answer a PING", "start it")
	harness.StartRedis(t, address)
	harness.Eventually(t, 30*time.Second, "Redis listens", func() error {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			_ = conn.Close()
		}
		return err
	})
	status, said = doctor(t, upEnv(t, "REDIS_URL=redis://"+address))
	wantHealthy(t, "a Redis", status, said, "ok   REDIS_URL: it answers")
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("CONFIG SET requirepass right\r\n")); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 64)); err != nil {
		t.Fatal(err)
	}
	status, said = doctor(t, upEnv(t, "REDIS_URL=redis://:wrong@"+address))
	wantFault(t, "another password", status, said, "REDIS_URL: it doesn't answer a PING", "start it")
	status, said = doctor(t, upEnv(t, "REDIS_URL=redis://:right@"+address))
	wantHealthy(t, "the right password", status, said, "ok   REDIS_URL: it answers")
}

func TestDoctorLooksAtPortsAndThePublicURL(t *testing.T) {
	t.Parallel()
	status, said := doctor(t, upEnv(t))
	wantHealthy(t, "everything right", status, said, "is free", "ok   GATEHOUSE_PUBLIC_URL", "ok   mail: each mail becomes a file")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	other := &http.Server{Handler: http.NotFoundHandler()}
	go func() { _ = other.Serve(listener) }()
	t.Cleanup(func() { _ = other.Close() })
	for _, setting := range []string{"GATEHOUSE_LISTEN", "GATEHOUSE_OPS_LISTEN"} {
		status, said = doctor(t, upEnv(t, setting+"="+listener.Addr().String()))
		wantFault(t, "a port that is taken", status, said, setting+": "+listener.Addr().String()+" is used by another program", "stop what listens there")
	}
	status, said = doctor(t, upEnv(t, "GATEHOUSE_LISTEN=192.0.2.1:8001"))
	wantFault(t, "an address that isn't ours", status, said, "GATEHOUSE_LISTEN: 192.0.2.1:8001 can't be listened on", "correct the address")
	status, said = doctor(t, upEnv(t, "GATEHOUSE_PUBLIC_URL=http://gatehouse.example"))
	wantFault(t, "plain http", status, said, "GATEHOUSE_PUBLIC_URL: http://gatehouse.example is plain http", "put a proxy that speaks TLS in front")
	status, said = doctor(t, upEnv(t, "GATEHOUSE_PUBLIC_URL=https://nowhere.invalid"))
	wantFault(t, "no such host", status, said, "GATEHOUSE_PUBLIC_URL: there is no host nowhere.invalid", "correct the URL")
}

func TestDoctorLooksAtTheAgeOfTheSigningKey(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.OneProcess)
	env := slices.Clone(s.Roles["up"].Env)
	env = append(env, "GATEHOUSE_LISTEN="+s.Roles["up"].Listen)
	if _, said := doctor(t, env); !strings.Contains(said, "ok   signing keys: the current one has signed for") || !strings.Contains(said, "Gatehouse listens on "+s.Roles["up"].Listen) {
		t.Errorf("of a fresh key the doctor says\n%s", said)
	}
	if _, err := s.Owner.Exec(t.Context(), "UPDATE auth.signing_keys SET sign_time = sign_time - interval '40 days', create_time = create_time - interval '40 days'"); err != nil {
		t.Fatal(err)
	}
	if _, said := doctor(t, env); !strings.Contains(said, "BAD  signing keys: the current one has signed for 40 days, and GATEHOUSE_KEY_LIFE is 30 days") {
		t.Errorf("of an old key the doctor says\n%s", said)
	}
}

func TestDoctorLooksAtTheAgeOfTheAuditLogsTable(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.OneProcess)
	env := append(slices.Clone(s.Roles["up"].Env), "GATEHOUSE_LISTEN="+s.Roles["up"].Listen)
	if _, said := doctor(t, env); !strings.Contains(said, "ok   audit log: the open table has held events for ") || !strings.Contains(said, "; 0 earlier months are closed") {
		t.Errorf("of a fresh log the doctor says\n%s", said)
	}
	if _, err := s.Owner.Exec(t.Context(), "INSERT INTO auth.audit_events (id, create_time, event, outcome) VALUES ('00000000-0000-7000-8000-000000000000', now() - interval '40 days', 'session.login', 'old')"); err != nil {
		t.Fatal(err)
	}
	if _, said := doctor(t, env); !strings.Contains(said, "BAD  audit log: the open table has held events for 40 days, and is closed every month") {
		t.Errorf("of a log that is not closed the doctor says\n%s", said)
	}
}

// Whatever keeps a role from starting, with exit status 2, the doctor of that
// role finds as well.
func TestDoctorFindsEveryMistakeThatARoleWouldStopFor(t *testing.T) {
	t.Parallel()
	for role, mistakes := range map[string][]string{
		harness.RoleAuth: {
			"GATEHOUSE_LISTEN=8002", "GATEHOUSE_DRAIN=-1s", "GATEHOUSE_STOP_LIMIT=1ms", "GATEHOUSE_THROTTLE=maybe", "GATEHOUSE_OPS_LISTEN=9001",
			"GATEHOUSE_SESSION_IDLE=soon", "SMTP_URL=x", "AUTH_DATABASE_URL=mysql://x", "GATEHOUSE_KEY_LIFE=1m", "GATEHOUSE_PUBLIC_URL=x", "GATEHOUSE_ORIGNS=x",
		},
		harness.RoleUsers: {"GATEHOUSE_LISTEN=8003", "GATEHOUSE_DRAIN=-1s", "GATEHOUSE_STOP_LIMIT=1ms", "USERS_DATABASE_URL=mysql://x", "GATEHOUSE_INTERNAL_KEY=short"},
		harness.RoleBff: {
			"GATEHOUSE_LISTEN=8001", "GATEHOUSE_DRAIN=-1s", "GATEHOUSE_STOP_LIMIT=1ms", "GATEHOUSE_THROTTLE=maybe", "GATEHOUSE_COOKIES=maybe",
			"GATEHOUSE_TRUSTED_PROXIES=x", "AUTH_URL=x", "REDIS_URL=http://x",
		},
	} {
		status, _ := harness.RunCommand(t, mistakes, role)
		_, said := doctor(t, mistakes, role)
		if status != harness.ExitUsage {
			t.Errorf("%s: exit status %d, want 2", role, status)
		}
		for _, mistake := range mistakes {
			name, _, _ := strings.Cut(mistake, "=")
			if !strings.Contains(said, "BAD  "+name+": ") {
				t.Errorf("doctor %s doesn't find %s:\n%s", role, mistake, said)
			}
		}
	}
}
