package operate

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/pgtest"
	"gatehouse/internal/provider/providertest"
)

// family is a metric as it is scraped.
type family struct {
	kind, help string
	labels     map[string]bool
	roles      map[string]bool
}

var (
	sampleLine = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? \S+$`)
	labelName  = regexp.MustCompile(`([a-zA-Z_][a-zA-Z0-9_]*)="`)
)

// scrape adds to families what a role shows.
func scrape(t *testing.T, role, url string, families map[string]*family) string {
	t.Helper()
	status, text := harness.Get(t, url+"/metrics")
	if status != http.StatusOK {
		t.Fatalf("scrape %s: %d %s", role, status, text)
	}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		fields := strings.SplitN(line, " ", 4)
		switch {
		case strings.HasPrefix(line, "# HELP "):
			if families[fields[2]] == nil {
				families[fields[2]] = &family{labels: map[string]bool{}, roles: map[string]bool{}}
			}
			families[fields[2]].help = fields[3]
			families[fields[2]].roles[role] = true
		case strings.HasPrefix(line, "# TYPE "):
			families[fields[2]].kind = fields[3]
		default:
			sample := sampleLine.FindStringSubmatch(line)
			if sample == nil {
				t.Fatalf("scrape %s: no sample: %q", role, line)
			}
			of := families[sample[1]]
			if of == nil {
				of = families[regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(sample[1], "")]
			}
			if of == nil {
				t.Fatalf("scrape %s: %q belongs to no metric", role, line)
			}
			for _, label := range labelName.FindAllStringSubmatch(sample[2], -1) {
				if label[1] != "le" {
					of.labels[label[1]] = true
				}
			}
		}
	}
	return text
}

func names(set map[string]bool) string {
	return strings.Join(slices.Sorted(maps.Keys(set)), ", ")
}

// row is how docs/reference/metrics.md has a metric.
func (f *family) row(name string) string {
	labels := "`" + strings.ReplaceAll(names(f.labels), ", ", "`, `") + "`"
	if len(f.labels) == 0 {
		labels = ""
	}
	return fmt.Sprintf("| `%s` | %s | %s | %s | %s |", name, f.kind, labels, names(f.roles), f.help)
}

// The system is driven through what its metrics are about, in three processes,
// and what these then show is held against the documentation, both ways.
func TestEveryMetricIsDocumentedAndIsThere(t *testing.T) {
	t.Parallel()
	provider := providertest.New(t)
	database := pgtest.New(t)
	// It is no standby, which the metrics of one show too.
	standbys := harness.WithSettings("AUTH_READ_DATABASE_URL="+database.Auth, "USERS_READ_DATABASE_URL="+database.Users)
	s := harness.Start(t, harness.ThreeProcesses, harness.WithOps(), harness.OnDatabase(database), standbys, withProvider(t, provider))
	at := s.Ops()
	driveForMetrics(t, s)
	answerOfProvider(t, s, provider)
	s.UntilRead(t, harness.RoleUsers)

	families := map[string]*family{}
	var all strings.Builder
	for role, url := range at {
		all.WriteString(scrape(t, role, url, families))
	}
	s.Processes[harness.RoleUsers].Kill()
	if _, err := s.Client("").Auth.Login(t.Context(), &bffv1.LoginRequest{Email: "ada@example.com", Password: harness.Password}); err != nil {
		t.Errorf("Login without users: %v", err)
	}
	all.WriteString(scrape(t, harness.RoleBff, at[harness.RoleBff], families))

	text, err := os.ReadFile("docs/reference/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	table, _, _ := strings.Cut(string(text), "\n## ")
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|.*$").FindAllStringSubmatch(table, -1) {
		documented[row[1]] = row[0]
	}
	if len(documented) < 25 {
		t.Errorf("docs/reference/metrics.md has %d metrics only", len(documented))
	}
	for _, name := range slices.Sorted(maps.Keys(families)) {
		if strings.HasPrefix(name, "go_") || strings.HasPrefix(name, "process_") {
			continue // Prometheus' own, named as a whole
		}
		if want := families[name].row(name); documented[name] != want {
			t.Errorf("docs/reference/metrics.md has\n%s\nwant\n%s", documented[name], want)
		}
	}
	for name := range documented {
		if families[name] == nil {
			t.Errorf("docs/reference/metrics.md has %s, which nothing shows", name)
		}
	}
	for _, want := range []string{
		`gatehouse_auth_events_total{event="session.login",outcome="refused",reason="` + loginReason(all.String()) + `"} 2`,
		`gatehouse_bff_parts_missing_total{code="unavailable",part="profile"} 1`,
		`gatehouse_bff_token_verifications_total{remembered="false",result="invalid"} 1`,
		`gatehouse_bff_feed_mode{mode="stream"} 1`,
		`gatehouse_users_relay_heard_total{deleted="false",news="true"} 2`,
		`gatehouse_auth_feed_watchers 1`,
	} {
		if !strings.Contains(all.String(), want+"\n") {
			t.Errorf("no scrape shows %s", want)
		}
	}
	for _, chosen := range []string{"hostile", "ada@example.com", "mozilla", "lovelace", "correct horse", "made up"} {
		if strings.Contains(strings.ToLower(all.String()), chosen) {
			t.Errorf("the metrics hold %q, which a caller chose", chosen)
		}
	}
	if series := strings.Count(all.String(), `rpc_server_call_duration_seconds_count{error_type="UNIMPLEMENTED",rpc_method="_OTHER"`); series != 2 {
		t.Errorf("unknown methods have %d series in two scrapes of the gateway, want one in each", series)
	}
}

