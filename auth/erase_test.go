package auth_test

import (
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/google/uuid"

	"gatehouse/auth"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/pgtest"
	"gatehouse/internal/rpc"
)

var adasOrigin = &authv1.Origin{IpAddress: "192.0.2.33", UserAgent: "Analytical Engine/1"}

// letter writes a mail's row.
const letter = `INSERT INTO auth.mails (id, kind, recipient, account_id, sealed_values, sent_time)
	VALUES (gen_random_uuid(), 'reset_password', $1, $2, CASE WHEN $3 THEN NULL ELSE 'sealed'::bytea END, CASE WHEN $3 THEN now() END)`

func TestADeletedAccountLeavesItsIdAlone(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	ada, _ := h.signUp(t, "Ada@Example.com")
	bob, _ := h.signUp(t, "bob@example.com")
	origin := &authv1.Origin{AccountId: ada.GetId(), IpAddress: adasOrigin.GetIpAddress(), UserAgent: adasOrigin.GetUserAgent()}
	for _, who := range []*authv1.Account{ada, bob} {
		if _, err := h.sessions.Login(t.Context(), &authv1.LoginRequest{Email: who.GetEmail(), Password: "wrong", Origin: adasOrigin}); err == nil {
			t.Error("a wrong password was taken")
		}
		h.exec(t, letter, who.GetEmail(), who.GetId(), false)
		h.exec(t, letter, "old-"+who.GetEmail(), who.GetId(), true)
		h.exec(t, letter, who.GetEmail(), nil, false)
		h.exec(t, `INSERT INTO auth.links (token_hash, kind, email, account_id, profile, expire_time)
			VALUES (sha256($1::bytea), 'reset', $2, $3, NULL, now()), (sha256('x' || $1::bytea), 'register', lower($2), NULL, '{"first_name": "Ada"}', now())`,
			[]byte(who.GetEmail()), who.GetEmail(), who.GetId())
	}
	if _, err := h.accounts.DeleteAccount(t.Context(), &authv1.DeleteAccountRequest{AccountId: ada.GetId(), Origin: origin}); err != nil {
		t.Fatalf("DeleteAccount: %v", err)
	}
	for _, table := range []string{"accounts", "sessions", "links", "mails", "account_log", "throttles", "revocations"} {
		n := h.count(t, `SELECT count(*) FROM auth.`+table+` r WHERE r::text ILIKE '%ada@%' OR r::text ILIKE '%192.0.2.33%' OR r::text ILIKE '%analytical%' OR r::text LIKE '%Ada%'`)
		want := 0
		if table == "links" || table == "account_log" {
			want = 1 // Bob's names are the same
		}
		if n != want {
			t.Errorf("%d rows of %s tell of who was erased, want %d", n, table, want)
		}
	}
	if n := h.count(t, `SELECT count(*) FROM auth.audit_events WHERE $1 IN (account_id, actor_id) AND (ip_address <> '' OR user_agent <> '')`, ada.GetId()); n != 0 {
		t.Errorf("%d events say from where who was erased came", n)
	}
	if n := h.count(t, `SELECT count(*) FROM auth.audit_events WHERE account_id = $1`, ada.GetId()); n != 3 {
		t.Errorf("the audit has %d events of who was erased, want the making, the sign-in and the deletion", n)
	}
	// What is another's stays.
	if n := h.count(t, `SELECT (SELECT count(*) FROM auth.mails) + (SELECT count(*) FROM auth.links)`); n != 5 {
		t.Errorf("Bob has %d mails and links, want 5", n)
	}
	if n := h.count(t, `SELECT count(*) FROM auth.audit_events WHERE account_id = $1 AND ip_address = '192.0.2.33'`, bob.GetId()); n != 1 {
		t.Errorf("%d events tell from where somebody tried to sign in as Bob, want 1", n)
	}
}

