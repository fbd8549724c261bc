package auth_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect/v2"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"gatehouse/auth"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/mailtest"
)

var mailStatuses = []authv1.MailStatus{
	authv1.MailStatus_MAIL_STATUS_UNSPECIFIED, authv1.MailStatus_MAIL_STATUS_PENDING,
	authv1.MailStatus_MAIL_STATUS_SENT, authv1.MailStatus_MAIL_STATUS_FAILED,
}

// fillMails makes so many mails: of ten, one is pending, two have failed, and
// seven were sent. The id of the nth, from the oldest, ends in n.
func (h *harness) fillMails(t *testing.T, count int) {
	t.Helper()
	h.exec(t, `
		INSERT INTO auth.mails (id, kind, recipient, next_attempt_time, sent_time, fail_time, sealed_values)
		SELECT ('01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'reset_password', 'user' || n || '@example.com',
			now() + interval '1 hour', CASE WHEN n % 10 > 2 THEN now() END, CASE WHEN n % 10 IN (1, 2) THEN now() END,
			CASE WHEN n % 10 <= 2 THEN 'sealed'::bytea END
		FROM generate_series(1, $1) n`, count)
	h.exec(t, "ANALYZE auth.mails")
}

func TestWalkingThePagesMeetsEveryMailOnce(t *testing.T) {
	t.Parallel()
	h, _ := newMailHarness(t, mailtest.Config{})
	h.fillMails(t, 95)
	for _, status := range mailStatuses {
		var ids []string
		token, pages := "", 0
		for {
			page, err := h.mails.ListMails(t.Context(), &authv1.ListMailsRequest{Status: status, PageSize: 7, PageToken: token})
			if err != nil {
				t.Fatalf("%v: %v", status, err)
			}
			for _, mail := range page.GetMails() {
				ids = append(ids, mail.GetId())
				if status != 0 && mail.GetStatus() != status {
					t.Errorf("asked for %v, got %v", status, mail)
				}
				if (mail.GetEndTime() == nil) != (mail.GetStatus() == authv1.MailStatus_MAIL_STATUS_PENDING) || (mail.GetNextAttemptTime() == nil) == (mail.GetEndTime() == nil) {
					t.Errorf("its times don't fit its status: %v", mail)
				}
			}
			if pages == 0 { // a mail that comes meanwhile shifts nothing
				h.enqueue(t, resetMail(fmt.Sprintf("late%d@example.com", status)))
			}
			pages++
			if token = page.GetNextPageToken(); token == "" {
				break
			}
		}
		if !slices.IsSortedFunc(ids, func(a, b string) int { return strings.Compare(b, a) }) || len(slices.Compact(slices.Clone(ids))) != len(ids) {
			t.Errorf("%v: not from the newest on, each once: %v", status, ids)
		}
		want := map[authv1.MailStatus]int{0: 95, authv1.MailStatus_MAIL_STATUS_PENDING: 10, authv1.MailStatus_MAIL_STATUS_SENT: 66, authv1.MailStatus_MAIL_STATUS_FAILED: 20}[status]
		if len(ids) < want || len(ids) > want+int(status) {
			t.Errorf("%v: got %d mails, want about %d", status, len(ids), want)
		}
	}
	page, err := h.mails.ListMails(t.Context(), &authv1.ListMailsRequest{})
	if err != nil || len(page.GetMails()) != 25 {
		t.Errorf("a page is %d mails by default, want 25: %v", len(page.GetMails()), err)
	}
}

func TestAPageTokenOfAnotherListingIsRefused(t *testing.T) {
	t.Parallel()
	h, _ := newMailHarness(t, mailtest.Config{})
	h.fillMails(t, 30)
	page, err := h.mails.ListMails(t.Context(), &authv1.ListMailsRequest{PageSize: 2})
	if err != nil {
		t.Fatal(err)
	}
	token := page.GetNextPageToken()
	for _, bad := range []*authv1.ListMailsRequest{
		{PageToken: token, Status: authv1.MailStatus_MAIL_STATUS_SENT},
		{PageToken: token[1:]},
		{PageToken: "A" + token[1:]},
		{PageToken: token + "A"},
		{PageToken: "nonsense!"},
	} {
		_, err := h.mails.ListMails(t.Context(), bad)
		wantReason(t, err, connect.CodeInvalidArgument, "PAGE_TOKEN_INVALID")
	}
}