// loginReason is the reason that the audit has of a wrong password.
func loginReason(text string) string {
	found := regexp.MustCompile(`gatehouse_auth_events_total\{event="session.login",outcome="refused",reason="([A-Z_]*)"`).FindStringSubmatch(text)
	if found == nil {
		return "none was counted"
	}
	return found[1]
}

// driveForMetrics does what metrics are about, some of it as somebody hostile
// would.
func driveForMetrics(t *testing.T, s *harness.System) {
	t.Helper()
	ada := s.SignUp(t, "ada@example.com").Client()
	if _, err := ada.Account.GetMe(t.Context(), &bffv1.GetMeRequest{}); err != nil {
		t.Fatalf("GetMe: %v", err)
	}
	for range 2 {
		if _, err := s.Client("").Auth.Login(t.Context(), &bffv1.LoginRequest{Email: "ada@example.com", Password: "made up word"}); err == nil {
			t.Fatal("a wrong password signs in")
		}
	}
	begun, err := ada.Account.BeginTOTPEnrolment(t.Context(), &bffv1.BeginTOTPEnrolmentRequest{})
	if err != nil {
		t.Fatalf("BeginTOTPEnrolment: %v", err)
	}
	if _, err := ada.Account.FinishTOTPEnrolment(t.Context(), &bffv1.FinishTOTPEnrolmentRequest{EnrolmentToken: begun.GetEnrolmentToken(), Code: "0"}); err == nil {
		t.Fatal("a wrong code enrols an app")
	}
	for i := range 20 {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, fmt.Sprintf("%s/bff.v1.AuthService/Hostile%d", s.URL, i), strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("X-Request-Id", fmt.Sprintf("hostile-%d", i))
		request.Header.Set("User-Agent", fmt.Sprintf("Mozilla hostile %d", i))
		if status, _, body := harness.Do(t, request); status < 400 {
			t.Fatalf("a method that isn't there: %d %s", status, body)
		}
	}
	if status, _, _ := s.Post(t, "/bff.v1.AccountService/GetMe", "hostile", "{}"); status != http.StatusUnauthorized {
		t.Fatalf("a token that is none: %d", status)
	}
}

