package purge

import (
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"

	"gatehouse/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// excused are the tables whose rows let nobody in.
var excused = map[string]string{
	"auth.account_log":      "versions, for other services",
	"auth.account_outbox":   "versions, for other services",
	"auth.audit_events":     "history",
	"auth.deliveries":       "history, for webhooks",
	"auth.events":           "history, for webhooks",
	"auth.idempotency_keys": "a repeated call has to give the password",
	"auth.mails":            "they go to the address that was proven",
	"auth.revocations":      "they end access",
}

// A table that is added later has to be listed here or there.
func TestEveryTableThatBelongsToAnAccountIsPurgedOrExcused(t *testing.T) {
	t.Parallel()
	conn := pgtest.Connect(t, pgtest.New(t).Owner)
	rows, err := conn.Query(t.Context(), `
		SELECT table_schema || '.' || table_name FROM information_schema.columns
		WHERE table_schema = 'auth' AND column_name = 'account_id' ORDER BY 1`)
	if err != nil {
		t.Fatal(err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	if len(tables) < 10 {
		t.Fatalf("%d tables have account_id, want at least 10: %v", len(tables), tables)
	}
	for _, table := range tables {
		purged := slices.ContainsFunc(kinds, func(k kind) bool { return k.table == table })
		if _, excused := excused[table]; purged == excused {
			t.Errorf("%s: purged %t, excused %t, want one of them", table, purged, excused)
		}
	}
	for _, k := range kinds {
		if !slices.Contains(tables, k.table) {
			t.Errorf("%s is purged, and has no account_id", k.table)
		}
	}
}
