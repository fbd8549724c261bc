package auth_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/timestamppb"

	"gatehouse/auth"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/pgtest"
)

// happened is an event of the audit, as a test writes it.
type happened struct {
	id             uuid.UUID
	at             time.Time
	event, outcome string
	account, actor string
}

// idAt makes a UUIDv7 of a time.
func idAt(at time.Time) uuid.UUID {
	id, ms := uuid.New(), at.UnixMilli()
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i))
	}
	id[6] = 0x70 | id[6]&0x0f
	return id
}

func (h *harness) happen(t *testing.T, events []happened) {
	t.Helper()
	rows := make([][]any, len(events))
	null := func(text string) any {
		if text == "" {
			return nil
		}
		return uuid.MustParse(text)
	}
	for i, e := range events {
		rows[i] = []any{e.id, e.at, e.event, e.outcome, null(e.account), null(e.actor), "192.0.2.1"}
	}
	_, err := h.owner.CopyFrom(t.Context(), pgx.Identifier{"auth", "audit_events"},
		[]string{"id", "create_time", "event", "outcome", "account_id", "actor_id", "ip_address"}, pgx.CopyFromRows(rows))
	if err != nil {
		t.Fatalf("write the audit: %v", err)
	}
}

// walk collects the ids of every page.
func (h *harness) walk(t *testing.T, req *authv1.ListAuditEventsRequest) []string {
	t.Helper()
	var ids []string
	for {
		page, err := h.audit.ListAuditEvents(t.Context(), req)
		if err != nil {
			t.Fatalf("ListAuditEvents %v: %v", req, err)
		}
		for _, event := range page.GetEvents() {
			ids = append(ids, event.GetId())
		}
		if req.PageToken = page.GetNextPageToken(); req.GetPageToken() == "" {
			return ids
		}
		if len(page.GetEvents()) != int(req.GetPageSize()) {
			t.Fatalf("a page of %d that isn't the last, want %d", len(page.GetEvents()), req.GetPageSize())
		}
	}
}

func TestTheAuditIsListedByEveryCombinationOfFilters(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	people := []string{"", newID(t), newID(t), newID(t)}
	kinds := []string{"session.login", "session.logout", "session", "account.create", "sessions.odd"}
	outcomes := []string{"succeeded", "refused"}
	begin := time.Now().Add(-time.Hour).Truncate(time.Millisecond)
	var events []happened
	for i := range 600 {
		at := begin.Add(time.Duration(i/3) * time.Second) // some at once
		events = append(events, happened{
			idAt(at), at, kinds[rand.IntN(len(kinds))], outcomes[rand.IntN(2)], people[rand.IntN(4)], people[rand.IntN(4)],
		})
	}
	h.happen(t, events)
	slices.SortFunc(events, func(a, b happened) int { return strings.Compare(b.id.String(), a.id.String()) })
	matches := map[string]func(string) bool{
		"": func(string) bool { return true }, "session.login": func(e string) bool { return e == "session.login" },
		"session.": func(e string) bool { return strings.HasPrefix(e, "session.") }, "nothing": func(string) bool { return false },
		"session": func(e string) bool { return e == "session" },
	}
	from, to := begin.Add(50*time.Second), begin.Add(120*time.Second+300*time.Microsecond)
	queries := 0
	for _, account := range []string{"", people[1], newID(t)} {
		for _, actor := range []string{"", people[1], people[2]} {
			for event, matches := range matches {
				for _, outcome := range []string{"", "refused"} {
					for _, bounded := range []bool{false, true} {
						req := &authv1.ListAuditEventsRequest{AccountId: account, ActorId: actor, Event: event, Outcome: outcome, PageSize: 7}
						if bounded {
							req.StartTime, req.EndTime = timestamppb.New(from), timestamppb.New(to)
						}
						var want []string
						for _, e := range events {
							if (account == "" || e.account == account) && (actor == "" || e.actor == actor) && matches(e.event) &&
								(outcome == "" || e.outcome == outcome) && (!bounded || !e.at.Before(from) && e.at.Before(to)) {
								want = append(want, e.id.String())
							}
						}
						asked := proto.CloneOf(req)
						if got := h.walk(t, req); !slices.Equal(got, want) {
							t.Errorf("%v: got %d events, want %d:\n%v\n%v", asked, len(got), len(want), got, want)
						}
						queries++
					}
				}
			}
		}
	}
	if queries != 180 {
		t.Errorf("%d queries were tried, want 180", queries)
	}
}