func TestAnExportHoldsAllThatAuthHolds(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	ada, tokens := h.signUp(t, "ada@example.com")
	bob, _ := h.signUp(t, "bob@example.com")
	if _, err := h.sessions.Login(t.Context(), &authv1.LoginRequest{Email: "ada@example.com", Password: password, Origin: adasOrigin}); err != nil {
		t.Fatal(err)
	}
	if _, err := h.sessions.Logout(t.Context(), &authv1.LogoutRequest{RefreshToken: tokens.GetRefreshToken()}); err != nil {
		t.Fatal(err)
	}
	h.exec(t, letter, "ada@example.com", ada.GetId(), false)
	h.exec(t, letter, "ada@example.com", ada.GetId(), true)
	h.exec(t, letter, "ADA@example.com", nil, true)
	h.exec(t, letter, "bob@example.com", bob.GetId(), true)
	export := func() *authv1.ExportAccountResponse {
		t.Helper()
		got, err := h.accounts.ExportAccount(t.Context(), &authv1.ExportAccountRequest{AccountId: ada.GetId(), Origin: &authv1.Origin{AccountId: ada.GetId()}})
		if err != nil {
			t.Fatalf("ExportAccount: %v", err)
		}
		return got
	}
	got := export()
	if got.GetAccount().GetEmail() != "ada@example.com" || got.GetSecurity().GetActiveSessions() != 1 {
		t.Errorf("the account is %v, its security %v", got.GetAccount(), got.GetSecurity())
	}
	if n := len(got.GetSessions()); n != 2 {
		t.Fatalf("%d sessions, want the live one and the ended", n)
	}
	live, ended := got.GetSessions()[0], got.GetSessions()[1]
	if live.GetIpAddress() != "192.0.2.33" || live.GetUserAgent() != "Analytical Engine/1" || live.GetRevokeTime() != nil || ended.GetRevokeReason() != "logout" || ended.GetRevokeTime() == nil {
		t.Errorf("the sessions are %v and %v", live, ended)
	}
	if n := len(got.GetMails()); n != 2 {
		t.Errorf("%d mails, want the two about the account", n)
	}
	for _, mail := range got.GetMails() {
		if mail.GetStatus() == authv1.MailStatus_MAIL_STATUS_UNSPECIFIED || mail.GetRecipient() != "ada@example.com" || mail.GetAccountId() != ada.GetId() {
			t.Errorf("a mail is %v", mail)
		}
	}
	events := map[string]int{}
	for _, event := range got.GetAuditEvents() {
		events[event.GetEvent()]++
		if event.GetAccountId() != ada.GetId() {
			t.Errorf("an event is about %s", event.GetAccountId())
		}
	}
	if events["account.create"] != 1 || events["session.login"] != 1 || events["session.logout"] != 1 || events["account.export"] != 1 {
		t.Errorf("the events are %v", events)
	}
	// Who was shown to hold the address gets what went there before.
	h.exec(t, "UPDATE auth.accounts SET email_verified = true")
	if n := len(export().GetMails()); n != 3 {
		t.Errorf("%d mails for a verified address, want 3", n)
	}
	_, err := h.accounts.ExportAccount(t.Context(), &authv1.ExportAccountRequest{AccountId: newID(t)})
	wantReason(t, err, connect.CodeNotFound, "USER_NOT_FOUND")
}

// Strangers who fail to sign in write into what is exported.
func TestAnExportStaysSmallEnoughToBeSent(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	ada, _ := h.signUp(t, "ada@example.com")
	var events []happened
	begin := time.Now().Add(-time.Hour)
	for i := range 12_000 {
		at := begin.Add(time.Duration(i) * time.Millisecond)
		events = append(events, happened{idAt(at), at, "session.login", "refused", ada.GetId(), ""})
	}
	h.happen(t, events)
	h.exec(t, "UPDATE auth.audit_events SET user_agent = repeat('x', 512) WHERE account_id = $1", ada.GetId())
	got, err := h.accounts.ExportAccount(t.Context(), &authv1.ExportAccountRequest{AccountId: ada.GetId()})
	if err != nil {
		t.Fatalf("ExportAccount: %v", err)
	}
	size := 0
	for _, event := range got.GetAuditEvents() {
		size += len(event.GetUserAgent())
	}
	if size > rpc.MaxMessageBytes || len(got.GetAuditEvents()) < 1000 || got.GetAuditEvents()[0].GetEvent() != "account.export" {
		t.Errorf("%d events with %d bytes of user agents, beginning with %v; want at most %d bytes and the newest first",
			len(got.GetAuditEvents()), size, got.GetAuditEvents()[0], rpc.MaxMessageBytes)
	}
}