func TestOperatorsHaveAListenerOfTheirOwn(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.OneProcess)
	for _, path := range []string{"/metrics", "/debug/pprof/", "/debug/pprof/heap"} {
		if status, _ := harness.Get(t, s.URL+path); status != http.StatusNotFound {
			t.Errorf("%s without operations: %d, want 404", path, status)
		}
	}
	address := harness.FreeAddress(t)
	at := "http://" + address
	s.Restart(t, harness.RoleUp, "GATEHOUSE_OPS_LISTEN="+address)
	for _, path := range []string{"/metrics", "/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/cmdline", "/livez", "/readyz", "/debug/pprof/profile?seconds=1"} {
		if status, body := harness.Get(t, at+path); status != http.StatusOK || body == "" {
			t.Errorf("%s for operators: %d with %d bytes, want 200", path, status, len(body))
		}
	}
	for _, path := range []string{"/metrics", "/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/profile"} {
		if status, _ := harness.Get(t, s.URL+path); status != http.StatusNotFound {
			t.Errorf("%s for the public: %d, want 404", path, status)
		}
	}
	if status, _, _ := (&harness.System{URL: at}).Post(t, "/bff.v1.AuthService/Login", "", `{"email":"a@example.com","password":"x"}`); status != http.StatusNotFound {
		t.Errorf("a public method where operators look: %d, want 404", status)
	}

	taken := harness.StartProcess(t, append(s.Roles["up"].Env, "GATEHOUSE_LISTEN="+harness.FreeAddress(t), "GATEHOUSE_OPS_LISTEN="+strings.TrimPrefix(at, "http://")), "up")
	taken.Wait(t)
	if said := taken.Stderr.String(); taken.Cmd.ProcessState.ExitCode() != 1 || !strings.Contains(said, "set GATEHOUSE_OPS_LISTEN to another address") {
		t.Errorf("an address that is taken: exit status %d and\n%s", taken.Cmd.ProcessState.ExitCode(), said)
	}
}

// readiness is what /readyz tells operators.
type readiness struct {
	Ready         bool
	Role, Version string
	Parts         []partState
}

type partState struct {
	Part          string
	Ready, Needed bool
	Reason        string
}

func readinessAt(t testing.TB, url string) (int, readiness) {
	t.Helper()
	status, body := harness.Get(t, url+"/readyz")
	var now readiness
	if err := json.Unmarshal([]byte(body), &now); err != nil {
		t.Fatalf("readiness: %d %s: %v", status, body, err)
	}
	return status, now
}

func (r readiness) part(name string) partState {
	for _, state := range r.Parts {
		if state.Part == name {
			return state
		}
	}
	return partState{Part: name + " is missing"}
}

func TestReadinessTellsOperatorsWhichPartAndWhy(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.ThreeProcesses, harness.WithOps())
	at := s.Ops()
	status, now := readinessAt(t, at[harness.RoleBff])
	if status != http.StatusOK || !now.Ready || len(now.Parts) != len(harness.Roles()) || !now.part(harness.RoleAuth).Ready || !now.part(harness.RoleUsers).Ready || now.Role != harness.RoleBff {
		t.Errorf("with everything there: %d %+v", status, now)
	}

	s.Processes[harness.RoleUsers].Kill()
	status, now = readinessAt(t, at[harness.RoleBff])
	users := now.part(harness.RoleUsers)
	if status != http.StatusOK || !now.Ready || users.Ready || users.Needed || users.Reason == "" || !now.part(harness.RoleAuth).Ready {
		t.Errorf("the gateway without users: %d %+v, want it ready, and users not, with a reason", status, now)
	}
	if status, now = readinessAt(t, at[harness.RoleAuth]); status != http.StatusOK || now.part(harness.RoleUsers).Ready || !now.part("database of auth").Ready {
		t.Errorf("auth without users: %d %+v, want it ready, and users not", status, now)
	}

	if _, err := s.Owner.Exec(t.Context(), "UPDATE auth.applied_schema SET number = 1"); err != nil {
		t.Fatal(err)
	}
	status, now = readinessAt(t, at[harness.RoleAuth])
	database := now.part("database of auth")
	if status != http.StatusServiceUnavailable || now.Ready || database.Ready || !database.Needed || !strings.Contains(database.Reason, "gatehouse schema apply") {
		t.Errorf("auth with an old schema: %d %+v, want it not ready, and what to do", status, now)
	}
	if status, now = readinessAt(t, at[harness.RoleBff]); status != http.StatusOK || now.part(harness.RoleAuth).Ready {
		t.Errorf("the gateway with such an auth: %d %+v, want it ready, and auth not", status, now)
	}
}

