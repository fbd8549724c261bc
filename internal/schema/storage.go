package schema

import (
	"context"
	"database/sql"
	"fmt"

	atlas "ariga.io/atlas/sql/schema"
)

// desiredState is the state of an empty database after executing the sources.
type desiredState struct {
	realm   *atlas.Realm
	storage []storageParameter
}

// storageParameter is a storage parameter of a table, such as its fillfactor. Atlas does not
// support them. Parameters that schema.sql does not declare are kept.
type storageParameter struct{ table, name, value string }

const selectStorage = `
SELECT format('%I.%I', n.nspname, c.relname), o.option_name, o.option_value
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL pg_options_to_table(c.reloptions) o
WHERE n.nspname = ANY ($1::text[]) AND c.relkind = 'r'
ORDER BY 1, 2`

// readStorage returns the storage parameters of the services' tables.
func readStorage(ctx context.Context, tx *sql.Tx, services []string) ([]storageParameter, error) {
	rows, err := tx.QueryContext(ctx, selectStorage, services)
	if err != nil {
		return nil, fmt.Errorf("read the storage parameters: %w", err)
	}
	defer rows.Close()
	var found []storageParameter
	for rows.Next() {
		var one storageParameter
		if err := rows.Scan(&one.table, &one.name, &one.value); err != nil {
			return nil, fmt.Errorf("read the storage parameters: %w", err)
		}
		found = append(found, one)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read the storage parameters: %w", err)
	}
	return found, nil
}

// storageChanges returns the statements that set the declared storage parameters. They
// rewrite no rows, and block neither reads nor writes.
func storageChanges(locks *locks, current, desired []storageParameter) []statement {
	has := map[storageParameter]bool{}
	for _, one := range current {
		has[one] = true
	}
	var changes []statement
	for _, one := range desired {
		if has[one] {
			continue
		}
		text := fmt.Sprintf("ALTER TABLE %s SET (%s = %s)", one.table, one.name, one.value)
		changes = append(changes, statement{sql: text, text: text, lock: locks.on(one.table, shareUpdateExclusive, "")})
	}
	return changes
}