func TestAnAuditPageTokenIsGoodForItsQueryAlone(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	account := newID(t)
	var events []happened
	for i := range 10 {
		at := time.Now().Add(-time.Duration(i) * time.Minute)
		events = append(events, happened{idAt(at), at, "session.login", "succeeded", account, account})
	}
	h.happen(t, events)
	first := &authv1.ListAuditEventsRequest{AccountId: account, PageSize: 3}
	page, err := h.audit.ListAuditEvents(t.Context(), first)
	if err != nil || page.GetNextPageToken() == "" {
		t.Fatalf("ListAuditEvents: %v, %v", page, err)
	}
	token := page.GetNextPageToken()
	for name, req := range map[string]*authv1.ListAuditEventsRequest{
		"another account": {AccountId: newID(t), PageToken: token},
		"no account":      {PageToken: token},
		"an actor":        {AccountId: account, ActorId: account, PageToken: token},
		"an event":        {AccountId: account, Event: "session.", PageToken: token},
		"an outcome":      {AccountId: account, Outcome: "refused", PageToken: token},
		"a start":         {AccountId: account, StartTime: timestamppb.Now(), PageToken: token},
		"an end":          {AccountId: account, EndTime: timestamppb.Now(), PageToken: token},
		"damaged":         {AccountId: account, PageToken: token[:len(token)-2] + "AA"},
		"cut":             {AccountId: account, PageToken: token[:10]},
		"none of ours":    {AccountId: account, PageToken: "§"},
	} {
		_, err := h.audit.ListAuditEvents(t.Context(), req)
		if connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("%s: got %v, want invalid_argument", name, err)
		}
		wantReason(t, err, connect.CodeInvalidArgument, "PAGE_TOKEN_INVALID")
	}
	next, err := h.audit.ListAuditEvents(t.Context(), &authv1.ListAuditEventsRequest{AccountId: account, PageSize: 5, PageToken: token})
	if err != nil || len(next.GetEvents()) != 5 || next.GetEvents()[0].GetId() != events[3].id.String() {
		t.Errorf("its own query: %v, %v; want five events from the fourth on", next, err)
	}
	_, err = h.audit.ListAuditEvents(t.Context(), &authv1.ListAuditEventsRequest{Event: "no event\x00"})
	wantReason(t, err, connect.CodeInvalidArgument, "INVALID_ARGUMENT")
}

// eventsUnderAttack returns 200,000 events, one each second from begin. Half of them are
// refused sign-ins of the attacked account; the others are of 1000 people.
func eventsUnderAttack(begin time.Time, attacked, admin string, people []string) []happened {
	var events []happened
	for i := range 200_000 {
		at := begin.Add(time.Duration(i) * time.Second)
		e := happened{idAt(at), at, "session.login", "refused", attacked, ""}
		switch person := people[i/2%1000]; {
		case i%2 == 0:
		case i%5 == 1:
			e.event, e.outcome, e.account, e.actor = "account.disable", "succeeded", person, admin
		case i%5 == 3:
			e.event, e.outcome, e.account = "session.login", "succeeded", person
		case i%20_000 == 7:
			e.event, e.outcome, e.account, e.actor = "account.email.change", "succeeded", attacked, admin
		default:
			e.event, e.outcome, e.account, e.actor = fmt.Sprintf("session.kind.%c", 'a'+i/2%12), "succeeded", person, person
		}
		events = append(events, e)
	}
	return events
}

