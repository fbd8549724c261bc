package auth_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/protobuf/types/known/timestamppb"

	"gatehouse/auth"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/pgtest"
)

// closeAs closes the open table of the audit log as if that were done in an earlier month.
func (h *harness) closeAs(t *testing.T, name string) {
	t.Helper()
	var closed string
	if err := h.owner.QueryRow(t.Context(), "SELECT coalesce(auth.close_audit(), '')").Scan(&closed); err != nil || closed == "" {
		t.Fatalf("closing the audit log: %q, %v", closed, err)
	}
	h.exec(t, fmt.Sprintf(`DO $$ DECLARE i name; BEGIN
		ALTER TABLE auth.%[1]s RENAME TO %[2]s;
		FOR i IN SELECT relname FROM pg_index JOIN pg_class c ON c.oid = indexrelid WHERE indrelid = 'auth.%[2]s'::regclass LOOP
			EXECUTE format('ALTER INDEX auth.%%I RENAME TO %%I', i, replace(i, '%[1]s', '%[2]s'));
		END LOOP; END $$`, closed, name))
}

// The janitor closes the table of an earlier month. It stays until its newest event is older
// than the retention; nobody is shown those that already are.
func TestEventsOlderThanTheRetentionAreShownToNobody(t *testing.T) {
	t.Parallel()
	h := newHarness(t, func(c *auth.Config) { c.AuditLife = 100 * 24 * time.Hour })
	ada, _ := h.signUp(t, "ada@example.com")
	var events []happened
	for _, days := range []int{110, 101, 99, 90} {
		at := time.Now().AddDate(0, 0, -days)
		events = append(events, happened{idAt(at), at, "session.logout", "succeeded", ada.GetId(), ""})
	}
	h.exec(t, "DELETE FROM auth.audit_events")
	h.happen(t, events)
	h.closeAs(t, "audit_events_past")
	if err := h.service.PruneForTest(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := h.count(t, "SELECT count(*) FROM auth.audit_events_past"); n != 4 {
		t.Fatalf("the closed table has %d events, want all 4", n)
	}
	want := []string{uuid.UUID(events[3].id).String(), uuid.UUID(events[2].id).String()}
	for _, req := range []*authv1.ListAuditEventsRequest{
		{}, {AccountId: ada.GetId()}, {Event: "session."}, {Outcome: "succeeded"}, {StartTime: timestamppb.New(time.Now().AddDate(-1, 0, 0))},
	} {
		if got := h.walk(t, req); !slices.Equal(got, want) {
			t.Errorf("%v lists %q, want %q", req, got, want)
		}
	}
	export, err := h.accounts.ExportAccount(t.Context(), &authv1.ExportAccountRequest{AccountId: ada.GetId()})
	if err != nil {
		t.Fatal(err)
	}
	var exported []string
	for _, event := range export.GetAuditEvents() {
		if event.GetEvent() == "session.logout" {
			exported = append(exported, event.GetId())
		}
	}
	if !slices.Equal(exported, want) {
		t.Errorf("the export has %q, want %q", exported, want)
	}
}

// A retention that reaches before the first time of an id hides nothing.
func TestEventsAreShownWithARetentionOfACentury(t *testing.T) {
	t.Parallel()
	h := newHarness(t, func(c *auth.Config) { c.AuditLife = 100 * 365 * 24 * time.Hour })
	at := time.Now().AddDate(0, 0, -400)
	h.happen(t, []happened{{idAt(at), at, "session.logout", "succeeded", "", ""}})
	h.closeAs(t, "audit_events_past")
	if err := h.service.PruneForTest(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, req := range []*authv1.ListAuditEventsRequest{{}, {Event: "session."}} {
		if got := h.walk(t, req); len(got) != 1 {
			t.Errorf("%v lists %q, want the event", req, got)
		}
	}
}

// What cannot be pruned from the audit log keeps nothing else.
func TestTheJanitorGoesOnAfterAFailure(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.signUp(t, "ada@example.com")
	h.exec(t, "UPDATE auth.sessions SET revoke_time = now() - interval '1 year', revoke_reason = 'logout'")
	h.exec(t, "DROP FUNCTION auth.prune_audit(interval)")
	if err := h.service.PruneForTest(t.Context()); err == nil || !strings.Contains(err.Error(), "prune the audit") {
		t.Errorf("Prune: %v, want the error of the audit log", err)
	}
	if n := h.count(t, "SELECT count(*) FROM auth.sessions"); n != 0 {
		t.Errorf("%d sessions are left, want none", n)
	}
}

func TestTheJanitorClosesTheAuditLogEveryMonth(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	at := time.Now().AddDate(0, 0, -32)
	h.happen(t, []happened{{idAt(at), at, "session.logout", "succeeded", "", ""}})
	for range 2 {
		if err := h.service.PruneForTest(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := h.count(t, "SELECT count(*) FROM pg_inherits WHERE inhparent = 'auth.audit_events'::regclass"); n != 1 {
		t.Errorf("there are %d closed tables, want 1", n)
	}
	if n := h.count(t, "SELECT count(*) FROM ONLY auth.audit_events"); n != 0 {
		t.Errorf("the open table has %d events, want none", n)
	}
}

// Thirteen closed months: a page reads a few blocks of each.
func TestAuditPagesReadFewBlocksOfEachClosedTable(t *testing.T) {
	t.Parallel()
	const months = 13
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
	h := newHarness(t, func(c *auth.Config) { c.DB, c.AuditLife = db, 1000*24*time.Hour })
	h.owner = openPool(t, database.Owner)
	attacked, admin := newID(t), newID(t)
	people := make([]string, 1000)
	for i := range people {
		people[i] = newID(t)
	}
	events := eventsUnderAttack(time.Now().Add(-200_000*time.Second), attacked, admin, people)
	for month := range months {
		past := slices.Clone(events[:6000])
		for i := range past {
			past[i].at = past[i].at.AddDate(0, month-months-1, 0)
			past[i].id = idAt(past[i].at)
		}
		h.happen(t, past)
		h.closeAs(t, fmt.Sprintf("audit_events_past_%02d", month))
	}
	h.happen(t, events)
	h.exec(t, "VACUUM ANALYZE auth.audit_events")
	for month := range months {
		h.exec(t, fmt.Sprintf("VACUUM ANALYZE auth.audit_events_past_%02d", month))
	}
	conn := pgtest.Connect(t, database.Owner)
	for _, req := range []*authv1.ListAuditEventsRequest{
		{}, {Event: "session."}, {Event: "nothing"}, {Outcome: "refused"}, {AccountId: attacked}, {AccountId: attacked, ActorId: admin}, {AccountId: people[1]},
		{ActorId: admin}, {StartTime: timestamppb.New(time.Now().Add(-100_000 * time.Second))},
	} {
		statements.Forget()
		if _, err := h.audit.ListAuditEvents(t.Context(), req); err != nil {
			t.Fatalf("%v: %v", req, err)
		}
		for _, statement := range statements.All() {
			for _, plan := range pgtest.Explain(t, conn, statement) {
				if plan.Reads("Seq Scan") || plan.Rows() > 1500 || plan.Blocks() > 250*(months+1) {
					t.Errorf("%v reads %d rows and %d blocks by\n%s\n%s", req, plan.Rows(), plan.Blocks(), statement.SQL, plan)
				}
			}
		}
	}
}

// The copy of an event of users that an older binary stored again after its table was closed
// is listed once.
func TestAnEventInTwoTablesIsListedOnce(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	ada, _ := h.signUp(t, "ada@example.com")
	h.exec(t, "DELETE FROM auth.audit_events")
	var events []happened
	for _, days := range []int{3, 2, 1} {
		at := time.Now().AddDate(0, 0, -days)
		events = append(events, happened{idAt(at), at, "attributes.change", "succeeded", ada.GetId(), ada.GetId()})
	}
	first := time.Now().AddDate(0, 0, -32)
	h.happen(t, append(events, happened{idAt(first), first, "attributes.change", "succeeded", ada.GetId(), ada.GetId()}))
	h.closeAs(t, "audit_events_past")
	h.happen(t, events[:1])
	for _, req := range []*authv1.ListAuditEventsRequest{
		{}, {AccountId: ada.GetId()}, {ActorId: ada.GetId()}, {AccountId: ada.GetId(), ActorId: ada.GetId()}, {Event: "attributes."}, {Outcome: "succeeded"},
	} {
		for size := range int32(5) {
			req.PageSize = size + 1
			if got := h.walk(t, req); len(got) != 4 || len(slices.Compact(got)) != 4 {
				t.Errorf("%v lists %q, want 4 events, each once", req, got)
			}
		}
	}
}
