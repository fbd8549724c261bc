package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"github.com/jackc/pgx/v5"

	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
)

// from makes calls come from an address and a browser, through a proxy.
type from struct {
	address, userAgent string
}

func (f from) RoundTrip(request *http.Request) (*http.Response, error) {
	request = request.Clone(request.Context())
	request.Header.Set("X-Forwarded-For", f.address)
	request.Header.Set("User-Agent", f.userAgent)
	return harness.H2C.Transport.RoundTrip(request)
}

// everyRow is every row of the schemas of all services, as text, by table.
func everyRow(t *testing.T, s *harness.System) map[string][]string {
	t.Helper()
	rows, err := s.Owner.Query(t.Context(), "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname = ANY ($1)", schemasOfServices())
	if err != nil {
		t.Fatal(err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(tables) < 12 {
		t.Fatalf("the tables are %q (%v)", tables, err)
	}
	all := map[string][]string{}
	for _, table := range tables {
		rows, err := s.Owner.Query(t.Context(), "SELECT r::text FROM "+table+" r")
		if err != nil {
			t.Fatal(err)
		}
		if all[table], err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// Once a person is erased, no row tells of them but by the account's id, in the
// audit, the tombstone and, for some minutes, the revocations and changes.
func TestWhoDeletesTheirAccountIsErasedFromEveryTable(t *testing.T) {
	t.Parallel()
	for _, shape := range harness.Shapes {
		t.Run(string(shape), func(t *testing.T) {
			t.Parallel()
			s := harness.Start(t, shape, harness.WithSettings("GATEHOUSE_TRUSTED_PROXIES=127.0.0.1"))
			over := &http.Client{Transport: from{"203.0.113.77", "Quasar/9.1"}}
			anybody := s.ClientOver(over, "")
			made, err := anybody.Auth.Register(t.Context(), &bffv1.RegisterRequest{
				Email: "Wilhelmina@Murray.example", Password: harness.Password, FirstName: "Wilhelmina", LastName: "Harker",
			})
			if err != nil {
				t.Fatalf("Register: %v", err)
			}
			id := made.GetSignedIn().GetUser().GetId()
			tokens := []*bffv1.Tokens{made.GetSignedIn().GetTokens()}
			if _, err := anybody.Auth.Login(t.Context(), &bffv1.LoginRequest{Email: "wilhelmina@murray.example", Password: "wrong"}); err == nil {
				t.Error("a wrong password was accepted")
			}
			login, err := anybody.Auth.Login(t.Context(), &bffv1.LoginRequest{Email: "wilhelmina@murray.example", Password: harness.Password})
			if err != nil {
				t.Fatalf("Login: %v", err)
			}
			tokens = append(tokens, login.GetSignedIn().GetTokens())
			next, err := anybody.Auth.Refresh(t.Context(), &bffv1.RefreshRequest{RefreshToken: tokens[0].GetRefreshToken()})
			if err != nil {
				t.Fatalf("Refresh: %v", err)
			}
			tokens = append(tokens, next.GetTokens())
			admin := s.Admin(t).Client()
			if _, err := admin.Users.ChangeUserEmail(t.Context(), &bffv1.ChangeUserEmailRequest{UserId: id, Email: "mina@harker.example"}); err != nil {
				t.Fatalf("ChangeUserEmail: %v", err)
			}
			me := s.ClientOver(over, tokens[2].GetAccessToken())
			if _, err := me.Account.UpdateMe(t.Context(), &bffv1.UpdateMeRequest{User: &bffv1.User{Locale: "cy-GB"}}); err != nil {
				t.Fatalf("UpdateMe: %v", err)
			}
			traces := []string{"wilhelmina", "murray", "harker", "cy-gb", "203.0.113.77", "quasar", login.GetSignedIn().GetDeviceToken()}
			for _, given := range tokens {
				hash := hex.EncodeToString(sha256Of(given.GetRefreshToken()))
				traces = append(traces, given.GetAccessToken(), given.GetRefreshToken(), hash)
			}
			found := func(trace string) []string { return rowsWith(t, s, trace) }
			for _, trace := range []string{"wilhelmina", "harker", "cy-gb", "203.0.113.77", "quasar", hex.EncodeToString(sha256Of(tokens[2].GetRefreshToken()))} {
				if len(found(trace)) == 0 {
					t.Fatalf("%q stands nowhere before: there would be nothing to erase", trace)
				}
			}
			wantExported(t, me, id)
			fillTablesOfPeople(t, s, id)
			if _, err := me.Account.DeleteMe(t.Context(), &bffv1.DeleteMeRequest{}); err != nil {
				t.Fatalf("DeleteMe: %v", err)
			}
			untilRelayed(t, s)
			untilErased(t, s, id)
			for _, trace := range traces {
				if where := found(trace); len(where) > 0 {
					t.Errorf("%q still stands in %q", trace, where)
				}
			}
			wantIDOnlyWhereNeeded(t, s, id)
			if n := s.Count(t, "SELECT count(*) FROM auth.audit_events WHERE account_id = $1 AND event = 'account.delete'", id); n != 1 {
				t.Errorf("the deletion is %d times in the audit, want once", n)
			}
			_, err = anybody.Auth.Refresh(t.Context(), &bffv1.RefreshRequest{RefreshToken: tokens[2].GetRefreshToken()})
			harness.WantReason(t, err, connect.CodeUnauthenticated, "SESSION_ENDED")
		})
	}
}

// wantExported checks the export of the account before its deletion.
func wantExported(t *testing.T, me harness.Client, id string) {
	t.Helper()
	export, err := me.Account.ExportMe(t.Context(), &bffv1.ExportMeRequest{})
	if err != nil {
		t.Fatalf("ExportMe: %v", err)
	}
	text := export.String()
	for _, held := range []string{"mina@harker.example", "Wilhelmina", "Harker", "cy-GB", "203.0.113.77", "Quasar/9.1", "account.create", "session.login", "account.email.change"} {
		if !strings.Contains(text, held) {
			t.Errorf("the export doesn't hold %q: %s", held, text)
		}
	}
	for _, event := range export.GetAuditEvents() {
		if event.GetEvent() == "account.email.change" && (event.GetActorId() == "" || event.GetActorId() == id || event.GetIpAddress() != "" || event.GetRequestId() != "" || event.GetSessionId() != "") {
			t.Errorf("the export tells from where an administrator came, or not that it was one: %v", event)
		}
	}
}

// wantIDOnlyWhereNeeded checks which tables still hold the id.
func wantIDOnlyWhereNeeded(t *testing.T, s *harness.System, id string) {
	t.Helper()
	for _, row := range rowsAgainstErasure(t, s, id) {
		t.Errorf("the id still stands in %s", row)
	}
}

// rowsWith returns the rows of all tables that hold a text.
func rowsWith(t *testing.T, s *harness.System, trace string) (where []string) {
	t.Helper()
	for table, rows := range everyRow(t, s) {
		for _, row := range rows {
			if trace != "" && strings.Contains(strings.ToLower(row), strings.ToLower(trace)) {
				where = append(where, table+" "+row)
			}
		}
	}
	return where
}

// untilRelayed waits until users has received every change of an account.
func untilRelayed(t *testing.T, s *harness.System) {
	t.Helper()
	s.UntilRead(t, harness.RoleUsers)
}

func sha256Of(text string) []byte {
	sum := sha256.Sum256([]byte(text))
	return sum[:]
}
