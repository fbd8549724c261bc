package auth_test

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"gatehouse/auth/webhooks"
	authv1 "gatehouse/gen/auth/v1"
)

func (h *harness) webhooks() authv1.WebhookServiceClient {
	return authv1.NewWebhookServiceClient(h.client)
}

// wantEvents are the events of each audited fact.
var wantEvents = map[string][]string{
	"account.create":          {"user.created"},
	"account.delete":          {"user.deleted"},
	"account.disable":         {"user.disabled"},
	"account.enable":          {"user.enabled"},
	"account.email.change":    {"user.email_changed"},
	"account.roles.change":    {"user.roles_changed"},
	"account.password.change": {"session.ended"},
	"account.password.force":  {"session.ended"},
	"link.verify":             {"user.verified"},
	"link.reset":              {"session.ended"},
	"link.email":              {"user.email_changed"},
	"session.login":           {"session.created"},
	"session.logout":          {"session.ended"},
	"session.revoke":          {"session.ended"},
	"session.refresh.reuse":   {"session.ended"},
	"factor.add":              {"factor.added"},
	"factor.remove":           {"factor.removed"},
	"factor.reset":            {"factor.removed"},
	"identity.link":           {"identity.linked"},
	"identity.unlink":         {"identity.unlinked"},
	"apikey.create":           {"apikey.created"},
	"apikey.revoke":           {"apikey.revoked"},
}

// withoutEvent are audited facts that change no account, session, factor or key.
var withoutEvent = map[string]string{
	"account.export": "it reads", "account.attributes.change": "profiles are users' facts",
	"account.password.remove": "a password is no second factor",
	"link.request":            "nothing has changed yet", "link.send": "nothing has changed yet", "code.request": "nothing has changed yet",
	"session.challenge": "no session begins yet", "session.reauthenticate": "the session is the same",
	"session.refresh": "a refusal", "session.refresh.recovered": "the session is the same", "apikey.refuse": "a refusal",
	"key.rotate": "of the system", "key.replace": "of the system: it ends every session without a row of its own",
	"mail.fail": "of the system", "mail.retry": "of the system",
	"factor.recover": "a code is used, the factors are the same", "device.remember": "no factor", "device.forget": "no factor",
	"passkey.block": "the passkey is kept for its owner to see", "passkey.backup_change": "the passkey is the same",
	"webhook.create": "of the system", "webhook.update": "of the system", "webhook.delete": "of the system", "webhook.rotate": "of the system",
	"webhook.replay": "of the system", "webhook.retry": "of the system", "webhook.listen": "of the system",
	"webhook.disable": "of the system", "webhook.fail": "of the system",
}

// An audit event that is added later has to be listed above.
func TestEveryAuditedFactHasItsEventOrNeedsNone(t *testing.T) {
	t.Parallel()
	audited := auditEvents(t)
	for _, name := range audited {
		events, listed := wantEvents[name]
		if _, excused := withoutEvent[name]; listed == excused {
			t.Errorf("%s: listed %t, excused %t, want one of them", name, listed, excused)
		}
		for _, event := range events {
			if !slices.Contains(webhooks.Types, event) {
				t.Errorf("%s: %s is no type of events", name, event)
			}
		}
	}
	for _, kind := range webhooks.Types {
		if kind != webhooks.TestType && !slices.ContainsFunc(audited, func(name string) bool { return slices.Contains(wantEvents[name], kind) }) {
			t.Errorf("no audited fact has the event %s", kind)
		}
	}
}

// auditEvents returns the values of the constants of the type Event in auth/audit.
func auditEvents(t *testing.T) (names []string) {
	t.Helper()
	source, err := os.ReadFile("audit/audit.go")
	if err != nil {
		t.Fatal(err)
	}
	file, err := parser.ParseFile(token.NewFileSet(), "audit.go", source, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if kind, is := specType(spec, ok); is && kind == "Event" {
			name, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, name)
		}
		return true
	})
	if len(names) < 30 {
		t.Fatalf("found %d audit events: %q", len(names), names)
	}
	return names
}

func specType(spec *ast.ValueSpec, ok bool) (string, bool) {
	if !ok || spec.Type == nil || len(spec.Values) == 0 {
		return "", false
	}
	ident, ok := spec.Type.(*ast.Ident)
	if !ok {
		return "", false
	}
	return ident.Name, true
}

// written is an event in the table.
type written struct {
	Type    string
	Account *string
	Version int64
	Data    map[string]any
}

