package users

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	authv1 "gatehouse/gen/auth/v1"
	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/lifecycle"
)

// schemaName is the service's name and that of its Postgres schema.
const schemaName = "users"

// newReader returns the reader of auth's account log; nil without a client of auth.
func (s *Service) newReader(feed authv1.AccountFeedServiceClient) *lifecycle.Reader {
	if feed == nil {
		return nil
	}
	return lifecycle.New(lifecycle.Config{
		Service: schemaName, DB: s.db, Feed: feed, Apply: s.applyEvent, List: s.listAccounts, Logger: s.logger,
	})
}

// applyEvent applies an event of the account log.
func (s *Service) applyEvent(ctx context.Context, tx pgx.Tx, event *authv1.AccountEvent) error {
	var present *usersv1.AccountState
	if !event.GetDeleted() {
		profile := event.GetProfile()
		present = &usersv1.AccountState{
			Email: event.GetEmail(), Status: usersv1.ProfileStatus_PROFILE_STATUS_DISABLED, CreateTime: event.GetCreateTime(),
			FirstName: profile.GetFirstName(), LastName: profile.GetLastName(), Locale: profile.GetLocale(),
		}
		if event.GetStatus() == authv1.AccountStatus_ACCOUNT_STATUS_ACTIVE {
			present.Status = usersv1.ProfileStatus_PROFILE_STATUS_ACTIVE
		}
	}
	applied, err := s.applyState(ctx, tx, event.GetAccountId(), event.GetVersion(), present)
	if err == nil {
		countReceived(ctx, event.GetDeleted(), applied)
	}
	return err
}

const listAccounts = `SELECT id::text FROM users.profiles WHERE id > @after ORDER BY id LIMIT @most`

// listAccounts returns the accounts that have a profile, in pages.
func (s *Service) listAccounts(ctx context.Context, after string, most int) ([]string, error) {
	if after == "" {
		after = uuid.Nil.String()
	}
	rows, err := s.db.Query(ctx, listAccounts, pgx.NamedArgs{"after": after, "most": most})
	if err != nil {
		return nil, fmt.Errorf("list profiles: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}
