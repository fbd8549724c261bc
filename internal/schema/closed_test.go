package schema_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"gatehouse/internal/pgtest"
	"gatehouse/internal/schema"
)

// lastMonth is an age of an event of an earlier month, on whatever day the test runs.
const lastMonth = "32 days"

// closeAudit closes the open table as auth, and returns the closed table's name.
func closeAudit(t *testing.T, auth *pgx.Conn) string {
	t.Helper()
	var name string
	if err := auth.QueryRow(t.Context(), `SELECT coalesce(auth.close_audit(), '')`).Scan(&name); err != nil {
		t.Fatalf("close_audit: %v", err)
	}
	return name
}

func insert(t *testing.T, auth *pgx.Conn, age, event string) {
	t.Helper()
	if _, err := auth.Exec(t.Context(), insertEvent, age, event, nil, nil); err != nil {
		t.Fatalf("insert %s: %v", event, err)
	}
}

// selectShape describes a table with everything that belongs to it.
const selectShape = `
SELECT string_agg(line, E'\n' ORDER BY line) FROM (
	SELECT format('table %s %s %s %s %s', relkind, relpersistence, reloptions, relacl, pg_get_userbyid(relowner)) FROM pg_class WHERE oid = $1::regclass
	UNION ALL
	SELECT format('column %s %s %s %s %s %s %s', attnum, attname, format_type(atttypid, atttypmod), attnotnull, attcollation, attstorage, attacl) || coalesce(pg_get_expr(adbin, adrelid), '')
	FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum WHERE attrelid = $1::regclass AND attnum > 0
	UNION ALL
	SELECT format('constraint %s %s', conname, pg_get_constraintdef(oid)) FROM pg_constraint WHERE conrelid = $1::regclass
	UNION ALL
	SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = $1::regclass
) AS lines (line)`

func shape(t *testing.T, cfg schema.Config, table string) string {
	t.Helper()
	return query[string](t, cfg.DatabaseURL, selectShape, table)
}

// The open table of a database in which months were closed is that of a fresh database, the
// events of all tables are in it, and there is nothing to apply.
func TestClosingTheAuditLogChangesNothingButTheTable(t *testing.T) {
	t.Parallel()
	cfg, reader := readerConfig(t)
	exec(t, cfg.DatabaseURL, `ALTER TABLE auth.audit_events SET (autovacuum_vacuum_scale_factor = 0.05)`)
	apply(t, cfg)
	auth := pgtest.Connect(t, serviceURL(t, cfg, "auth"))
	if got := closeAudit(t, auth); got != "" {
		t.Errorf("an empty table was closed as %q", got)
	}
	insert(t, auth, "0 days", "now")
	if got := closeAudit(t, auth); got != "" {
		t.Errorf("a table with events of this month was closed as %q", got)
	}
	insert(t, auth, lastMonth, "old")
	fresh := shape(t, cfg, "auth.audit_events")
	closed := closeAudit(t, auth)
	if want := query[string](t, cfg.DatabaseURL, `SELECT 'audit_events_' || to_char(date_trunc('month', now() AT TIME ZONE 'UTC') - interval '1 day', 'YYYY_MM')`); closed != want {
		t.Fatalf("the table was closed as %q, want %q", closed, want)
	}
	if got := shape(t, cfg, "auth.audit_events"); got != fresh {
		t.Errorf("the open table is\n%s\nwant\n%s", got, fresh)
	}
	insert(t, auth, lastMonth, "late")
	if got := closeAudit(t, auth); got != "" {
		t.Errorf("the table was closed twice in a month, as %q", got)
	}
	if got := query[[]string](t, serviceURL(t, cfg, "auth"), `SELECT array_agg(event ORDER BY event) FROM auth.audit_events`); !slices.Equal(got, []string{"late", "now", "old"}) {
		t.Errorf("auth reads %q, want all events", got)
	}
	if got := query[int](t, reader, `SELECT count(event) FROM auth.audit_events`); got != 3 {
		t.Errorf("the reader reads %d events, want 3", got)
	}
	if got := query[int](t, cfg.DatabaseURL, `SELECT count(*) FROM ONLY auth.audit_events`); got != 1 {
		t.Errorf("the open table has %d events, want the late one", got)
	}
	wantNothingPlanned(t, cfg)
	unchanged := cfg
	unchanged.DevURL = "postgres://nowhere.invalid/none" // a comparison of the tables would need it
	if done := apply(t, unchanged); len(done.Statements) != 0 {
		t.Errorf("Apply executed %q, want nothing", done.Statements)
	}

	// Two months later.
	exec(t, cfg.DatabaseURL, `ALTER TABLE auth.`+closed+` RENAME TO audit_events_2001_01`, `ALTER INDEX auth.`+closed+`_pkey RENAME TO audit_events_2001_01_pkey`,
		`ALTER INDEX auth.`+closed+`_refusal_key RENAME TO r`, `ALTER INDEX auth.`+closed+`_event_idx RENAME TO e`,
		`ALTER INDEX auth.`+closed+`_account_id_idx RENAME TO i`, `ALTER INDEX auth.`+closed+`_actor_id_idx RENAME TO j`)
	if got := closeAudit(t, auth); got != closed {
		t.Errorf("the next table was closed as %q, want %q", got, closed)
	}
	if got := shape(t, cfg, "auth.audit_events"); got != fresh {
		t.Errorf("the third open table is\n%s\nwant\n%s", got, fresh)
	}
	children := query[[]string](t, cfg.DatabaseURL, `SELECT array_agg(inhrelid::regclass::text ORDER BY 1) FROM pg_inherits WHERE inhparent = 'auth.audit_events'::regclass`)
	if !slices.Equal(children, []string{"auth.audit_events_2001_01", "auth." + closed}) {
		t.Errorf("the open table has the children %q", children)
	}
	wantNothingPlanned(t, cfg)
}