// With 200,000 events, half of them refused sign-ins of one account, no query scans the
// whole table or reads more than 600 blocks. The limit allows about a dozen blocks for
// each of 18 kinds of events and a page of 25.
func TestEveryAuditQueryIsServedByAnIndex(t *testing.T) {
	t.Parallel()
	database := pgtest.New(t)
	pool, err := pgxpool.ParseConfig(database.Auth)
	if err != nil {
		t.Fatal(err)
	}
	statements := &pgtest.Recorder{}
	pool.ConnConfig.Tracer = statements
	db, err := pgxpool.NewWithConfig(t.Context(), pool)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	h := newHarness(t, func(c *auth.Config) { c.DB = db })
	h.owner = openPool(t, database.Owner)
	attacked, admin := newID(t), newID(t)
	begin := time.Now().Add(-200_000 * time.Second)
	people := make([]string, 1000)
	for i := range people {
		people[i] = newID(t)
	}
	h.happen(t, eventsUnderAttack(begin, attacked, admin, people))
	h.exec(t, "VACUUM ANALYZE auth.audit_events")
	conn := pgtest.Connect(t, database.Owner)
	tried := 0
	for _, account := range []string{"", attacked, people[1], newID(t)} {
		for _, actor := range []string{"", admin, people[1], newID(t)} {
			for _, event := range []string{"", "session.", "account.email.change", "nothing"} {
				for _, outcome := range []string{"", "succeeded"} {
					for _, days := range []int{0, 1} {
						req := &authv1.ListAuditEventsRequest{AccountId: account, ActorId: actor, Event: event, Outcome: outcome}
						if days > 0 {
							req.StartTime, req.EndTime = timestamppb.New(begin), timestamppb.New(begin.AddDate(0, 0, days))
						}
						statements.Forget()
						if _, err := h.audit.ListAuditEvents(t.Context(), req); err != nil {
							t.Fatalf("%v: %v", req, err)
						}
						for _, statement := range statements.All() {
							for _, plan := range pgtest.Explain(t, conn, statement) {
								tried++
								if plan.Reads("Seq Scan") || plan.Blocks() > 600 {
									t.Errorf("%v reads %d blocks by\n%s\n%s", req, plan.Blocks(), statement.SQL, plan)
								}
							}
						}
					}
				}
			}
		}
	}
	if tried != 512 {
		t.Errorf("%d plans were looked at, want 512", tried)
	}
}

// The secrets contain words that occur nowhere else in the tests.
const (
	secretEmail    = "quetzalcoatl@xylophone.example"
	secretPassword = "zeppelin marmalade 77"
	secretToken    = "ghl_kaleidoscope-kaleidoscope-kaleidoscope-kaleidosco"
	secretName     = "Rumpelstiltskin"
)

// filled sets every string field of a request to a secret, except ids, client info and
// the fields of an audit query.
func filled(message protoreflect.Message, account, session string) {
	fields := message.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		name := string(field.Name())
		switch {
		case field.IsList() || field.IsMap():
		case field.Message() != nil && field.Message().FullName().Parent() == "auth.v1":
			filled(message.Mutable(field).Message(), account, session)
		case field.Kind() == protoreflect.EnumKind:
			message.Set(field, protoreflect.ValueOfEnum(2))
		case field.Kind() != protoreflect.StringKind:
		case name == "account_id" || name == "actor_id" || name == "mail_id":
			message.Set(field, protoreflect.ValueOfString(account))
		case strings.HasSuffix(name, "session_id"):
			message.Set(field, protoreflect.ValueOfString(session))
		case slices.Contains([]string{"ip_address", "user_agent", "locale", "event", "outcome", "page_token"}, name):
		case strings.Contains(name, "email"):
			message.Set(field, protoreflect.ValueOfString(secretEmail))
		case strings.Contains(name, "password"):
			message.Set(field, protoreflect.ValueOfString(secretPassword))
		case strings.Contains(name, "name"):
			message.Set(field, protoreflect.ValueOfString(secretName))
		default:
			message.Set(field, protoreflect.ValueOfString(secretToken))
		}
	}
}

