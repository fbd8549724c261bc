package accounts

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"gatehouse/auth/accountlog"
	"gatehouse/auth/audit"
	"gatehouse/auth/devices"
	"gatehouse/auth/outbox"
	"gatehouse/auth/revocations"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/crashpoint"
	"gatehouse/internal/database"
)

// AdministratorRole is the built-in role that may administer users.
const AdministratorRole = "admin"

// Store writes accounts with their audit rows. The account log, from which other
// services receive changes, is written by a trigger.
type Store struct {
	DB          *database.Pool
	Log         *audit.Log
	Events      *accountlog.Log
	Mails       *outbox.Outbox
	Revocations *revocations.Feed
	// SignUps decide about the accounts that people create for themselves.
	SignUps SignUps
	WaysIn  WaysIn
}

// Change locks an account, calls apply to change it, raises its version and writes
// the audit row in the same transaction. apply returns whether anything changed. A
// refusal is audited too.
func (s *Store) Change(ctx context.Context, id string, event audit.Event, origin *authv1.Origin,
	apply func(tx pgx.Tx, before *authv1.Account) (bool, error),
) (*authv1.Account, error) {
	var after *authv1.Account
	var changed bool
	row := audit.Row{Event: event, Outcome: audit.Succeeded, Account: id, Origin: origin}
	crashpoint.Reach("auth: before the account is changed")
	err := s.DB.Transact(ctx, func(tx pgx.Tx) error {
		before, err := Lock(ctx, tx, id)
		if err != nil {
			return err
		}
		if err := RequireIfAsked(ctx, tx, origin); err != nil {
			return err
		}
		keep, err := s.KeepAdministrator(ctx, tx, before)
		if err != nil {
			return err
		}
		if changed, err = apply(tx, before); err != nil || !changed {
			after = before
			return err
		}
		if err := keep(); err != nil {
			return err
		}
		crashpoint.Reach("auth: before the change is logged")
		if _, err := tx.Exec(ctx, raiseVersion, pgx.NamedArgs{"id": id}); err != nil {
			return fmt.Errorf("raise the version: %w", err)
		}
		if after, err = ByID(ctx, tx, id); err != nil {
			return err
		}
		err = audit.Write(ctx, tx, row)
		crashpoint.Reach("auth: before the change is committed")
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", event, s.Log.Refuse(ctx, row, err))
	}
	crashpoint.Reach("auth: after the change is committed")
	if changed {
		s.Revocations.Soon()
		s.Events.Soon()
	}
	return after, nil
}

const raiseVersion = `
	UPDATE auth.accounts SET version = version + 1, update_time = clock_timestamp() WHERE id = @id`

const (
	// LockAdministrators serialises removals of administrators until the end of the
	// transaction, so that two can't remove each other.
	LockAdministrators = "SELECT pg_advisory_xact_lock(hashtextextended('gatehouse administrators', 0))"
	// ExistsAdministrators selects whether an active administrator exists. One who
	// never had a password or another way to sign in doesn't count.
	ExistsAdministrators = `
		SELECT EXISTS (SELECT FROM auth.accounts WHERE status = 'active' AND 'admin' = ANY (roles) AND (password_hash <> '' OR has_sign_in))`
)

const existsAnyAdministrator = `
	SELECT EXISTS (SELECT FROM auth.accounts WHERE status = 'active' AND 'admin' = ANY (roles))`

// KeepAdministrator returns a function that refuses, after a change of the account, if an
// active administrator could sign in before it and none can any more, or if none is left.
// Errors of that: failed_precondition LAST_ADMINISTRATOR.
func (s *Store) KeepAdministrator(ctx context.Context, tx pgx.Tx, before *authv1.Account) (func() error, error) {
	if before.GetStatus() != authv1.AccountStatus_ACCOUNT_STATUS_ACTIVE || !slices.Contains(before.GetRoles(), AdministratorRole) {
		return func() error { return nil }, nil
	}
	if _, err := tx.Exec(ctx, LockAdministrators); err != nil {
		return nil, fmt.Errorf("lock the administrators: %w", err)
	}
	had, err := s.WaysIn.administrators(ctx, tx)
	if err != nil {
		return nil, err
	}
	return func() error {
		left, err := s.WaysIn.administrators(ctx, tx)
		if err == nil && !had { // those who sign in with mailed codes, or whose provider is gone
			err = tx.QueryRow(ctx, existsAnyAdministrator).Scan(&left)
		}
		if err == nil && !left {
			err = ErrLastAdministrator
		}
		return err
	}, nil
}

const insertAccount = `
	INSERT INTO auth.accounts (id, email, email_verified, vouched, password_hash, roles, last_sign_in_time)
	VALUES (@id, @email, @email_verified, NOT @signed_in::boolean, @password_hash, @roles, CASE WHEN @signed_in::boolean THEN now() END)`

// New is a new account.
type New struct {
	ID, Email, Hash string
	Roles           []string
	Profile         *authv1.ProfileSeed
	SignIn          bool // its owner creates it
	Verified        bool // the owner has proven the email
	Origin          *authv1.Origin
}

// Write writes the account, its initial profile and its audit row. Errors:
// already_exists EMAIL_TAKEN or ACCOUNT_EXISTS, and those of SignUps.Check for an account
// that signs in.
func (s *Store) Write(ctx context.Context, tx pgx.Tx, account New) (*authv1.Account, error) {
	if account.SignIn {
		if err := s.SignUps.Check(account.Email); err != nil {
			return nil, err
		}
	}
	_, err := tx.Exec(ctx, insertAccount, pgx.NamedArgs{
		"id": account.ID, "email": strings.TrimSpace(account.Email), "email_verified": account.Verified, "password_hash": account.Hash,
		"roles": SortedRoles(account.Roles), "signed_in": account.SignIn,
	})
	switch {
	case EmailIsTaken(err):
		return nil, ErrEmailTaken.WithCause(err)
	case database.Violates(err, "accounts_pkey"):
		return nil, ErrExists.WithCause(err)
	case err != nil:
		return nil, fmt.Errorf("write the account: %w", err)
	}
	crashpoint.Reach("auth: before the profile is written")
	err = accountlog.SetProfile(ctx, tx, account.ID, accountlog.Profile{
		FirstName: account.Profile.GetFirstName(), LastName: account.Profile.GetLastName(), Locale: account.Profile.GetLocale(),
	})
	if err != nil {
		return nil, err
	}
	err = audit.Write(ctx, tx, audit.Row{Event: audit.AccountCreate, Outcome: audit.Succeeded, Account: account.ID, Origin: account.Origin})
	if err != nil {
		return nil, err
	}
	return ByID(ctx, tx, account.ID)
}

// ReplaceEmail writes an account's email with the statement and mails both
// addresses. Errors: already_exists EMAIL_TAKEN.
func (s *Store) ReplaceEmail(ctx context.Context, tx pgx.Tx, statement string, before *authv1.Account, email string, origin *authv1.Origin) error {
	_, err := tx.Exec(ctx, statement, pgx.NamedArgs{"id": before.GetId(), "email": email})
	if EmailIsTaken(err) {
		return ErrEmailTaken.WithCause(err)
	}
	if err != nil {
		return fmt.Errorf("write the email: %w", err)
	}
	if _, err := devices.Forget(ctx, tx, before.GetId(), nil); err != nil {
		return err
	}
	values := outbox.Circumstances(origin)
	values["new_email"], values["old_email"] = email, before.GetEmail()
	for _, address := range []string{before.GetEmail(), email} {
		err := s.Mails.Enqueue(ctx, tx, outbox.Mail{
			Kind: outbox.EmailChanged, To: address, Account: before.GetId(), Locale: outbox.LocaleOf(origin, before.GetId()), Values: values,
		})
		if err != nil {
			return err
		}
	}
	return nil
}