// mailStatements are the statements that name the outbox, with their arguments.
type mailStatements struct {
	mu   sync.Mutex
	seen map[string]pgx.QueryRewriter
}

func (m *mailStatements) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	m.mu.Lock()
	defer m.mu.Unlock()
	if strings.Contains(data.SQL, "auth.mails") || strings.Contains(data.SQL, "auth.links") {
		m.seen[data.SQL] = nil
		if len(data.Args) > 0 {
			m.seen[data.SQL], _ = data.Args[0].(pgx.QueryRewriter)
		}
	}
	return ctx
}

func (m *mailStatements) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// Among 30,000 mails, none of the statements may read them from end to end, also
// by the plan for any values.
func TestEveryStatementAboutMailIsServedByAnIndex(t *testing.T) {
	t.Parallel()
	statements := &mailStatements{seen: map[string]pgx.QueryRewriter{}}
	h, _ := newMailHarness(t, mailtest.Config{Rcpt: func(to string) error {
		if strings.HasPrefix(to, "refused") {
			return mailtest.Refuse(451, "later")
		}
		return nil
	}}, func(c *auth.Config) {
		config := c.DB.Config()
		config.ConnConfig.Tracer = statements
		pool, err := pgxpool.NewWithConfig(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(pool.Close)
		c.DB = pool
	})
	h.fillMails(t, 30_000)
	h.exec(t, `INSERT INTO auth.links (token_hash, kind, email, expire_time)
		SELECT sha256(n::text::bytea), 'reset', 'user@example.com', now() FROM generate_series(1, 5000) n`)
	h.expiredLink(t)
	h.exec(t, "ANALYZE auth.links")
	h.run(t)
	for _, status := range mailStatuses {
		page, err := h.mails.ListMails(t.Context(), &authv1.ListMailsRequest{Status: status})
		if err != nil {
			t.Fatal(err)
		}
		if _, err = h.mails.ListMails(t.Context(), &authv1.ListMailsRequest{Status: status, PageToken: page.GetNextPageToken()}); err != nil {
			t.Fatal(err)
		}
	}
	_, err := h.mails.RetryMail(t.Context(), &authv1.RetryMailRequest{MailId: newID(t)})
	wantReason(t, err, connect.CodeNotFound, "MAIL_NOT_FOUND")
	h.untilTried(t, h.enqueue(t, resetMail("refused@example.com")), 1)
	late := h.enqueue(t, resetMail("late@example.com"))
	h.untilSent(t, late)
	h.exec(t, "UPDATE auth.mails SET create_time = now() - interval '3 hours' WHERE recipient = 'refused@example.com'")
	h.exec(t, "UPDATE auth.mails SET next_attempt_time = now() WHERE recipient = 'refused@example.com'")
	h.until(t, 1, "SELECT count(*) FROM auth.links WHERE expire_time > now() + interval '20 minutes'")

	conn, err := pgx.Connect(t.Context(), h.config.DB.Config().ConnString())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), "SET plan_cache_mode = force_generic_plan"); err != nil {
		t.Fatal(err)
	}
	statements.mu.Lock()
	defer statements.mu.Unlock()
	if len(statements.seen) < 16 {
		t.Errorf("only %d statements were seen", len(statements.seen))
	}
	for sql, args := range statements.seen {
		if strings.Contains(sql, "INSERT") {
			continue
		}
		if plan := genericPlan(t, conn, sql, args); strings.Contains(plan, "Seq Scan") || strings.Contains(sql, "LIMIT @limit") && strings.Contains(plan, "Sort") {
			t.Errorf("%s\nruns as\n%s", sql, plan)
		}
	}
}

func genericPlan(t *testing.T, conn *pgx.Conn, sql string, args pgx.QueryRewriter) string {
	t.Helper()
	if args != nil {
		var err error
		if sql, _, err = args.RewriteQuery(t.Context(), conn, sql, nil); err != nil {
			t.Fatal(err)
		}
	}
	prepared, err := conn.Prepare(t.Context(), "mail_statement", sql)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	defer func() { _ = conn.Deallocate(t.Context(), "mail_statement") }()
	values := slices.Repeat([]string{"NULL"}, len(prepared.ParamOIDs))
	execute := "EXPLAIN EXECUTE mail_statement"
	if len(values) > 0 {
		execute += " (" + strings.Join(values, ", ") + ")"
	}
	rows, err := conn.Query(t.Context(), execute)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return strings.Join(lines, "\n")
}
