package auth_test

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"

	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/pgtest"
)

const manyRevocations = `
	INSERT INTO auth.revocations (session_id, expire_time)
	SELECT gen_random_uuid(), now() + interval '6 minutes' FROM generate_series(1, 100000)`

// BenchmarkPollAmong100000Revocations is what auth does four times a second.
func BenchmarkPollAmong100000Revocations(b *testing.B) {
	h := newHarness(b)
	h.exec(b, manyRevocations)
	h.exec(b, "ANALYZE auth.revocations")
	seen := ""
	for _, poll := range []string{"first", "idle"} {
		b.Run(poll, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				from := seen
				if poll == "first" {
					from = ""
				}
				next, found, err := h.service.PollForTest(b.Context(), from)
				if err != nil || (found == 100_000) != (poll == "first") {
					b.Fatalf("%s: found %d, %v", poll, found, err)
				}
				seen = next
			}
		})
	}
}

// BenchmarkStreamBeginsWith100000Revocations is what a gateway costs that comes
// without a cursor, from its call to the whole.
func BenchmarkStreamBeginsWith100000Revocations(b *testing.B) {
	h := newHarness(b)
	h.exec(b, manyRevocations)
	h.run(b)
	size := 0
	for b.Loop() {
		listener := h.listen(b)
		count := 0
		size = 0
		for _, part := range listener.until(b, "the whole", func(m *authv1.WatchRevocationsResponse) bool { return !m.GetMore() }) {
			count, size = count+len(part.GetRevocations()), size+proto.Size(part)
		}
		if count < 100_000 {
			b.Fatalf("the whole has %d", count)
		}
		listener.cancel()
	}
	b.ReportMetric(float64(size)/1e6, "MB/whole")
}

// A client of a service takes messages of 4 MiB.
func TestWhatIsLargeComesInParts(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.exec(t, strings.ReplaceAll(manyRevocations, "100000", "25000"))
	h.run(t)
	listener := h.listen(t)
	parts := listener.until(t, "the last part", func(m *authv1.WatchRevocationsResponse) bool { return !m.GetMore() })
	sessions := map[string]bool{}
	for i, part := range parts {
		for _, one := range part.GetRevocations() {
			sessions[one.GetSessionId()] = true
		}
		first, last := i == 0, i == len(parts)-1
		if part.GetComplete() != first || (part.GetSigningKeys() != nil) != first || (part.GetCursor() != "") != last || proto.Size(part) > 1<<20 {
			t.Errorf("part %d of %d: complete %v, keys %v, cursor %q, %d bytes", i, len(parts), part.GetComplete(), part.GetSigningKeys(), part.GetCursor(), proto.Size(part))
		}
	}
	if len(parts) != 3 || len(sessions) != 25_000 {
		t.Errorf("%d parts name %d sessions, want 3 and 25000", len(parts), len(sessions))
	}
	// What is revoked at once later, too.
	h.exec(t, strings.ReplaceAll(manyRevocations, "100000", "25000"))
	count := 0
	for count < 25_000 {
		for _, part := range listener.until(t, "the last part", func(m *authv1.WatchRevocationsResponse) bool { return !m.GetMore() }) {
			if count += len(part.GetRevocations()); proto.Size(part) > 1<<20 {
				t.Errorf("a part has %d bytes", proto.Size(part))
			}
		}
	}
}

// However much is live, a poll reads by the index only what is new.
func TestAPollReadsByTheIndex(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.exec(t, strings.ReplaceAll(manyRevocations, "100000", "20000"))
	h.exec(t, "ANALYZE auth.revocations")
	seen, found, err := h.service.PollForTest(t.Context(), "")
	for try := 0; err != nil && try < 10; try++ { // a poll has 2 s, and the machine may be busy
		seen, found, err = h.service.PollForTest(t.Context(), "")
	}
	if err != nil || found != 20_000 {
		t.Fatalf("the first poll found %d, %v", found, err)
	}
	rows, err := h.owner.Query(t.Context(), "EXPLAIN "+strings.ReplaceAll(h.service.PollStatementForTest(), "@seen", "'"+seen+"'"))
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var plan strings.Builder
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			t.Fatal(err)
		}
		plan.WriteString(line + "\n")
	}
	if !strings.Contains(plan.String(), "revocations_xid_idx") || strings.Contains(plan.String(), "Seq Scan") {
		t.Errorf("the plan is\n%s", plan.String())
	}
}