// A closed table has no privileges, so nobody changes or reads it but through the open one.
func TestNobodyHasAccessToClosedTables(t *testing.T) {
	t.Parallel()
	cfg, reader := readerConfig(t)
	auth := pgtest.Connect(t, serviceURL(t, cfg, "auth"))
	insert(t, auth, lastMonth, "old")
	closed := closeAudit(t, auth)
	check := func(when string) {
		t.Helper()
		for _, url := range []string{serviceURL(t, cfg, "auth"), serviceURL(t, cfg, "users"), reader} {
			conn := pgtest.Connect(t, url)
			for _, sql := range []string{`SELECT event FROM auth.` + closed, `DELETE FROM auth.` + closed, `UPDATE auth.` + closed + ` SET event = ''`,
				`INSERT INTO auth.` + closed + ` (id, event, outcome) VALUES (gen_random_uuid(), '', '')`,
				`DELETE FROM auth.audit_events`, `UPDATE auth.audit_events SET event = ''`, `DROP TABLE auth.` + closed} {
				if _, err := conn.Exec(t.Context(), sql); sqlState(err) != denied && sqlState(err) != "25006" {
					t.Errorf("%s: %s: %v, want SQLSTATE %s", when, sql, err, denied)
				}
			}
			conn.Close(t.Context())
		}
	}
	check("after the closing")
	exec(t, cfg.DatabaseURL, `GRANT SELECT ON users.profiles TO PUBLIC`) // all grants are made again
	apply(t, cfg)
	check("after the grants")
	exec(t, cfg.DatabaseURL, `GRANT DELETE ON auth.`+closed+` TO `+pgx.Identifier{schema.RoleName(query[string](t, cfg.DatabaseURL, `SELECT current_database()`), "auth")}.Sanitize())
	if planned := plan(t, cfg); !strings.Contains(strings.Join(planned.Statements, "\n"), `REVOKE ALL ON "auth"."`+closed+`"`) {
		t.Errorf("Plan = %q, want the grant to be revoked", planned.Statements)
	}
	apply(t, cfg)
	check("after a grant too many")
	wantNothingPlanned(t, cfg)
}