// The test calls each method of each service with secrets in its string fields, for an
// account that exists and one that does not, and goes through the life of an account.
func TestTheAuditContainsNoSecrets(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	made, err := h.accounts.CreateAccount(t.Context(), &authv1.CreateAccountRequest{
		AccountId: newID(t), Email: secretEmail, Password: secretPassword, SignIn: true, Profile: &authv1.ProfileSeed{FirstName: secretName},
	})
	if err != nil {
		t.Fatal(err)
	}
	account, tokens := made.GetAccount().GetId(), []*authv1.Tokens{made.GetTokens()}
	h.signUp(t, "somebody@else.example")
	live := func() string {
		response, err := h.sessions.ListSessions(t.Context(), &authv1.ListSessionsRequest{AccountId: account})
		if err != nil || len(response.GetSessions()) == 0 {
			return newID(t)
		}
		return response.GetSessions()[0].GetId()
	}
	login := func(password string) string {
		response, err := h.login(t, secretEmail, password)
		if err == nil {
			tokens = append(tokens, response.GetTokens())
		}
		return response.GetTokens().GetRefreshToken()
	}
	login(secretPassword + " wrong")
	refresh := login(secretPassword)
	next := h.mustRefresh(t, refresh, "")
	tokens = append(tokens, next)
	h.exec(t, "UPDATE auth.sessions SET rotate_time = now() - interval '1 hour'")
	_, _ = h.refresh(t, refresh, "")                // a reuse
	_, _ = h.refresh(t, next.GetRefreshToken(), "") // of a session that has ended
	_, _ = h.sessions.Logout(t.Context(), &authv1.LogoutRequest{RefreshToken: login(secretPassword)})

	h.callEveryMethod(t, account, live)
	refresh = login(secretPassword)
	_, _ = h.accounts.DeleteAccount(t.Context(), &authv1.DeleteAccountRequest{AccountId: account, RequireRecentSignIn: true})
	if _, err := h.accounts.DeleteAccount(t.Context(), &authv1.DeleteAccountRequest{AccountId: account}); err != nil {
		t.Errorf("DeleteAccount: %v", err)
	}
	_, _ = h.refresh(t, refresh, "")

	secrets := []string{"quetzalcoatl", "xylophone", "zeppelin", "marmalade", "kaleidoscope", "rumpelstiltskin", "argon2id"}
	for _, given := range tokens {
		secrets = append(secrets, given.GetAccessToken(), given.GetRefreshToken())
	}
	texts := h.auditTexts(t)
	for _, text := range texts {
		for _, secret := range secrets {
			if strings.Contains(strings.ToLower(text), strings.ToLower(secret)) {
				t.Errorf("the audit contains %q: %s", secret, text)
			}
		}
	}
	for _, event := range []string{
		"account.create", "account.delete", "account.disable", "account.email.change", "session.login", "session.logout",
		"session.refresh", "session.refresh.reuse", "session.revoke", "account.export",
	} {
		if !strings.Contains(strings.Join(texts, "\n"), `"`+event+`"`) {
			t.Errorf("there is no %s in the audit", event)
		}
	}
}

// auditTexts returns each event of the audit as JSON, without its request id, which the
// caller chooses.
func (h *harness) auditTexts(t *testing.T) []string {
	t.Helper()
	rows, err := h.owner.Query(t.Context(), "SELECT to_jsonb(e) - 'request_id' FROM auth.audit_events e")
	if err != nil {
		t.Fatal(err)
	}
	texts, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(texts) < 20 {
		t.Fatalf("the audit has %d events (%v), want more than 20", len(texts), err)
	}
	return texts
}

// callEveryMethod calls each unary method except DeleteAccount twice: for the account
// and for one that does not exist. session returns the session to name in a request.
func (h *harness) callEveryMethod(t *testing.T, account string, session func() string) {
	t.Helper()
	called := 0
	protoregistry.GlobalFiles.RangeFilesByPackage("auth.v1", func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			for j := range service.Methods().Len() {
				method := service.Methods().Get(j)
				if method.IsStreamingServer() || method.Name() == "DeleteAccount" {
					continue
				}
				for _, who := range []string{account, newID(t)} {
					h.call(t, method, who, session())
					h.exec(t, "UPDATE auth.accounts SET status = 'active'") // a call disables it
					called++
				}
			}
		}
		return true
	})
	if called < 30 {
		t.Fatalf("%d calls were made, want two of each method", called)
	}
}

