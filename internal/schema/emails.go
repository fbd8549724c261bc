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

	// At most ten, of emails that the index by the locale took for different ones.
	selectEmailCollisions = `
SELECT string_agg(id::text, ' and ' ORDER BY create_time, id)
FROM auth.accounts
GROUP BY lower(email COLLATE "C")
HAVING count(*) > 1
ORDER BY min(create_time)
LIMIT 10`
)

// checkEmails finds accounts whose emails are one and the same but for the case
// of their letters, before the index that allows only one of them is made. A
// database whose locale folds an I into something else than an i let them in.
func (t *target) checkEmails(ctx context.Context) error {
	if !slices.Contains(t.services, functionSchema) {
		return nil
	}
	var unchecked bool
	if err := t.tx.QueryRowContext(ctx, selectEmailsUnchecked).Scan(&unchecked); err != nil {
		return fmt.Errorf("look for the emails' index: %w", err)
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
	return fmt.Errorf("accounts have one email but for the case of its letters, which the database's locale took for different emails: %s. "+
		"Nothing was changed: with the version that runs now, change the email of all but one of each, or delete them, and try again", strings.Join(found, "; "))
}