func TestTheJanitorPrunesWhatIsOlderThanItsRetention(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	h := newHarness(t, func(c *auth.Config) { c.AuditLife = 100 * day })
	ada, _ := h.signUp(t, "ada@example.com")
	var events []happened
	for _, age := range []time.Duration{99 * day, 101 * day, 500 * day} {
		at := time.Now().Add(-age)
		events = append(events, happened{idAt(at), at, "session.login", "refused", ada.GetId(), ""})
	}
	h.happen(t, events)
	for _, change := range []string{
		"expire_time = now() - interval '31 days', prune_date = CURRENT_DATE - 1",
		"expire_time = now() - interval '29 days', prune_date = CURRENT_DATE - 1",
		"revoke_reason = 'logout', revoke_time = now() - interval '31 days'",
		"revoke_reason = 'logout', revoke_time = now() - interval '29 days'",
	} {
		if _, err := h.login(t, "ada@example.com", password); err != nil {
			t.Fatal(err)
		}
		h.exec(t, "UPDATE auth.sessions SET user_agent = $1, "+change+" WHERE id = (SELECT id FROM auth.sessions ORDER BY create_time DESC LIMIT 1)", change)
	}
	h.exec(t, `INSERT INTO auth.links (token_hash, kind, email, expire_time) VALUES
		(sha256('old'), 'register', 'old@example.com', now() - interval '25 hours'),
		(sha256('late'), 'register', 'late@example.com', now() - interval '23 hours')`)
	h.exec(t, `INSERT INTO auth.throttles (key, failures, wait_until, update_time)
		SELECT sha256(age::text::bytea), 9, now() - age, now() - age FROM unnest(ARRAY[interval '76 minutes', interval '74 minutes']) AS age`)
	// Written while the account was being deleted, it missed being erased.
	gone := newID(t)
	at := time.Now().Add(-time.Minute)
	h.happen(t, []happened{
		{idAt(at), at, "account.delete", "succeeded", gone, gone},
		{idAt(at), at, "session.login", "refused", gone, ""},
	})
	// Another copy is at it.
	conn := pgtest.Connect(t, h.config.DB.Config().ConnString())
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "SELECT pg_advisory_xact_lock(hashtextextended('gatehouse let go', 0))"); err != nil {
		t.Fatal(err)
	}
	if err := h.service.PruneForTest(t.Context()); err != nil || h.count(t, "SELECT count(*) FROM auth.sessions") != 5 {
		t.Errorf("pruning while another replica prunes: %v, with %d sessions left, want all 5", err, h.count(t, "SELECT count(*) FROM auth.sessions"))
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := h.service.PruneForTest(t.Context()); err != nil {
		t.Fatalf("prune: %v", err)
	}
	if n := h.count(t, "SELECT count(*) FROM auth.sessions WHERE user_agent LIKE '%31 days%'"); n != 0 {
		t.Errorf("%d sessions that ended more than 30 days ago are left", n)
	}
	if n := h.count(t, "SELECT count(*) FROM auth.sessions"); n != 3 {
		t.Errorf("%d sessions are left, want the live one and the two that ended lately", n)
	}
	if n, late := h.count(t, "SELECT count(*) FROM auth.links"), h.count(t, "SELECT count(*) FROM auth.links WHERE email = 'late@example.com'"); n != 1 || late != 1 {
		t.Errorf("%d links are left, want the one that ended less than a day ago", n)
	}
	const forgotten = "SELECT count(*) FROM auth.throttles WHERE update_time < now() - interval '70 minutes'"
	if n := h.count(t, forgotten); n != 1 {
		t.Errorf("%d of the two old failures are left, want the one that still counts", n)
	}
	for i, event := range events {
		if n := h.count(t, "SELECT count(*) FROM auth.audit_events WHERE id = $1", uuid.UUID(event.id)); (n == 1) != (i == 0) {
			t.Errorf("of the event of %s, %d rows are left", event.at.Format(time.DateOnly), n)
		}
	}
	if n := h.count(t, "SELECT count(*) FROM auth.audit_events WHERE account_id = $1 AND ip_address <> ''", gone); n != 0 {
		t.Errorf("%d events say from where who was erased came", n)
	}
}

func TestTheAuditIsPrunedBesideTheService(t *testing.T) {
	t.Parallel()
	h := newHarness(t, func(c *auth.Config) { c.AuditLife = 100 * 24 * time.Hour })
	var events []happened
	for i := range 25_000 { // more than go at a time
		at := time.Now().AddDate(-1, 0, 0).Add(time.Duration(i) * time.Second)
		events = append(events, happened{idAt(at), at, "session.login", "refused", "", ""})
	}
	h.happen(t, events)
	h.run(t)
	deadline := time.Now().Add(20 * time.Second)
	for h.count(t, "SELECT count(*) FROM auth.audit_events") > 0 {
		if time.Now().After(deadline) {
			t.Fatalf("%d old events are left", h.count(t, "SELECT count(*) FROM auth.audit_events"))
		}
	}
}
