package harness

import (
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// WantInNoTable reports each table of the services that has a row with one of the texts,
// or with its bytes.
func WantInNoTable(t testing.TB, owner *pgxpool.Pool, texts ...string) {
	t.Helper()
	rows, err := owner.Query(t.Context(), `SELECT format('%I.%I', table_schema, table_name)
		FROM information_schema.tables WHERE table_schema IN ('auth', 'users') AND table_type = 'BASE TABLE'`)
	if err != nil {
		t.Fatal(err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(tables) < 15 {
		t.Fatalf("%d tables, %v, want at least 15", len(tables), err)
	}
	for _, table := range tables {
		for _, text := range texts {
			var found int
			err := owner.QueryRow(t.Context(), `SELECT count(*) FROM `+table+` t
				WHERE position($1 IN t::text) > 0 OR position(encode(convert_to($1, 'UTF8'), 'hex') IN t::text) > 0`, text).Scan(&found)
			if err != nil || found != 0 {
				t.Errorf("%s: %d rows have the secret, %v", table, found, err)
			}
		}
	}
}