// call calls a method with a request full of secrets. Only an internal error fails the
// test.
func (h *harness) call(t *testing.T, method protoreflect.MethodDescriptor, account, session string) {
	t.Helper()
	found, err := protoregistry.GlobalTypes.FindMessageByName(method.Input().FullName())
	if err != nil {
		t.Fatal(err)
	}
	request := found.New().Interface()
	filled(request.ProtoReflect(), account, session)
	for _, client := range []any{
		h.accounts, h.sessions, h.revocations, h.audit, h.factors,
		authv1.NewPasskeyServiceClient(h.client), authv1.NewEmailCodeServiceClient(h.client), h.apiKeys(), h.webhooks(), authv1.NewDeploymentServiceClient(h.client), authv1.NewFederationServiceClient(h.client),
		authv1.NewLinkServiceClient(h.client), authv1.NewMailServiceClient(h.client), authv1.NewAccountFeedServiceClient(h.client), authv1.NewKeyServiceClient(h.client),
	} {
		of := reflect.ValueOf(client).MethodByName(string(method.Name()))
		if !of.IsValid() {
			continue
		}
		results := of.Call([]reflect.Value{reflect.ValueOf(context.WithoutCancel(t.Context())), reflect.ValueOf(request)})
		if err, _ := results[1].Interface().(error); connect.CodeOf(err) == connect.CodeInternal {
			t.Errorf("%s: %v", method.FullName(), err)
		}
		return
	}
	t.Errorf("no client has %s", method.FullName())
}

func TestARefusalIsAuditedWithItsReason(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	root, _ := h.signUp(t, "root@example.com", auth.AdminRole)
	ada, tokens := h.signUp(t, "ada@example.com")
	origin := &authv1.Origin{AccountId: root.GetId(), IpAddress: "192.0.2.7", UserAgent: "curl/8", RequestId: "r-1"}
	session := newID(t)
	for _, test := range []struct {
		event, reason string
		account       any
		try           func() error
	}{
		{"account.roles.change", "LAST_ADMINISTRATOR", root.GetId(), func() error {
			_, err := h.accounts.SetAccountRoles(t.Context(), &authv1.SetAccountRolesRequest{AccountId: root.GetId(), Origin: origin})
			return err
		}},
		{"account.disable", "LAST_ADMINISTRATOR", root.GetId(), func() error {
			_, err := h.accounts.SetAccountStatus(t.Context(), &authv1.SetAccountStatusRequest{AccountId: root.GetId(), Status: authv1.AccountStatus_ACCOUNT_STATUS_DISABLED, Origin: origin})
			return err
		}},
		{"account.email.change", "EMAIL_TAKEN", root.GetId(), func() error {
			_, err := h.accounts.ChangeAccountEmail(t.Context(), &authv1.ChangeAccountEmailRequest{AccountId: root.GetId(), Email: "Ada@example.com", Origin: origin})
			return err
		}},
		{"account.delete", "REAUTHENTICATION_REQUIRED", ada.GetId(), func() error {
			_, err := h.accounts.DeleteAccount(t.Context(), &authv1.DeleteAccountRequest{AccountId: ada.GetId(), RequireRecentSignIn: true, Origin: origin})
			return err
		}},
		{"session.revoke", "SESSION_NOT_FOUND", ada.GetId(), func() error {
			_, err := h.sessions.RevokeSession(t.Context(), &authv1.RevokeSessionRequest{AccountId: ada.GetId(), SessionId: session, Origin: origin})
			return err
		}},
		{"session.refresh", "SESSION_ENDED", nil, func() error {
			if _, err := h.accounts.DeleteAccount(t.Context(), &authv1.DeleteAccountRequest{AccountId: ada.GetId(), Origin: origin}); err != nil {
				return err
			}
			_, err := h.sessions.Refresh(t.Context(), &authv1.RefreshRequest{RefreshToken: tokens.GetRefreshToken(), Origin: origin})
			return err
		}},
	} {
		if err := test.try(); err == nil {
			t.Errorf("%s wasn't refused", test.event)
		}
		n := h.count(t, `SELECT count(*) FROM auth.audit_events WHERE event = $1 AND outcome = 'refused' AND reason = $2
			AND account_id IS NOT DISTINCT FROM $3::uuid AND actor_id = $4 AND ip_address = '192.0.2.7' AND user_agent = 'curl/8' AND request_id = 'r-1'`,
			test.event, test.reason, test.account, root.GetId())
		if n != 1 {
			t.Errorf("%s, refused for %s, is %d times in the audit, want once", test.event, test.reason, n)
		}
	}
}