// A long transaction elsewhere on the server keeps the horizon back: what was
// read since is not read again.
func TestALongTransactionElsewhereCostsNoReading(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	long, err := h.owner.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer long.Rollback(t.Context())
	if _, err := long.Exec(t.Context(), "SELECT pg_current_xact_id()"); err != nil {
		t.Fatal(err)
	}
	h.exec(t, "INSERT INTO auth.revocations (session_id, expire_time) SELECT gen_random_uuid(), now() + interval '6 minutes' FROM generate_series(1, 100)")
	seen, found, err := h.service.PollForTest(t.Context(), "")
	if err != nil || found != 100 {
		t.Fatalf("the first poll found %d, %v", found, err)
	}
	if _, found, err = h.service.PollForTest(t.Context(), seen); err != nil || found != 0 {
		t.Errorf("the second poll found %d, %v; want nothing", found, err)
	}
	h.exec(t, strings.ReplaceAll(manyRevocations, "100000", "20000"))
	h.exec(t, "ANALYZE auth.revocations")
	if seen, found, err = h.service.PollForTest(t.Context(), seen); err != nil || found != 20_000 {
		t.Fatalf("the third poll found %d, %v", found, err)
	}
	conn, err := h.owner.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	plan := pgtest.Explain(t, conn.Conn(), pgx.TraceQueryStartData{SQL: h.service.PollStatementForTest(), Args: []any{pgx.NamedArgs{"seen": seen}}})[0]
	if rows := plan.Rows(); rows > 10 {
		t.Errorf("a poll reads %d rows while nothing is new:\n%s", rows, plan)
	}
}

// A server that was restored, or took another's place, has other transactions
// under the numbers that are known: what it has is all that counts.
func TestAnotherServerIsReadFromTheBeginning(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.run(t)
	gone, kept := newID(t), newID(t)
	for _, session := range []string{gone, kept} {
		h.exec(t, "INSERT INTO auth.revocations (session_id, expire_time) VALUES ($1, now() + interval '5 minutes')", session)
	}
	listener := h.listen(t)
	cursor := listener.until(t, "what is live", endsSession(kept))[0].GetCursor()
	h.exec(t, "DELETE FROM auth.revocations WHERE session_id = $1", gone)
	var role string
	if err := h.config.DB.QueryRow(t.Context(), "SELECT quote_ident(current_user)").Scan(&role); err != nil {
		t.Fatal(err)
	}
	// To auth, it is one that started at another time.
	h.exec(t, "CREATE FUNCTION auth.pg_postmaster_start_time() RETURNS timestamptz LANGUAGE sql AS 'SELECT ''2026-01-01''::timestamptz'")
	h.exec(t, "ALTER ROLE "+role+" SET search_path = auth, pg_catalog")
	h.exec(t, "DO $$ BEGIN EXECUTE format('ALTER ROLE "+role+" IN DATABASE %I SET search_path = auth, pg_catalog', current_database()); END $$")
	h.exec(t, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND quote_ident(usename) = $1", role)
	began := time.Now()
	messages := listener.until(t, "the whole again", func(m *authv1.WatchRevocationsResponse) bool { return m.GetComplete() })
	if whole := messages[len(messages)-1]; endsSession(gone)(whole) || !endsSession(kept)(whole) {
		t.Errorf("after %s the whole is %v", time.Since(began), whole)
	}
	later := h.listenFrom(t, cursor)
	if first := later.until(t, "the first message", func(*authv1.WatchRevocationsResponse) bool { return true })[0]; !first.GetComplete() {
		t.Error("a cursor of the other server is taken for one of this")
	}
}
