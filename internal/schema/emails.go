package schema

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

const (
	selectEmailsUnchecked = `
SELECT to_regclass('auth.accounts') IS NOT NULL AND to_regclass('auth.accounts_email_fold_key') IS NULL`

	// At most ten emails that an index by the locale accepted more than once.
	selectEmailCollisions = `
SELECT string_agg(id::text, ' and ' ORDER BY create_time, id)
FROM auth.accounts
GROUP BY lower(email COLLATE "C")
HAVING count(*) > 1
ORDER BY min(create_time)
LIMIT 10`
)

// checkEmails returns an error for accounts whose emails differ only in case, before the
// index that makes them unique is created. Older versions accepted them in a database whose
// locale does not fold I to i.
func (t *target) checkEmails(ctx context.Context) error {
	if !slices.Contains(t.services, functionSchema) {
		return nil
	}
	var unchecked bool
	if err := t.tx.QueryRowContext(ctx, selectEmailsUnchecked).Scan(&unchecked); err != nil {
		return fmt.Errorf("look up the index of the emails: %w", err)
	}
	if !unchecked {
		return nil
	}
	rows, err := t.tx.QueryContext(ctx, selectEmailCollisions)
	if err != nil {
		return fmt.Errorf("compare the emails: %w", err)
	}
	defer rows.Close()
	var found []string
	for rows.Next() {
		var ids string
		if err := rows.Scan(&ids); err != nil {
			return fmt.Errorf("compare the emails: %w", err)
		}
		found = append(found, ids)
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("compare the emails: %w", err)
	}
	if len(found) == 0 {
		return nil
	}
	return fmt.Errorf("accounts have emails that differ only in case, which the locale of the database accepted: %s. "+
		"Nothing was changed. With the running version, change the email of all but one account of each group, or delete them; then try again", strings.Join(found, "; "))
}