// previousStatements are the statements of the release before closed tables, of number 8.
var previousStatements = []string{`
	INSERT INTO auth.audit_events
		(id, create_time, event, outcome, reason, account_id, actor_id, session_id, ip_address, user_agent, request_id)
	SELECT gen_random_uuid(), now(), $1, 'succeeded', '', NULL, NULL, NULL, '', '', '' WHERE true`, `
	WITH now AS MATERIALIZED (
		SELECT date_trunc('minute', clock_timestamp()) AS minute
	), written AS (
		INSERT INTO auth.audit_events
			(id, create_time, event, outcome, reason, account_id, actor_id, session_id, ip_address, user_agent, request_id,
			refusal_key, refusal_minute)
		SELECT gen_random_uuid(), now(), $1, 'refused', 'R', NULL, NULL, NULL, '', '', '', decode(md5($1) || md5($1), 'hex'), now.minute
		FROM now
		ON CONFLICT (refusal_key, refusal_minute) WHERE refusal_key IS NOT NULL DO NOTHING
		RETURNING id
	)
	SELECT auth.count_refusal(decode(md5($1) || md5($1), 'hex'), now.minute) FROM now WHERE NOT EXISTS (SELECT FROM written)`, `
	INSERT INTO auth.audit_events (id, create_time, event, outcome, changed)
	SELECT gen_random_uuid(), now(), $1, 'succeeded', '{}'
	ON CONFLICT ON CONSTRAINT audit_events_pkey DO NOTHING`,
}

