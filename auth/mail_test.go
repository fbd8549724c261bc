package auth_test

import (
	"context"
	"crypto/sha256"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/jackc/pgx/v5"

	"gatehouse/auth"
	authv1 "gatehouse/gen/auth/v1"
	post "gatehouse/internal/mail"
	"gatehouse/internal/mailtest"
)

const linkToken = "ghl_QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVowMTIzNDU"

// newMailHarness is auth with a mail server.
func newMailHarness(t *testing.T, config mailtest.Config, change ...func(*auth.Config)) (*harness, *mailtest.Server) {
	t.Helper()
	server := mailtest.Start(t, config)
	h := newHarness(t, append([]func(*auth.Config){func(c *auth.Config) {
		mailer, err := post.NewSMTP(server.URL())
		if err != nil {
			t.Fatal(err)
		}
		c.Mailer, c.MailFrom = mailer, "no-reply@auth.example.com"
	}}, change...)...)
	// The link that the mails here hold: of an address that nobody has, so that
	// they are sent as they are.
	hash := sha256.Sum256([]byte(linkToken))
	h.exec(t, `INSERT INTO auth.links (token_hash, kind, email, expire_time)
		VALUES ($1, 'register', 'nobody@example.com', now() + interval '20 minutes')`, hash[:])
	return h, server
}

// signUpUnmailed is signUp without the mail that comes with it.
func (h *harness) signUpUnmailed(t *testing.T, email string) (*authv1.Account, *authv1.Tokens) {
	t.Helper()
	response, err := h.accounts.CreateAccount(t.Context(), &authv1.CreateAccountRequest{AccountId: newID(t), Email: email, Password: password})
	if err != nil {
		t.Fatalf("CreateAccount %s: %v", email, err)
	}
	return response.GetAccount(), response.GetTokens()
}

func resetMail(to string) auth.MailForTest {
	return auth.MailForTest{Kind: "reset_password", To: to, Token: linkToken, Values: map[string]string{"first_name": "Ada"}}
}

// enqueue writes a mail in a transaction of its own and returns its id.
func (h *harness) enqueue(t *testing.T, m auth.MailForTest) string {
	t.Helper()
	err := pgx.BeginFunc(t.Context(), h.config.DB, func(tx pgx.Tx) error { return h.service.EnqueueForTest(t.Context(), tx, m) })
	if err != nil {
		t.Fatalf("enqueue %v: %v", m, err)
	}
	var id string
	if err := h.owner.QueryRow(t.Context(), "SELECT id::text FROM auth.mails WHERE recipient = $1 ORDER BY id DESC LIMIT 1", m.To).Scan(&id); err != nil {
		t.Fatalf("read the mail to %s: %v", m.To, err)
	}
	return id
}

