package accountlog

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"gatehouse/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// Each statement is served by an index of the log.
func TestTheAccountLogIsReadByIndexes(t *testing.T) {
	t.Parallel()
	db := pgtest.Pool(t, pgtest.New(t).Owner)
	for _, statement := range []string{
		`INSERT INTO auth.accounts (id, email, password_hash) SELECT gen_random_uuid(), 'user' || n || '@example.com', '' FROM generate_series(1, 20000) n`,
		`ANALYZE auth.accounts, auth.account_log`,
	} {
		if _, err := db.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	statements := map[string]string{
		"changes": selectChanges, "deletions": selectDeletions, "a change": existsChange, "one": selectEvent,
		"missing": selectMissing, "delivery": selectPush, "lags": selectLags, "profile": setProfile,
	}
	for _, work := range maintenance {
		statements[work.what] = work.statement
	}
	for name, statement := range statements {
		rows, err := db.Query(t.Context(), "EXPLAIN "+statement, pgx.QueryExecModeExec, pgx.NamedArgs{
			"seen": "9:9:", "target": "9:9:", "after_xid": "1", "after_id": uuid.Nil.String(), "profiles": true, "most": 200, "deletions_only": false,
			"services": []string{"users"}, "deletions": []bool{false}, "service": Users, "push_after": pushAfter, "account_id": uuid.Nil.String(), "ids": []string{uuid.Nil.String()}, "retention": Retention, "profile": "{}",
		})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		plan := strings.Join(lines, "\n")
		for _, table := range []string{"account_log", "accounts"} {
			if strings.Contains(plan, "Seq Scan on "+table+" ") {
				t.Errorf("%s reads the whole of %s:\n%s", name, table, plan)
			}
		}
	}
}

// While a transaction runs, anywhere on the server, a reader reads what is new, and not again
// what was written since that transaction began.
func TestAReadIsBoundedWhileATransactionRuns(t *testing.T) {
	t.Parallel()
	owner := pgtest.New(t).Owner
	db, conn := pgtest.Pool(t, owner), pgtest.Connect(t, owner)
	long, err := db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer long.Rollback(t.Context())
	const insert = `INSERT INTO auth.accounts (id, email, password_hash) SELECT gen_random_uuid(), 'user' || n || '@example.com', '' FROM generate_series(%d, %d) n`
	if _, err := long.Exec(t.Context(), fmt.Sprintf(insert, 1, 1)); err != nil {
		t.Fatal(err)
	}
	var seen, target string
	for _, statement := range []string{fmt.Sprintf(insert, 2, 20_000), `ANALYZE auth.accounts, auth.account_log`} {
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	const snapshot = `SELECT pg_current_snapshot()::text`
	if err := conn.QueryRow(t.Context(), snapshot).Scan(&seen); err != nil {
		t.Fatal(err)
	}
	xmin, _, _ := strings.Cut(seen, ":")
	args := pgx.NamedArgs{"seen": seen, "target": seen, "after_xid": xmin, "after_id": uuid.Nil.String(), "profiles": true, "most": 200, "deletions_only": false}
	for name, statement := range map[string]string{"changes": selectChanges, "deletions": selectDeletions, "a change": existsChange} {
		plan := pgtest.Explain(t, conn, pgx.TraceQueryStartData{SQL: statement, Args: []any{args}})[0]
		if rows := plan.Rows(); rows > 10 {
			t.Errorf("%s: %d rows are read while nothing is new:\n%s", name, rows, plan)
		}
	}
	if err := long.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := conn.QueryRow(t.Context(), snapshot).Scan(&target); err != nil {
		t.Fatal(err)
	}
	args["target"] = target
	rows, err := conn.Query(t.Context(), selectChanges, args)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	found := 0
	for rows.Next() {
		found++
	}
	if err := rows.Err(); err != nil || found != 1 {
		t.Errorf("%d changes after the commit (%v), want the late one", found, err)
	}
}