// A database that gives no answer costs a scrape at most a second, and the
// metrics that need it alone.
func TestAScrapeGoesOnWithoutTheDatabase(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.OneProcess, harness.WithOps())
	at := s.Ops()[harness.RoleUp]
	s.SignUp(t, "ada@example.com") // a call to tell of
	lock, err := s.Owner.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lock.Rollback(context.WithoutCancel(t.Context())) }()
	if _, err := lock.Exec(t.Context(), "LOCK TABLE auth.mails IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	families := map[string]*family{}
	scrape(t, "up", at, families)
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("a scrape took %s", took)
	}
	if families["gatehouse_auth_mails"] != nil || families["gatehouse_auth_relay_backlog"] != nil {
		t.Error("what the database would have to tell is shown without it")
	}
	for _, name := range []string{"gatehouse_bff_feed_age_seconds", "gatehouse_database_connections", "rpc_server_call_duration_seconds", "go_goroutines"} {
		if families[name] == nil {
			t.Errorf("%s is gone with the database", name)
		}
	}
	if err := lock.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, 30*time.Second, "the backlog's metrics", func() error {
		clear(families)
		scrape(t, "up", at, families)
		if families["gatehouse_auth_mails"] == nil {
			return fmt.Errorf("they are not back")
		}
		return nil
	})
}

func TestTheBacklogIsMeasured(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.ThreeProcesses, harness.WithOps())
	at := s.Ops()
	s.Processes[harness.RoleUsers].Kill()
	s.SignUp(t, "ada@example.com")
	for _, change := range []string{
		"UPDATE auth.account_log SET change_time = now() - interval '1 hour'",
		"UPDATE auth.signing_keys SET sign_time = now() - interval '2 hours'",
		`INSERT INTO auth.mails (id, kind, recipient, next_attempt_time, create_time, fail_time) VALUES
			(gen_random_uuid(), 'reset_password', 'ada@example.com', now() + interval '1 day', now() - interval '3 hours', NULL),
			(gen_random_uuid(), 'reset_password', 'ada@example.com', now(), now() - interval '9 hours', now()),
			(gen_random_uuid(), 'reset_password', 'ada@example.com', now(), now() - interval '9 hours', now())`,
		`INSERT INTO auth.audit_events (id, create_time, event, outcome) VALUES ('00000000-0000-7000-8000-000000000000', now() - interval '4 hours', 'session.login', 'old')`,
	} {
		if _, err := s.Owner.Exec(t.Context(), change); err != nil {
			t.Fatalf("%s: %v", change, err)
		}
	}
	want := map[string][2]float64{ // least and most
		`gatehouse_auth_lifecycle_lag_seconds{service="users"}`: {3600, 3900},
		`gatehouse_auth_mails{state="pending"}`:                 {1, 1},
		`gatehouse_auth_mails{state="failed"}`:                  {2, 2},
		"gatehouse_auth_mails_oldest_seconds":                   {10800, 11100},
		"gatehouse_auth_audit_open_age_seconds":                 {14400, 14700},
		"gatehouse_auth_audit_closed_tables":                    {0, 0},
		"gatehouse_auth_signing_key_age_seconds":                {7200, 7500},
		"gatehouse_auth_signing_key_next_seconds":               {30*24*3600 - 7500, 30*24*3600 - 7200},
	}
	harness.Eventually(t, 30*time.Second, "the backlog", func() error {
		text := scrape(t, harness.RoleAuth, at[harness.RoleAuth], map[string]*family{})
		for name, between := range want {
			var got float64
			found := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` (\S+)$`).FindStringSubmatch(text)
			if found == nil {
				return fmt.Errorf("%s isn't there", name)
			}
			if _, err := fmt.Sscan(found[1], &got); err != nil || got < between[0] || got > between[1] {
				return fmt.Errorf("%s is %s, want %v", name, found[1], between)
			}
		}
		return nil
	})
}

func TestOperatorsCantBeWhereCallersAre(t *testing.T) {
	t.Parallel()
	address := harness.FreeAddress(t)
	p := harness.StartProcess(t, []string{
		"USERS_DATABASE_URL=postgres://u@127.0.0.1:1/d", "GATEHOUSE_INTERNAL_KEY=" + harness.InternalKey,
		"GATEHOUSE_LISTEN=" + address, "GATEHOUSE_OPS_LISTEN=" + address,
	}, harness.RoleUsers)
	p.Wait(t)
	if said := p.Stderr.String(); p.Cmd.ProcessState.ExitCode() != harness.ExitUsage || !strings.Contains(said, "GATEHOUSE_OPS_LISTEN: ") {
		t.Errorf("exit status %d and\n%s\nwant %d and GATEHOUSE_OPS_LISTEN", p.Cmd.ProcessState.ExitCode(), said, harness.ExitUsage)
	}
}
