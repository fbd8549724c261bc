package auth_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"gatehouse/auth"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/mailtest"
	"gatehouse/internal/pgtest"
)

// readsLittle explains statements, and fails if a page of 25 reads many rows or blocks.
func readsLittle(t *testing.T, conn *pgx.Conn, statements *pgtest.Recorder, state string, request any) {
	t.Helper()
	for _, statement := range statements.All() {
		for _, plan := range pgtest.Explain(t, conn, statement) {
			if plan.Reads("Seq Scan") || plan.Rows() > 1500 || plan.Blocks() > 1500 {
				t.Errorf("%s: {%v} reads %d rows and %d blocks by\n%s\n%s", state, request, plan.Rows(), plan.Blocks(), statement.SQL, plan)
			}
		}
	}
}

// Of 60,000 events, half are refused sign-ins of one account. Postgres plans without
// statistics, then with those of a time before the attack, then with current ones.
func TestAuditPagesReadFewRowsWhateverTheStatistics(t *testing.T) {
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
	h.exec(t, "ALTER TABLE auth.audit_events SET (autovacuum_enabled = false)")
	attacked, admin := newID(t), newID(t)
	people := make([]string, 1000)
	for i := range people {
		people[i] = newID(t)
	}
	events := eventsUnderAttack(time.Now().Add(-200_000*time.Second), attacked, admin, people)
	conn := pgtest.Connect(t, database.Owner)
	for _, step := range []struct {
		state string
		add   []happened
		after string
	}{
		{"without statistics", events[:30_000], ""},
		{"with statistics of half the events", events[30_000:60_000], "ANALYZE auth.audit_events"},
		{"with statistics", nil, "VACUUM ANALYZE auth.audit_events"},
	} {
		if step.after != "" {
			h.exec(t, step.after)
		}
		h.happen(t, step.add)
		for _, req := range []*authv1.ListAuditEventsRequest{
			{}, {Event: "session."}, {Event: "account.email.change"}, {Outcome: "refused"}, {Event: "nothing"},
			{AccountId: attacked}, {AccountId: attacked, ActorId: admin}, {AccountId: people[1], Outcome: "succeeded"}, {ActorId: admin},
		} {
			for depth := range 12 {
				statements.Forget()
				page, err := h.audit.ListAuditEvents(t.Context(), req)
				if err != nil {
					t.Fatalf("%v: %v", req, err)
				}
				if depth == 0 || depth == 11 {
					readsLittle(t, conn, statements, step.state, req)
				}
				if req.PageToken = page.GetNextPageToken(); req.GetPageToken() == "" {
					break
				}
			}
		}
	}
}

// The statistics are of an outage, when every mail was pending, or of none.
func TestMailPagesReadFewRowsWhateverTheStatistics(t *testing.T) {
	t.Parallel()
	statements := &pgtest.Recorder{}
	h, _ := newMailHarness(t, mailtest.Config{}, func(c *auth.Config) {
		config := c.DB.Config()
		config.ConnConfig.Tracer = statements
		pool, err := pgxpool.NewWithConfig(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(pool.Close)
		c.DB = pool
	})
	acquired, err := h.owner.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer acquired.Release()
	conn := acquired.Conn()
	h.exec(t, "ALTER TABLE auth.mails SET (autovacuum_enabled = false)")
	const insert = `
		INSERT INTO auth.mails (id, kind, recipient, next_attempt_time, sealed_values)
		SELECT ('01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'reset_password', 'user@example.com', now() + interval '1 hour', 'sealed'
		FROM generate_series(1, 30000) AS n`
	for _, step := range []struct {
		state      string
		statements []string
	}{
		{"without statistics", []string{insert}},
		{"with statistics of an outage", []string{
			"ANALYZE auth.mails",
			"UPDATE auth.mails SET sent_time = now(), sealed_values = NULL WHERE id < '01900000-0000-7000-8000-000000007000'",
			"VACUUM (INDEX_CLEANUP ON) auth.mails",
		}},
		{"with statistics", []string{"ANALYZE auth.mails"}},
	} {
		for _, statement := range step.statements {
			h.exec(t, statement)
		}
		for _, status := range mailStatuses {
			req := &authv1.ListMailsRequest{Status: status}
			for depth := range 12 {
				statements.Forget()
				page, err := h.mails.ListMails(t.Context(), req)
				if err != nil {
					t.Fatalf("%v: %v", req, err)
				}
				if depth == 0 || depth == 11 {
					readsLittle(t, conn, statements, step.state, req)
				}
				if req.PageToken = page.GetNextPageToken(); req.GetPageToken() == "" {
					break
				}
			}
		}
	}
}
