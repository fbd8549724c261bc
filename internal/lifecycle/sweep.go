package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/jackc/pgx/v5"

	authv1 "gatehouse/gen/auth/v1"
)

const (
	sweepPage = 500
	// sweepInterval is the least time between two attempts.
	sweepInterval = time.Minute
	// A sweep that would erase more than sweepFew accounts and more than half of all
	// erases none: auth has more likely lost its database than its people.
	sweepFew = 100
)

// sweep erases what the service has of accounts that auth does not have. Each of them
// was deleted: the service heard of it from auth, after it was committed there.
func (r *Reader) sweep(ctx context.Context) error {
	var missing []string
	total := 0
	for after := ""; ; {
		ids, err := r.List(ctx, after, sweepPage)
		if err != nil {
			return fmt.Errorf("list the service's accounts: %w", err)
		}
		if len(ids) == 0 {
			break
		}
		after, total = ids[len(ids)-1], total+len(ids)
		response, err := r.Feed.FindMissingAccounts(ctx, &authv1.FindMissingAccountsRequest{AccountIds: ids})
		if err != nil {
			return fmt.Errorf("look for missing accounts: %w", err)
		}
		missing = append(missing, response.GetAccountIds()...)
	}
	if len(missing) > sweepFew && len(missing) > total/2 {
		return fmt.Errorf("auth does not have %d of %d accounts, nothing is erased: restore auth's database", len(missing), total)
	}
	var faults []error // of one account must not keep the others
	for _, id := range missing {
		err := r.DB.Transact(ctx, func(tx pgx.Tx) error {
			return r.Apply(ctx, tx, &authv1.AccountEvent{AccountId: id, Version: math.MaxInt64, Deleted: true})
		})
		if err != nil {
			faults = append(faults, fmt.Errorf("erase account %s: %w", id, err))
		}
	}
	if len(faults) > 0 {
		return errors.Join(faults...)
	}
	if _, err := r.DB.Exec(ctx, r.sql.swept); err != nil {
		return fmt.Errorf("end the sweep: %w", err)
	}
	r.Logger.LogAttrs(ctx, slog.LevelInfo, "lifecycle: accounts compared with auth", slog.Int("accounts", total), slog.Int("erased", len(missing)))
	return nil
}
