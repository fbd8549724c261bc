package database

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const undefinedTable = "42P01" // Postgres, appendix A

// Older versions of a service's own schema.sql lack the column.
const selectSettingNames = `
SELECT ARRAY(SELECT jsonb_array_elements_text(coalesce(to_jsonb(a) -> 'setting_names', '[]')))
FROM %s.applied_schema a`

// SettingNames returns the environment names of the settings of the newest binary that has
// applied its schema of a service. A binary that does not know one of them is older, so it
// need not stop: a rollback then leaves the environment as it is. The result is empty for a
// database without names.
func SettingNames(ctx context.Context, db Querier, service string) ([]string, error) {
	var names []string
	err := db.QueryRow(ctx, fmt.Sprintf(selectSettingNames, pgx.Identifier{service}.Sanitize())).Scan(&names)
	if refusal, ok := errors.AsType[*pgconn.PgError](err); Missing(err) || ok && refusal.Code == undefinedTable {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the names of the settings: %w", err)
	}
	return names, nil
}
