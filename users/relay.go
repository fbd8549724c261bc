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
	"gatehouse/internal/lifecycle"
)

// ApplyAccount stores an account's state if it is newer than the stored one and the
// account wasn't deleted.
func (s *Service) ApplyAccount(ctx context.Context, req *usersv1.ApplyAccountRequest) (*usersv1.ApplyAccountResponse, error) {
	present, deleted := req.GetPresent(), req.GetDeleted() != nil
	if !deleted {
		if err := acceptable(present); err != nil {
			return nil, err
		}
	}
	id, version := req.GetAccountId(), req.GetVersion()
	var applied bool
	err := s.db.Transact(ctx, func(tx pgx.Tx) (err error) {
		if deleted {
			present = nil
		}
		applied, err = s.applyState(ctx, tx, id, version, present)
		crashpoint.Reach("users: before commit")
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("apply the account's state: %w", err)
	}
	countReceived(ctx, deleted, applied)
	crashpoint.Reach("users: after commit")
	return &usersv1.ApplyAccountResponse{}, nil
}

// applyState applies an account's state, or its deletion if present is nil, and
// reports whether it was newer.
func (s *Service) applyState(ctx context.Context, tx pgx.Tx, id string, version int64, present *usersv1.AccountState) (applied bool, err error) {
	if err := lifecycle.Lock(ctx, tx, schemaName, id); err != nil {
		return false, err
	}
	if present == nil {
		applied, err = s.applyDeleted(ctx, tx, id, version)
	} else {
		crashpoint.Reach("users: before the profile is written")
		applied, err = applyPresent(ctx, tx, id, version, present)
	}
	if err != nil {
		return false, err
	}
	if !applied {
		s.logger.DebugContext(ctx, "stale account state ignored", "account_id", id, "version", version)
		return false, nil
	}
	return true, feed.Note(ctx, tx, changesTable, profileTag+id)
}

// acceptable refuses what Postgres cannot store, with an error for the caller.
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

// Names and locale belong to the owner once the profile exists: a later state changes
// neither them nor version and update_time.
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
	insertTombstone = `
	INSERT INTO users.tombstones (id, account_version)
	SELECT @id, @account_version
	WHERE NOT EXISTS (SELECT FROM users.profiles WHERE id = @id AND account_version >= @account_version)
	ON CONFLICT ON CONSTRAINT tombstones_pkey DO NOTHING`

	// auth then stores these events without the names.
	erasePendingEvents = `
	UPDATE users.audit_outbox
	SET changed = '{}', ip_address = '', user_agent = ''
	WHERE profile_id = @id`

	deleteProfile = `
	DELETE FROM users.profiles
	WHERE id = @id`

	// Each deletion prunes more tombstones than it adds. A late call with an
	// account's state arrives within seconds; a year covers restored backups.
	deleteOldTombstones = `
	DELETE FROM users.tombstones
	WHERE id IN (
		SELECT id FROM users.tombstones WHERE delete_time < now() - interval '1 year'
		ORDER BY delete_time LIMIT 10 FOR UPDATE SKIP LOCKED)`
)

// applyDeleted writes a tombstone even for an unknown account: its creation may
// arrive later.
func (s *Service) applyDeleted(ctx context.Context, tx pgx.Tx, id string, version int64) (bool, error) {
	inserted, err := affects(tx.Exec(ctx, insertTombstone, pgx.NamedArgs{"id": id, "account_version": version}))
	if err != nil || !inserted {
		return false, err
	}
	crashpoint.Reach("users: before the profile is deleted")
	if _, err := tx.Exec(ctx, deleteProfile, pgx.NamedArgs{"id": id}); err != nil {
		return false, err
	}
	// After the profile: a change of attributes locks it until its event is committed.
	if _, err := tx.Exec(ctx, erasePendingEvents, pgx.NamedArgs{"id": id}); err != nil {
		return false, err
	}
	_, err = tx.Exec(ctx, deleteOldTombstones)
	return err == nil, err
}

func affects(tag pgconn.CommandTag, err error) (bool, error) { return tag.RowsAffected() > 0, err }
