package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"gatehouse/app"
	"gatehouse/e2e/harness"
)

// schemasOfServices are the Postgres schemas of all services.
func schemasOfServices() []string {
	var names []string
	for _, service := range app.Services() {
		if service.HasTables() {
			names = append(names, service.Name)
		}
	}
	return names
}

// mayKeepTheID reports whether a table may hold the id of who was erased: the audit, and
// for some time what tells others of the deletion.
func mayKeepTheID(table string) bool {
	if slices.Contains([]string{"auth.audit_events", "auth.revocations", "auth.account_log"}, table) {
		return true
	}
	_, name, _ := strings.Cut(table, ".")
	return name == "changes" || name == "tombstones"
}

// rowsAgainstErasure are the rows that hold the id and may not.
func rowsAgainstErasure(t *testing.T, s *harness.System, id string) (found []string) {
	t.Helper()
	for table, rows := range everyRow(t, s) {
		for _, row := range rows {
			if strings.Contains(row, id) && !mayKeepTheID(table) {
				found = append(found, table+": "+row)
			}
		}
	}
	return found
}

// untilErased waits until every service that holds data about people has erased them.
func untilErased(t *testing.T, s *harness.System, id string) {
	t.Helper()
	harness.Eventually(t, time.Minute, "every service erases the person", func() error {
		if rows := rowsAgainstErasure(t, s, id); len(rows) > 0 {
			return fmt.Errorf("the id still stands in %s", strings.Join(rows, "; "))
		}
		return nil
	})
}

// selectColumns are the columns of a service's tables that have an account_id and hold
// no row of the account, and that need a value. Tables that refer to others are left to
// the service's own tests.
const selectColumns = `
	SELECT format('%I.%I', n.nspname, c.relname) AS relation, a.attname::text AS name, format_type(a.atttypid, NULL) AS type
	FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
	JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
	WHERE n.nspname = $1 AND c.relkind = 'r'
		AND (a.attname = 'account_id' OR a.attnotnull AND NOT a.atthasdef AND a.attidentity = '')
		AND EXISTS (SELECT FROM pg_attribute o WHERE o.attrelid = c.oid AND o.attname = 'account_id' AND NOT o.attisdropped)
		AND NOT EXISTS (SELECT FROM pg_constraint f WHERE f.conrelid = c.oid AND f.contype = 'f')
	ORDER BY 1, a.attnum`

type neededColumn struct{ Relation, Name, Type string }

// valueOf is a value of a type, or of the column account_id.
func (c neededColumn) value(id string) string {
	switch {
	case c.Name == "account_id":
		return "'" + id + "'"
	case c.Type == "uuid":
		return "gen_random_uuid()"
	case c.Type == "boolean":
		return "false"
	case strings.HasPrefix(c.Type, "timestamp"), c.Type == "date":
		return "now()"
	case c.Type == "json", c.Type == "jsonb":
		return "'{}'"
	case c.Type == "bytea":
		return "'\\x00'"
	case slices.Contains([]string{"smallint", "integer", "bigint", "numeric", "real", "double precision"}, c.Type):
		return "1"
	}
	return "'wilhelmina'"
}

// fillTablesOfPeople puts a row of the account into each table with an account_id of the
// services that hold data about people, where the calls of the test made none: a table
// that a new service brings is looked at without an edit here.
func fillTablesOfPeople(t *testing.T, s *harness.System, id string) {
	t.Helper()
	for _, service := range app.Services() {
		if !service.Person || service.Name == harness.RoleUsers { // whose rows the calls made
			continue
		}
		rows, err := s.Owner.Query(t.Context(), selectColumns, service.Name)
		if err != nil {
			t.Fatal(err)
		}
		columns, err := pgx.CollectRows(rows, pgx.RowToStructByPos[neededColumn])
		if err != nil {
			t.Fatal(err)
		}
		if len(columns) == 0 {
			t.Errorf("%s holds data about people, and none of its tables has a column account_id: its erasure can't be checked here", service.Name)
		}
		names, values := map[string][]string{}, map[string][]string{}
		for _, column := range columns {
			names[column.Relation] = append(names[column.Relation], pgx.Identifier{column.Name}.Sanitize())
			values[column.Relation] = append(values[column.Relation], column.value(id))
		}
		for table := range names {
			insert := "INSERT INTO " + table + " (" + strings.Join(names[table], ", ") + ") VALUES (" + strings.Join(values[table], ", ") + ")"
			if _, err := s.Owner.Exec(t.Context(), insert); err != nil {
				t.Errorf("%s: %v: make a row of the account by a call before", insert, err)
			}
		}
	}
}