// until polls a counting query until it says how many.
func (h *harness) until(t *testing.T, want int, sql string, args ...any) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for h.count(t, sql, args...) != want {
		if time.Now().After(deadline) {
			t.Fatalf("%s is %d, want %d", sql, h.count(t, sql, args...), want)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (h *harness) untilSent(t *testing.T, id string) {
	t.Helper()
	h.until(t, 1, "SELECT count(*) FROM auth.mails WHERE id = $1 AND sent_time IS NOT NULL", id)
}

// untilTried waits until so many tries have failed.
func (h *harness) untilTried(t *testing.T, id string, tries int) {
	t.Helper()
	h.until(t, 1, "SELECT count(*) FROM auth.mails WHERE id = $1 AND attempts = $2 AND last_error <> '' AND next_attempt_time < now() + interval '80 seconds'", id, tries)
}

// due makes a mail's next try be now.
func (h *harness) due(t *testing.T, id string) {
	t.Helper()
	h.exec(t, "UPDATE auth.mails SET next_attempt_time = now(), last_error = '' WHERE id = $1", id)
}

// runUntil runs the service until it is stopped.
func (h *harness) runUntil(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	service := h.service
	go func() { defer close(done); service.Run(ctx) }()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

func TestAMailLeavesSoonAfterItsTransactionCommitsAndIsErased(t *testing.T) {
	t.Parallel()
	h, server := newMailHarness(t, mailtest.Config{})
	tx, err := h.config.DB.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := h.service.EnqueueForTest(t.Context(), tx, resetMail("ada@example.com")); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	var row string
	var sealed []byte
	if err := h.owner.QueryRow(t.Context(), "SELECT m::text, sealed_values FROM auth.mails m").Scan(&row, &sealed); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(row, linkToken) || strings.Contains(string(sealed), linkToken) || strings.Contains(string(sealed), "Ada") {
		t.Errorf("before it is sent the row shows what it says: %s", row)
	}
	h.run(t)
	got := server.Wait(t, 1)[0]
	if want := "http://localhost:8001/link/reset#token=" + linkToken; !strings.Contains(got.Text, want) || !strings.Contains(got.HTML, want) {
		t.Errorf("the mail doesn't hold %s:\n%s", want, got.Text)
	}
	var id string
	if err := h.owner.QueryRow(t.Context(), "SELECT id::text FROM auth.mails").Scan(&id); err != nil {
		t.Fatal(err)
	}
	if got.To != "ada@example.com" || got.From != "no-reply@auth.example.com" || got.Header.Get("Message-Id") != "<"+id+"@auth.example.com>" {
		t.Errorf("from %s to %s as %s", got.From, got.To, got.Header.Get("Message-Id"))
	}
	h.untilSent(t, id)
	if n := h.count(t, "SELECT count(*) FROM auth.mails m WHERE m.sealed_values IS NULL AND attempts = 1 AND m::text NOT LIKE '%ghl_%'"); n != 1 {
		t.Error("what it said is still in its row")
	}

	// From a commit while the service runs: usually some 20 ms.
	began := time.Now()
	h.enqueue(t, resetMail("grace@example.com"))
	server.Wait(t, 2)
	t.Logf("a mail arrived %s after its commit", time.Since(began))
}

// A row whose transaction takes longer than the first looks is found by a later
// one.
func TestNothingIsSentUnlessTheTransactionCommits(t *testing.T) {
	t.Parallel()
	h, server := newMailHarness(t, mailtest.Config{})
	h.run(t)
	tx, err := h.config.DB.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := h.service.EnqueueForTest(t.Context(), tx, resetMail("rolled-back@example.com")); err != nil {
		t.Fatal(err)
	}
	// Others' mail goes meanwhile.
	h.untilSent(t, h.enqueue(t, resetMail("ada@example.com")))
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.untilSent(t, h.enqueue(t, resetMail("grace@example.com")))
	for _, mail := range server.Received() {
		if mail.To == "rolled-back@example.com" {
			t.Error("a mail was sent whose transaction was rolled back")
		}
	}
}

func TestAMailThatIsTurnedAwayForNowIsTriedAgain(t *testing.T) {
	t.Parallel()
	var tries atomic.Int32
	h, server := newMailHarness(t, mailtest.Config{Rcpt: func(string) error {
		if tries.Add(1) <= 4 {
			return mailtest.Refuse(451, "try again later")
		}
		return nil
	}})
	h.run(t)
	id := h.enqueue(t, resetMail("ada@example.com"))
	for try := range 4 { // more than permanent refusals get
		h.untilTried(t, id, try+1)
		if n := h.count(t, "SELECT count(*) FROM auth.mails WHERE last_error LIKE '451 %try again later%' AND fail_time IS NULL AND next_attempt_time > now()"); n != 1 {
			t.Errorf("after try %d it isn't put off with the server's words", try+1)
		}
		h.due(t, id)
	}
	h.untilSent(t, id)
	if got := server.Received(); len(got) != 1 {
		t.Errorf("the server took %d mails, want 1", len(got))
	}
	if n := h.count(t, "SELECT attempts FROM auth.mails"); n != 5 {
		t.Errorf("it was tried %d times, want 5", n)
	}
}

func TestAMailThatIsRefusedForGoodIsGivenUpAfterThreeTries(t *testing.T) {
	t.Parallel()
	h, _ := newMailHarness(t, mailtest.Config{Data: func(mail mailtest.Received) error {
		return mailtest.Refuse(554, "no mail with http://localhost:8001/link/reset#token="+linkToken+" in it")
	}})
	h.run(t)
	account, _ := h.signUpUnmailed(t, "ada@example.com")
	mail := resetMail("ada@example.com")
	mail.Account = account.GetId()
	id := h.enqueue(t, mail)
	for try := range 2 {
		h.untilTried(t, id, try+1)
		h.due(t, id)
	}
	h.until(t, 1, "SELECT count(*) FROM auth.mails WHERE id = $1 AND fail_time IS NOT NULL AND attempts = 3 AND last_error LIKE '554 %in it'", id)
	if n := h.count(t, "SELECT count(*) FROM auth.mails m WHERE m::text LIKE '%ghl_%' OR m::text LIKE '%QUJDREVG%'"); n != 0 {
		t.Error("the server's answer is kept with the link")
	}
	if n := h.count(t, "SELECT count(*) FROM auth.audit_events WHERE event = 'mail.fail' AND outcome = 'refused' AND reason = 'MAIL_REFUSED' AND account_id = $1", account.GetId()); n != 1 {
		t.Errorf("the audit has %d events of it, want 1", n)
	}
}

func TestAMailIsGivenUpAfterADayAndAnAdministratorCanRetryIt(t *testing.T) {
	t.Parallel()
	h, server := newMailHarness(t, mailtest.Config{})
	server.Stop()
	h.run(t)
	account, _ := h.signUpUnmailed(t, "ada@example.com")
	m := auth.MailForTest{Kind: "password_changed", To: "ada@example.com", Account: account.GetId()}
	id := h.enqueue(t, m)
	h.untilTried(t, id, 1)
	h.exec(t, "UPDATE auth.mails SET create_time = now() - interval '23 hours 59 minutes', attempts = 30")
	h.due(t, id)
	h.until(t, 1, "SELECT count(*) FROM auth.mails WHERE attempts = 31 AND last_error <> ''")
	if n := h.count(t, "SELECT count(*) FROM auth.mails WHERE fail_time IS NULL AND next_attempt_time <= create_time + interval '24 hours'"); n != 1 {
		t.Error("just before the day is over, the last try isn't at its end")
	}
	_, err := h.mails.RetryMail(t.Context(), &authv1.RetryMailRequest{MailId: id})
	wantReason(t, err, connect.CodeFailedPrecondition, "MAIL_NOT_FAILED")
	h.exec(t, "UPDATE auth.mails SET create_time = now() - interval '24 hours'")
	h.due(t, id)
	h.until(t, 1, "SELECT count(*) FROM auth.mails WHERE fail_time IS NOT NULL AND sealed_values IS NOT NULL")
	if n := h.count(t, "SELECT count(*) FROM auth.audit_events WHERE event = 'mail.fail' AND reason = 'MAIL_UNDELIVERED' AND account_id = $1", account.GetId()); n != 1 {
		t.Errorf("the audit has %d events of the failure, want 1", n)
	}
	page, err := h.mails.ListMails(t.Context(), &authv1.ListMailsRequest{Status: authv1.MailStatus_MAIL_STATUS_FAILED})
	if err != nil {
		t.Fatal(err)
	}
	if len(page.GetMails()) != 1 {
		t.Fatalf("the failed mails are %v", page.GetMails())
	}
	if got := page.GetMails()[0]; got.GetId() != id || got.GetAccountId() != account.GetId() || got.GetRecipient() != "ada@example.com" ||
		got.GetKind() != "password_changed" || got.GetAttempts() != 32 || got.GetEndTime() == nil || got.GetNextAttemptTime() != nil ||
		!strings.Contains(got.GetLastError(), "refused") {
		t.Errorf("the dead letter is %v", got)
	}

	admin, _ := h.signUpUnmailed(t, "admin@example.com")
	retried, err := h.mails.RetryMail(t.Context(), &authv1.RetryMailRequest{MailId: id, Origin: &authv1.Origin{AccountId: admin.GetId()}})
	if err != nil {
		t.Fatal(err)
	}
	if got := retried.GetMail(); got.GetStatus() != authv1.MailStatus_MAIL_STATUS_PENDING || got.GetNextAttemptTime() == nil || got.GetEndTime() != nil {
		t.Errorf("the retried mail is %v", got)
	}
	h.untilTried(t, id, 1)
	if n := h.count(t, "SELECT count(*) FROM auth.mails WHERE fail_time IS NULL"); n != 1 {
		t.Error("the retried mail was given up at its next failure")
	}
	server.Restart(t)
	h.due(t, id)
	h.untilSent(t, id)
	if n := h.count(t, "SELECT count(*) FROM auth.audit_events WHERE event = 'mail.retry' AND account_id = $1 AND actor_id = $2", account.GetId(), admin.GetId()); n != 1 {
		t.Errorf("the audit has %d events of the retry, want 1", n)
	}
	_, err = h.mails.RetryMail(t.Context(), &authv1.RetryMailRequest{MailId: id})
	wantReason(t, err, connect.CodeFailedPrecondition, "MAIL_NOT_FAILED")
	_, err = h.mails.RetryMail(t.Context(), &authv1.RetryMailRequest{MailId: newID(t)})
	wantReason(t, err, connect.CodeNotFound, "MAIL_NOT_FOUND")
}

// link writes a link as it is when its mail is late.
func (h *harness) expiredLink(t *testing.T) {
	t.Helper()
	h.exec(t, "UPDATE auth.links SET create_time = now() - interval '3 hours', expire_time = now() - interval '150 minutes'")
}

func TestALinkThatIsSentLateWorksAsLongAsAnyOther(t *testing.T) {
	t.Parallel()
	h, server := newMailHarness(t, mailtest.Config{})
	h.expiredLink(t)
	const works = "SELECT count(*) FROM auth.links WHERE expire_time BETWEEN now() + interval '25 minutes' AND now() + interval '30 minutes'"
	h.untilSentBy(t, h.enqueue(t, resetMail("grace@example.com")))
	if n := h.count(t, works); n != 0 {
		t.Error("a mail that is sent in time gives its link more time")
	}
	stop := h.runUntil(t)
	stop()
	id := h.enqueue(t, resetMail("ada@example.com"))
	h.exec(t, "UPDATE auth.mails SET create_time = now() - interval '3 hours' WHERE id = $1", id)
	h.open(t, h.config)
	h.run(t)
	h.untilSent(t, id)
	server.Wait(t, 2)
	if n := h.count(t, works); n != 1 {
		t.Error("the link of a mail that was sent late doesn't work for half an hour")
	}
}

// untilSentBy runs the service until a mail is sent.
func (h *harness) untilSentBy(t *testing.T, id string) {
	t.Helper()
	stop := h.runUntil(t)
	h.untilSent(t, id)
	stop()
}

func TestALinkThatHasEndedIsNotSentLate(t *testing.T) {
	t.Parallel()
	h, server := newMailHarness(t, mailtest.Config{})
	h.expiredLink(t)
	h.exec(t, "UPDATE auth.links SET end_time = now(), end_reason = 'used'")
	id := h.enqueue(t, resetMail("ada@example.com"))
	h.exec(t, "UPDATE auth.mails SET create_time = now() - interval '3 hours'")
	h.run(t)
	h.until(t, 0, "SELECT count(*) FROM auth.mails WHERE id = $1", id)
	if n := h.count(t, "SELECT count(*) FROM auth.links WHERE end_time IS NULL OR expire_time > now()"); n != 0 {
		t.Error("the link works again")
	}
	if n := len(server.Received()); n != 0 {
		t.Errorf("%d mails were sent, want none", n)
	}
}

func TestAMailSealedWithAnOlderKeyIsSentAndOneWithALostKeyWaits(t *testing.T) {
	t.Parallel()
	h, server := newMailHarness(t, mailtest.Config{})
	older := h.enqueue(t, resetMail("ada@example.com"))
	h.config.Secrets = [][]byte{secretTwo, secretOne}
	h.open(t, h.config)
	h.untilSentBy(t, older)
	lost := h.enqueue(t, resetMail("grace@example.com"))
	h.exec(t, "UPDATE auth.mails SET sealed_values = 'some other bytes, long enough' WHERE id = $1", lost)
	h.run(t)
	h.untilTried(t, lost, 1)
	if n := h.count(t, "SELECT count(*) FROM auth.mails WHERE id = $1 AND fail_time IS NULL AND last_error LIKE '%log of auth%'", lost); n != 1 {
		t.Error("it isn't put off")
	}
	if n := len(server.Received()); n != 1 {
		t.Errorf("%d mails were sent, want 1", n)
	}
}

func TestTheMailOfADeletedAccountIsNotSent(t *testing.T) {
	t.Parallel()
	h, server := newMailHarness(t, mailtest.Config{})
	account, _ := h.signUpUnmailed(t, "ada@example.com")
	m := resetMail("ada@example.com")
	m.Account = account.GetId()
	h.enqueue(t, m)
	h.exec(t, "DELETE FROM auth.accounts WHERE id = $1", account.GetId())
	h.untilSentBy(t, h.enqueue(t, resetMail("grace@example.com")))
	if got := server.Received(); len(got) != 1 || got[0].To != "grace@example.com" {
		t.Errorf("the server got %d mails, the first to %s", len(got), got[0].To)
	}
}

func TestWithoutAMailServerNoMailIsWritten(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	if err := h.service.EnqueueForTest(t.Context(), h.config.DB, resetMail("ada@example.com")); err != nil {
		t.Fatal(err)
	}
	if n := h.count(t, "SELECT count(*) FROM auth.mails"); n != 0 {
		t.Errorf("there are %d mails, want none", n)
	}
	_, err := h.mails.RetryMail(t.Context(), &authv1.RetryMailRequest{MailId: newID(t)})
	wantReason(t, err, connect.CodeFailedPrecondition, "MAIL_UNAVAILABLE")
}

func TestOldMailsArePruned(t *testing.T) {
	t.Parallel()
	h, server := newMailHarness(t, mailtest.Config{})
	server.Stop()
	for _, mail := range []struct{ name, change string }{
		{"sent lately", "sent_time = now() - interval '23 hours', sealed_values = NULL"},
		{"sent long ago", "sent_time = now() - interval '25 hours', sealed_values = NULL"},
		{"failed lately", "fail_time = now() - interval '6 days'"},
		{"failed a while ago", "fail_time = now() - interval '8 days'"},
		{"failed long ago", "fail_time = now() - interval '31 days'"},
		{"pending", "next_attempt_time = now() + interval '1 hour'"},
		{"abandoned", "next_attempt_time = now() - interval '31 days'"},
	} {
		id := h.enqueue(t, resetMail(strings.ReplaceAll(mail.name, " ", "-")+"@example.com"))
		h.exec(t, "UPDATE auth.mails SET "+mail.change+" WHERE id = $1", id)
	}
	h.run(t)
	h.until(t, 4, "SELECT count(*) FROM auth.mails")
	rows, err := h.owner.Query(t.Context(), "SELECT split_part(recipient, '@', 1) || ' ' || (sealed_values IS NOT NULL) FROM auth.mails ORDER BY id")
	if err != nil {
		t.Fatal(err)
	}
	got, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"sent-lately false", "failed-lately true", "failed-a-while-ago false", "pending true"}; !slices.Equal(got, want) {
		t.Errorf("what is kept, and whether it can still be sent: got %v, want %v", got, want)
	}
	var erased string
	if err := h.owner.QueryRow(t.Context(), "SELECT id::text FROM auth.mails WHERE recipient LIKE 'failed-a-while%'").Scan(&erased); err != nil {
		t.Fatal(err)
	}
	_, err = h.mails.RetryMail(t.Context(), &authv1.RetryMailRequest{MailId: erased})
	wantReason(t, err, connect.CodeFailedPrecondition, "MAIL_ERASED")
}
