package schema

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

const selectHasNames = `
SELECT EXISTS (SELECT FROM pg_catalog.pg_attribute WHERE attrelid = to_regclass($1) AND attname = 'setting_names' AND NOT attisdropped)`

// A larger number replaces the names. Binaries with the same number add theirs, so that the
// order in which they apply it does not matter.
const (
	replaceNames = `UPDATE %s.applied_schema SET setting_names = $1 WHERE setting_names <> $1`
	addNames     = `
UPDATE %s.applied_schema
SET setting_names = ARRAY(SELECT DISTINCT name FROM unnest(setting_names || $1) AS name ORDER BY name)
WHERE NOT setting_names @> $1`
)

// recordNames stores Config.SettingNames, and reports whether they were new.
func (t *target) recordNames(ctx context.Context) (bool, error) {
	if len(t.SettingNames) == 0 {
		return false, nil
	}
	changed := false
	for _, s := range t.sources {
		update := addNames
		if s.stored < s.number {
			update = replaceNames
		}
		for _, service := range s.services {
			table := pgx.Identifier{service}.Sanitize()
			var has bool
			if err := t.tx.QueryRowContext(ctx, selectHasNames, table+".applied_schema").Scan(&has); err != nil {
				return false, fmt.Errorf("look up the names of the settings: %w", err)
			}
			if !has {
				continue
			}
			result, err := t.tx.ExecContext(ctx, fmt.Sprintf(update, table), t.SettingNames)
			if err != nil {
				return false, fmt.Errorf("record the names of the settings: %w", err)
			}
			rows, err := result.RowsAffected()
			if err != nil {
				return false, fmt.Errorf("record the names of the settings: %w", err)
			}
			changed = changed || rows > 0
		}
	}
	return changed, nil
}