// takeEvents returns the events since the last call, in their order.
func (h *harness) takeEvents(t *testing.T) (found []written) {
	t.Helper()
	rows, err := h.owner.Query(t.Context(), `WITH taken AS (DELETE FROM auth.events RETURNING *) SELECT type, account_id::text, version, data FROM taken ORDER BY create_time`)
	if err != nil {
		t.Fatal(err)
	}
	var one written
	var data []byte
	_, err = pgx.ForEachRow(rows, []any{&one.Type, &one.Account, &one.Version, &data}, func() error {
		one.Data = nil
		if err := json.Unmarshal(data, &one.Data); err != nil {
			return err
		}
		found = append(found, one)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// wantWritten checks the types of the events since the last call, and that they hold ids
// alone.
func (h *harness) wantWritten(t *testing.T, account string, what string, want ...string) {
	t.Helper()
	var got []string
	for _, event := range h.takeEvents(t) {
		got = append(got, event.Type)
		if event.Account == nil || *event.Account != account || event.Data["userId"] != account || event.Data["version"] != float64(event.Version) || event.Version < 1 {
			t.Errorf("%s: the event %s is %+v, want account %s and its version", what, event.Type, event, account)
		}
		for name := range event.Data {
			if !slices.Contains([]string{"userId", "version", "sessionId", "keyId", "passkeyId", "factor", "identityId", "provider"}, name) {
				t.Errorf("%s: the event %s holds %s", what, event.Type, name)
			}
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s: got the events %q, want %q", what, got, want)
	}
}

func (h *harness) createWebhook(t testing.TB, url string, change ...func(*authv1.CreateWebhookRequest)) *authv1.CreateWebhookResponse {
	t.Helper()
	request := &authv1.CreateWebhookRequest{Url: url}
	for _, c := range change {
		c(request)
	}
	made, err := h.webhooks().CreateWebhook(t.Context(), request)
	if err != nil {
		t.Fatalf("CreateWebhook: %v", err)
	}
	return made
}

func TestEachFactIsWrittenWithItsEvent(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.createWebhook(t, "https://example.com/hooks")

	p := h.protect(t, "ada@example.com")
	account := p.account
	h.wantWritten(t, account.GetId(), "sign-up and an authenticator app", "user.created", "session.created", "factor.added")
	p.enrol(t)
	h.wantWritten(t, account.GetId(), "another authenticator app", "factor.added")
	p.forgetCodes(t)
	if _, err := h.factors.RemoveTOTP(t.Context(), &authv1.RemoveTOTPRequest{Origin: p.origin}); err != nil {
		t.Fatalf("RemoveTOTP: %v", err)
	}
	h.wantWritten(t, account.GetId(), "a removed authenticator app", "factor.removed")

	signedIn, err := h.login(t, "ada@example.com", password)
	if err != nil {
		t.Fatal(err)
	}
	tokens := signedIn.GetTokens()
	h.wantWritten(t, account.GetId(), "a sign-in", "session.created")
	if _, err := h.sessions.Refresh(t.Context(), &authv1.RefreshRequest{RefreshToken: tokens.GetRefreshToken()}); err != nil {
		t.Fatal(err)
	}
	h.wantWritten(t, account.GetId(), "a refresh")
	if _, err := h.sessions.Logout(t.Context(), &authv1.LogoutRequest{RefreshToken: tokens.GetRefreshToken()}); err != nil {
		t.Fatal(err)
	}
	h.wantWritten(t, account.GetId(), "a sign-out", "session.ended")

	made, err := h.apiKeys().CreateKey(t.Context(), &authv1.CreateKeyRequest{Name: "Nightly", Scopes: []string{"me:read"}, Origin: p.origin})
	if err != nil {
		t.Fatalf("CreateKey: %v", err)
	}
	h.wantWritten(t, account.GetId(), "an API key", "apikey.created")
	if _, err := h.apiKeys().RevokeKey(t.Context(), &authv1.RevokeKeyRequest{AccountId: account.GetId(), KeyId: made.GetKey().GetKeyId(), Origin: p.origin}); err != nil {
		t.Fatal(err)
	}
	h.wantWritten(t, account.GetId(), "a revoked API key", "apikey.revoked")

	h.exec(t, "INSERT INTO auth.identities (id, issuer, subject, account_id, provider) VALUES (gen_random_uuid(), 'https://id.example', '1', $1, 'work')", account.GetId())
	h.wantWritten(t, account.GetId(), "a linked identity", "identity.linked")
	h.exec(t, "DELETE FROM auth.identities WHERE account_id = $1", account.GetId())
	h.wantWritten(t, account.GetId(), "an unlinked identity", "identity.unlinked")

	for _, test := range []struct {
		name string
		want []string
		call func() error
	}{
		{"roles", []string{"user.roles_changed"}, func() error {
			_, err := h.accounts.SetAccountRoles(t.Context(), &authv1.SetAccountRolesRequest{AccountId: account.GetId(), Roles: []string{"editor"}})
			return err
		}},
		{"the same roles", nil, func() error {
			_, err := h.accounts.SetAccountRoles(t.Context(), &authv1.SetAccountRolesRequest{AccountId: account.GetId(), Roles: []string{"editor"}})
			return err
		}},
		{"an email", []string{"user.email_changed"}, func() error {
			_, err := h.accounts.ChangeAccountEmail(t.Context(), &authv1.ChangeAccountEmailRequest{AccountId: account.GetId(), Email: "grace@example.com"})
			return err
		}},
		{"disabled", []string{"user.disabled", "session.ended"}, func() error {
			_, err := h.accounts.SetAccountStatus(t.Context(), &authv1.SetAccountStatusRequest{AccountId: account.GetId(), Status: authv1.AccountStatus_ACCOUNT_STATUS_DISABLED})
			return err
		}},
		{"enabled", []string{"user.enabled"}, func() error {
			_, err := h.accounts.SetAccountStatus(t.Context(), &authv1.SetAccountStatusRequest{AccountId: account.GetId(), Status: authv1.AccountStatus_ACCOUNT_STATUS_ACTIVE})
			return err
		}},
		{"deleted", []string{"user.deleted"}, func() error {
			_, err := h.accounts.DeleteAccount(t.Context(), &authv1.DeleteAccountRequest{AccountId: account.GetId()})
			return err
		}},
	} {
		if err := test.call(); err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		h.wantWritten(t, account.GetId(), test.name, test.want...)
	}
}

func TestAProvenEmailIsAnEvent(t *testing.T) {
	t.Parallel()
	h := newHarness(t, withMail)
	h.createWebhook(t, "https://example.com/hooks")
	account := h.create(t, "ada@example.com", "")
	h.takeEvents(t)
	if _, err := h.verify(t, h.mailed(t, "invitation", "ada@example.com").Token); err != nil {
		t.Fatal(err)
	}
	h.wantWritten(t, account.GetId(), "an invitation that was used", "user.verified", "session.created")
	h.requestEmail(t, account, "grace@example.com")
	if _, err := h.confirm(t, h.mailed(t, "confirm_email", "grace@example.com").Token); err != nil {
		t.Fatal(err)
	}
	h.wantWritten(t, account.GetId(), "a confirmed email", "user.email_changed")
}

func TestNoEventIsWrittenThatNobodyWants(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.signUp(t, "ada@example.com")
	made := h.createWebhook(t, "https://example.com/hooks", func(r *authv1.CreateWebhookRequest) { r.Types = []string{"user.deleted"} })
	account, _ := h.signUp(t, "grace@example.com")
	if events := h.takeEvents(t); len(events) != 0 {
		t.Errorf("got the events %v, want none", events)
	}
	if _, err := h.webhooks().UpdateWebhook(t.Context(), &authv1.UpdateWebhookRequest{WebhookId: made.GetWebhook().GetWebhookId(), Enabled: new(false)}); err != nil {
		t.Fatal(err)
	}
	if _, err := h.accounts.DeleteAccount(t.Context(), &authv1.DeleteAccountRequest{AccountId: account.GetId()}); err != nil {
		t.Fatal(err)
	}
	if events := h.takeEvents(t); len(events) != 0 {
		t.Errorf("a disabled webhook got the events %v, want none", events)
	}
}

// The trigger and the package have one list of types each.
func TestTheTriggerWritesTheKnownTypes(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	var source string
	if err := h.owner.QueryRow(t.Context(), `SELECT prosrc FROM pg_proc WHERE oid = to_regprocedure('auth.write_event()')`).Scan(&source); err != nil {
		t.Fatal(err)
	}
	for _, kind := range webhooks.Types {
		if kind != webhooks.TestType && !strings.Contains(source, kind) {
			t.Errorf("the trigger does not write %s", kind)
		}
	}
}