// Statements of an older version, prepared before, write events while tables are closed and
// pruned. Each event is stored once, and none is refused.
func TestNoEventIsLostWhileTablesAreClosed(t *testing.T) {
	t.Parallel()
	cfg := appliedConfig(t)
	const writers, closings = 4, 8
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var group sync.WaitGroup
	written := make([]int, writers)
	for i := range writers {
		conn := pgtest.Connect(t, serviceURL(t, cfg, "auth"))
		group.Go(func() {
			for ctx.Err() == nil {
				for _, statement := range previousStatements {
					if _, err := conn.Exec(context.WithoutCancel(ctx), statement, fmt.Sprint("writer ", i)); err != nil {
						t.Errorf("write an event: %v", err)
						return
					}
					written[i]++
				}
			}
		})
	}
	auth := pgtest.Connect(t, serviceURL(t, cfg, "auth"))
	owner := pgtest.Connect(t, cfg.DatabaseURL)
	for n := 0; n < closings; {
		insert(t, auth, lastMonth, "old")
		var closed *string
		err := auth.QueryRow(t.Context(), `SELECT auth.close_audit()`).Scan(&closed)
		if sqlState(err) == "55P03" {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := auth.Exec(t.Context(), `SELECT auth.prune_audit('100 days')`); err != nil {
			t.Fatal(err)
		}
		if closed == nil {
			continue
		}
		n++
		rename := fmt.Sprintf(`DO $$ DECLARE i name; BEGIN
			ALTER TABLE auth.%[1]s RENAME TO past_%[2]d;
			FOR i IN SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = 'auth.past_%[2]d'::regclass LOOP
				EXECUTE format('ALTER INDEX %%s RENAME TO %%I', i, replace(substr(i, 6), '%[1]s', 'past_%[2]d'));
			END LOOP; END $$`, *closed, n)
		if _, err := owner.Exec(t.Context(), rename); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	group.Wait()
	total := 0
	for i, n := range written {
		total += n
		if n == 0 {
			t.Errorf("writer %d wrote nothing", i)
		}
	}
	if got := query[int](t, cfg.DatabaseURL, `SELECT sum(count) FROM auth.audit_events WHERE event LIKE 'writer%'`); got != total {
		t.Errorf("the log counts %d events, want the %d that were written", got, total)
	}
	if got := query[int](t, cfg.DatabaseURL, `SELECT count(*) FROM pg_inherits WHERE inhparent = 'auth.audit_events'::regclass`); got != closings {
		t.Errorf("there are %d closed tables, want %d", got, closings)
	}
	t.Logf("%d events while %d tables were closed", total, closings)
}

// While somebody reads the log for hours, such as pg_dump, closing and dropping give up, and
// events are written.
func TestALongReaderDelaysTheClosingAlone(t *testing.T) {
	t.Parallel()
	cfg := appliedConfig(t)
	auth := pgtest.Connect(t, serviceURL(t, cfg, "auth"))
	insert(t, auth, "200 days", "old")
	closeAudit(t, auth)
	insert(t, auth, "150 days", "next")
	exec(t, cfg.DatabaseURL, `ALTER TABLE auth.`+query[string](t, cfg.DatabaseURL, `SELECT c.relname FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid WHERE inhparent = 'auth.audit_events'::regclass`)+` RENAME TO past`)
	tx, err := pgtest.Connect(t, cfg.DatabaseURL).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.WithoutCancel(t.Context()))
	if _, err := tx.Exec(t.Context(), `SELECT count(*) FROM auth.audit_events`); err != nil {
		t.Fatal(err)
	}
	// A wait as long as this would delay everybody who writes events.
	if _, err := auth.Exec(t.Context(), `SET statement_timeout = '10s'`); err != nil {
		t.Fatal(err)
	}
	if _, err := auth.Exec(t.Context(), `SELECT auth.close_audit()`); sqlState(err) != "55P03" {
		t.Errorf("close_audit beside a reader: %v, want SQLSTATE 55P03", err)
	}
	if _, err := auth.Exec(t.Context(), `SELECT auth.prune_audit('100 days')`); err != nil {
		t.Errorf("prune_audit beside a reader: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := auth.Exec(ctx, insertEvent, "0 days", "new", nil, nil); err != nil {
		t.Errorf("write an event beside a reader: %v", err)
	}
	if got := query[[]string](t, cfg.DatabaseURL, `SELECT array_agg(event ORDER BY event) FROM auth.audit_events`); !slices.Equal(got, []string{"new", "old"}) {
		t.Errorf("the log has %q; want the closed table to wait, and the open one to be pruned", got)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := auth.Exec(t.Context(), `SELECT auth.prune_audit('100 days')`); err != nil {
		t.Fatal(err)
	}
	if got := query[[]string](t, cfg.DatabaseURL, `SELECT array_agg(event) FROM auth.audit_events`); !slices.Equal(got, []string{"new"}) {
		t.Errorf("after the reader, the log has %q, want only the new event", got)
	}
}

// A month is dropped as a whole once its newest event is older than the retention. The table
// that was open when the closing began spans many months: its rows are deleted one by one.
func TestClosedTablesAreDroppedWhole(t *testing.T) {
	t.Parallel()
	cfg := appliedConfig(t)
	auth := pgtest.Connect(t, serviceURL(t, cfg, "auth"))
	for _, age := range []string{"130 days", "110 days"} {
		insert(t, auth, age, "month")
	}
	month := closeAudit(t, auth)
	exec(t, cfg.DatabaseURL, `ALTER TABLE auth.`+month+` RENAME TO a_month`)
	exec(t, cfg.DatabaseURL, `CREATE TABLE auth.many (LIKE auth.audit_events INCLUDING ALL)`, `ALTER TABLE auth.many INHERIT auth.audit_events`)
	owner := pgtest.Connect(t, cfg.DatabaseURL)
	for _, age := range []string{"400 days", "130 days", "110 days", "10 days"} {
		insert(t, owner, age, "many")
	}
	exec(t, cfg.DatabaseURL, `WITH moved AS (DELETE FROM ONLY auth.audit_events RETURNING *) INSERT INTO auth.many SELECT * FROM moved`)
	for _, test := range []struct {
		keep        string
		month, many int
	}{
		{"120 days", 2, 2}, // the older half of the month is there, and not listed
		{"105 days", 0, 1},
		{"30 days", 0, 1},
	} {
		if _, err := auth.Exec(t.Context(), `SELECT auth.prune_audit($1::interval)`, test.keep); err != nil {
			t.Fatal(err)
		}
		month := query[int](t, cfg.DatabaseURL, `SELECT count(*) FROM auth.audit_events WHERE event = 'month'`)
		many := query[int](t, cfg.DatabaseURL, `SELECT count(*) FROM auth.audit_events WHERE event = 'many'`)
		if month != test.month || many != test.many {
			t.Errorf("keeping %s leaves %d events of the month and %d of many months, want %d and %d", test.keep, month, many, test.month, test.many)
		}
	}
	if query[bool](t, cfg.DatabaseURL, `SELECT to_regclass('auth.a_month') IS NOT NULL`) {
		t.Error("the table of the month is still there")
	}
}

// A later schema.sql reaches the closed tables: its columns by inheritance, its indexes
// concurrently.
func TestALaterSchemaReachesClosedTables(t *testing.T) {
	t.Parallel()
	cfg := appliedConfig(t)
	auth := pgtest.Connect(t, serviceURL(t, cfg, "auth"))
	insert(t, auth, lastMonth, "old")
	closed := closeAudit(t, auth)
	later := with(cfg, 1002, `CREATE INDEX audit_events_session_id_idx ON auth.audit_events (session_id, id);`)
	const last = "    target_id       uuid,\n"
	if later.SQL = strings.Replace(later.SQL, last, last+"    place           text        NOT NULL DEFAULT '',\n", 1); !strings.Contains(later.SQL, " place ") {
		t.Fatalf("schema.sql has no %q", last)
	}
	done := strings.Join(apply(t, later).Statements, "\n")
	if want := `CREATE INDEX CONCURRENTLY ` + closed + `_session_id_idx ON auth.` + closed + ` USING btree (session_id, id)`; !strings.Contains(done, want) {
		t.Errorf("Apply executed\n%s\nwant %s", done, want)
	}
	if got := query[string](t, cfg.DatabaseURL, `SELECT place || count(*) FROM auth.audit_events GROUP BY place`); got != "1" {
		t.Errorf("the closed table's event has the place and count %q, want 1", got)
	}
	wantNothingPlanned(t, later)
	exec(t, cfg.DatabaseURL, `DROP INDEX auth.`+closed+`_event_idx`)
	if planned := plan(t, later); len(planned.Statements) != 1 || !strings.Contains(planned.Statements[0], closed+"_event_idx") {
		t.Errorf("Plan = %q, want the dropped index", planned.Statements)
	}
}

// A retention that is longer than ids have times keeps everything.
func TestAnyRetentionKeepsClosedTables(t *testing.T) {
	t.Parallel()
	cfg := appliedConfig(t)
	auth := pgtest.Connect(t, serviceURL(t, cfg, "auth"))
	insert(t, auth, "60 days", "first")
	insert(t, auth, "50 days", "last")
	closeAudit(t, auth)
	for _, test := range []struct {
		keep any
		want int
	}{
		{"100 years", 2}, {"1000000 years", 2}, {"61 days", 2}, {"55 days", 2}, {"-100 years", 0}, {nil, 0},
	} {
		if _, err := auth.Exec(t.Context(), `SELECT auth.prune_audit($1::interval)`, test.keep); err != nil {
			t.Errorf("prune_audit(%v): %v", test.keep, err)
		}
		if got := query[int](t, cfg.DatabaseURL, `SELECT count(*) FROM auth.audit_events`); got != test.want {
			t.Errorf("prune_audit(%v) leaves %d events, want %d", test.keep, got, test.want)
		}
	}
}

// A closed table is not dropped for the ids of its events alone.
func TestAClosedTableIsKeptForTheTimesOfItsEvents(t *testing.T) {
	t.Parallel()
	cfg := appliedConfig(t)
	auth := pgtest.Connect(t, serviceURL(t, cfg, "auth"))
	insert(t, auth, "60 days", "old")
	closed := closeAudit(t, auth)
	exec(t, cfg.DatabaseURL, `UPDATE auth.`+closed+` SET create_time = now() - interval '1 day'`)
	for _, want := range []int{1, 0} {
		if _, err := auth.Exec(t.Context(), `SELECT auth.prune_audit('30 days')`); err != nil {
			t.Fatal(err)
		}
		if got := query[int](t, cfg.DatabaseURL, `SELECT count(*) FROM auth.audit_events`); got != want {
			t.Fatalf("prune_audit leaves %d events, want %d", got, want)
		}
		if want > 0 {
			exec(t, cfg.DatabaseURL, `UPDATE auth.`+closed+` SET create_time = now() - interval '31 days'`)
		}
	}
}

// A view on a closed table keeps that one, and ends no other pruning.
func TestAViewKeepsOneClosedTableAlone(t *testing.T) {
	t.Parallel()
	cfg := appliedConfig(t)
	auth := pgtest.Connect(t, serviceURL(t, cfg, "auth"))
	insert(t, auth, "60 days", "viewed")
	exec(t, cfg.DatabaseURL, `CREATE SCHEMA reports`, `CREATE VIEW reports.events AS SELECT event FROM auth.audit_events`)
	closed := closeAudit(t, auth)
	exec(t, cfg.DatabaseURL, `ALTER TABLE auth.`+closed+` RENAME TO viewed`, `ALTER INDEX auth.`+closed+`_pkey RENAME TO p`, `ALTER INDEX auth.`+closed+`_refusal_key RENAME TO r`,
		`DROP INDEX auth.`+closed+`_event_idx, auth.`+closed+`_account_id_idx, auth.`+closed+`_actor_id_idx`)
	insert(t, auth, "55 days", "next")
	closeAudit(t, auth)
	insert(t, auth, "50 days", "open")
	if _, err := auth.Exec(t.Context(), `SELECT auth.prune_audit('30 days')`); err != nil {
		t.Fatalf("prune_audit with a view on a closed table: %v", err)
	}
	if got := query[[]string](t, cfg.DatabaseURL, `SELECT array_agg(event) FROM auth.audit_events`); !slices.Equal(got, []string{"viewed"}) {
		t.Errorf("the log has %q, want the events of the view's table alone", got)
	}
	exec(t, cfg.DatabaseURL, `DROP VIEW reports.events`)
	if _, err := auth.Exec(t.Context(), `SELECT auth.prune_audit('30 days')`); err != nil {
		t.Fatal(err)
	}
	if got := query[int](t, cfg.DatabaseURL, `SELECT count(*) FROM auth.audit_events`); got != 0 {
		t.Errorf("without the view, the log has %d events, want none", got)
	}
}

// A later schema.sql gives an index another definition under its name.
func TestARedefinedIndexReachesClosedTables(t *testing.T) {
	t.Parallel()
	cfg := appliedConfig(t)
	auth := pgtest.Connect(t, serviceURL(t, cfg, "auth"))
	insert(t, auth, lastMonth, "old")
	closed := closeAudit(t, auth)
	later := with(cfg, 1002, "")
	const before, after = "audit_events_event_idx ON auth.audit_events (event, outcome, id)", "audit_events_event_idx ON auth.audit_events (event, id)"
	if later.SQL = strings.Replace(later.SQL, before, after, 1); !strings.Contains(later.SQL, after) {
		t.Fatalf("schema.sql has no %q", before)
	}
	later.AllowDestructive, later.AllowLocking = true, true
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := schema.Apply(ctx, later); err != nil {
		t.Fatalf("Apply: %v", err)
	}
	if got := query[string](t, cfg.DatabaseURL, `SELECT pg_get_indexdef('auth.`+closed+`_event_idx'::regclass)`); !strings.HasSuffix(got, "(event, id)") {
		t.Errorf("the closed table has the index %q, want that of (event, id)", got)
	}
	wantNothingPlanned(t, later)
}

// An index whose name is taken is reported, instead of being built for ever.
func TestAnIndexThatCannotBeBuiltIsAnError(t *testing.T) {
	t.Parallel()
	cfg := appliedConfig(t)
	auth := pgtest.Connect(t, serviceURL(t, cfg, "auth"))
	insert(t, auth, lastMonth, "old")
	closed := closeAudit(t, auth)
	exec(t, cfg.DatabaseURL, `DROP INDEX auth.`+closed+`_event_idx`, `CREATE SEQUENCE auth.`+closed+`_event_idx`)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	later := with(cfg, 1002, "")
	if _, err := schema.Apply(ctx, later); err == nil || ctx.Err() != nil || !strings.Contains(err.Error(), closed+"_event_idx") {
		t.Errorf("Apply: %v, want an error that names the index", err)
	}
}

// A vacuum or a statement on a closed table makes the closing give up at once: meanwhile all
// who write events would wait.
func TestTheClosingDoesNotWaitForClosedTables(t *testing.T) {
	t.Parallel()
	cfg := appliedConfig(t)
	auth := pgtest.Connect(t, serviceURL(t, cfg, "auth"))
	insert(t, auth, "70 days", "old")
	exec(t, cfg.DatabaseURL, `ALTER TABLE auth.`+closeAudit(t, auth)+` RENAME TO past`)
	insert(t, auth, lastMonth, "next")
	tx, err := pgtest.Connect(t, cfg.DatabaseURL).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.WithoutCancel(t.Context()))
	if _, err := tx.Exec(t.Context(), `LOCK TABLE auth.past IN SHARE UPDATE EXCLUSIVE MODE`); err != nil {
		t.Fatal(err)
	}
	_, err = auth.Exec(t.Context(), `SELECT auth.close_audit()`)
	if sqlState(err) != "55P03" || !strings.Contains(err.Error(), "could not obtain lock") {
		t.Errorf("close_audit beside a vacuum: %v, want it not to wait", err)
	}
}

// A closing cannot come between the list of the closed tables and the grants of Apply.
func TestAClosingDuringTheGrantsLeavesNoPrivileges(t *testing.T) {
	t.Parallel()
	cfg := appliedConfig(t)
	auth := pgtest.Connect(t, serviceURL(t, cfg, "auth"))
	insert(t, auth, lastMonth, "old")
	role := pgx.Identifier{schema.RoleName(query[string](t, cfg.DatabaseURL, `SELECT current_database()`), "auth")}.Sanitize()
	exec(t, cfg.DatabaseURL, `GRANT SELECT ON users.profiles TO PUBLIC`, `ALTER ROLE `+role+` CREATEROLE`)
	owner := pgtest.Connect(t, cfg.DatabaseURL)
	tx, err := owner.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.WithoutCancel(t.Context()))
	// Apply corrects the role first, and waits for this.
	if _, err := tx.Exec(t.Context(), `ALTER ROLE `+role+` CREATEROLE`); err != nil {
		t.Fatal(err)
	}
	applied := make(chan error, 1)
	go func() { _, err := schema.Apply(t.Context(), cfg); applied <- err }()
	const selectWaiting = `SELECT count(*) FROM pg_locks WHERE NOT granted AND transactionid = (SELECT transactionid FROM pg_locks WHERE pid = $1 AND locktype = 'transactionid')`
	for waiting := 0; waiting == 0; time.Sleep(10 * time.Millisecond) {
		waiting = query[int](t, cfg.DatabaseURL, selectWaiting, owner.PgConn().PID())
	}
	if _, err := auth.Exec(t.Context(), `SELECT auth.close_audit()`); err != nil && sqlState(err) != "55P03" {
		t.Fatal(err)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-applied; err != nil {
		t.Fatalf("Apply: %v", err)
	}
	closeAudit(t, auth)
	if got := query[[]string](t, cfg.DatabaseURL, `SELECT coalesce(array_agg(c.relname || ' ' || a.privilege_type), '{}')
		FROM pg_inherits h JOIN pg_class c ON c.oid = h.inhrelid, aclexplode(c.relacl) a
		WHERE h.inhparent = 'auth.audit_events'::regclass AND a.grantee <> c.relowner`); len(got) > 0 {
		t.Errorf("others than the owner have the privileges %q on closed tables", got)
	}
}
