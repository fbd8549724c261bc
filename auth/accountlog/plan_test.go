package accountlog

import (
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
