package users

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/crashpoint"
	"gatehouse/internal/fault"
	"gatehouse/internal/feed"
)

// One account's states are applied one after the other. Without this lock two
// that arrive together would not see each other's rows: a late creation could
// pass the tombstone that its deletion is just writing, and bring the profile
// back for ever.
const lockAccount = `SELECT pg_advisory_xact_lock(hashtextextended('users.account ' || @id::uuid::text, 0))`

// ApplyAccount takes over an account's state if it is newer than the one known
// and the account wasn't deleted.
func (s *Service) ApplyAccount(ctx context.Context, req *usersv1.ApplyAccountRequest) (*usersv1.ApplyAccountResponse, error) {
	present, deleted := req.GetPresent(), req.GetDeleted() != nil
	if !deleted {
		if err := acceptable(present); err != nil {
			return nil, err
		}
	}
	id, version := req.GetAccountId(), req.GetVersion()
	// Each statement must see what was committed before the lock was granted,
	// which is what READ COMMITTED promises.
	var applied bool
	err := s.db.Transact(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, lockAccount, pgx.NamedArgs{"id": id}); err != nil {
			return fmt.Errorf("lock the account's state: %w", err)
		}
		var err error
		if deleted {
			applied, err = s.applyDeleted(ctx, tx, id, version)
		} else {
			crashpoint.Reach("users: before the profile is written")
			applied, err = applyPresent(ctx, tx, id, version, present)
		}
		if err != nil {
			return err
		}
		if !applied {
			s.logger.DebugContext(ctx, "account state is old news", "account_id", id, "version", version)
		}
		if applied {
			if err := feed.Note(ctx, tx, changesTable, profileTag+id); err != nil {
				return err
			}
		}
		crashpoint.Reach("users: before commit")
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("apply the account's state: %w", err)
	}
	countHeard(ctx, deleted, applied)
	crashpoint.Reach("users: after commit")
	return &usersv1.ApplyAccountResponse{}, nil
}

// acceptable refuses what Postgres would, in words for the caller.
func acceptable(state *usersv1.AccountState) error {
	for _, text := range []struct{ field, value string }{
		{"present.email", state.GetEmail()},
		{"present.first_name", state.GetFirstName()},
		{"present.last_name", state.GetLastName()},
		{"present.locale", state.GetLocale()},
	} {
		if err := storable(text.field, text.value); err != nil {
			return err
		}
	}
	if !state.GetCreateTime().IsValid() {
		return fault.Invalid(fault.ReasonInvalid, "present.create_time", "must be a time from year 1 to 9999")
	}
	return nil
}

// The names and the locale are the owner's once the profile is there: a later
// state doesn't touch them, nor the version and update_time that are theirs.
const applyPresentAccount = `
	INSERT INTO users.profiles (id, first_name, last_name, locale, create_time, email, status, account_version)
	SELECT @id, @first_name, @last_name, @locale, @create_time, @email, @status, @account_version
	WHERE NOT EXISTS (SELECT FROM users.tombstones WHERE id = @id)
	ON CONFLICT ON CONSTRAINT profiles_pkey DO UPDATE
	SET email = excluded.email, status = excluded.status, account_version = excluded.account_version
	WHERE profiles.account_version < excluded.account_version`

func applyPresent(ctx context.Context, tx pgx.Tx, id string, version int64, state *usersv1.AccountState) (bool, error) {
	return affects(tx.Exec(ctx, applyPresentAccount, pgx.NamedArgs{
		"id":              id,
		"first_name":      state.GetFirstName(),
		"last_name":       state.GetLastName(),
		"locale":          state.GetLocale(),
		"create_time":     state.GetCreateTime().AsTime(),
		"email":           state.GetEmail(),
		"status":          statusColumn(state.GetStatus()),
		"account_version": version,
	}))
}

const (
	buryAccount = `
	INSERT INTO users.tombstones (id, account_version)
	SELECT @id, @account_version
	WHERE NOT EXISTS (SELECT FROM users.profiles WHERE id = @id AND account_version >= @account_version)
	ON CONFLICT ON CONSTRAINT tombstones_pkey DO NOTHING`

	deleteProfile = `
	DELETE FROM users.profiles
	WHERE id = @id`

	// Each burial makes room for more than itself. A call that says that an
	// account is there lives for seconds; a year is for backups.
	deleteOldTombstones = `
	DELETE FROM users.tombstones
	WHERE id IN (
		SELECT id FROM users.tombstones WHERE delete_time < now() - interval '1 year'
		ORDER BY delete_time LIMIT 10 FOR UPDATE SKIP LOCKED)`
)

// applyDeleted buries the account even if nothing was heard of it before: its
// creation may still be on the way.
func (s *Service) applyDeleted(ctx context.Context, tx pgx.Tx, id string, version int64) (bool, error) {
	buried, err := affects(tx.Exec(ctx, buryAccount, pgx.NamedArgs{"id": id, "account_version": version}))
	if err != nil || !buried {
		return false, err
	}
	crashpoint.Reach("users: before the profile is deleted")
	if _, err := tx.Exec(ctx, deleteProfile, pgx.NamedArgs{"id": id}); err != nil {
		return false, err
	}
	_, err = tx.Exec(ctx, deleteOldTombstones)
	return err == nil, err
}

func affects(tag pgconn.CommandTag, err error) (bool, error) { return tag.RowsAffected() > 0, err }
