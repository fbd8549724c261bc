package auth

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"gatehouse/auth/accounts"
	"gatehouse/auth/audit"
	"gatehouse/auth/links"
	"gatehouse/auth/passwords"
	"gatehouse/auth/revocations"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/database"
)

// operator is the origin of commands.
var operator = &authv1.Origin{UserAgent: "gatehouse admin"}

// EnsureAdministrator creates an administrator unless one exists, and reports
// whether it did. Replicas that start at once create only one. Errors:
// already_exists EMAIL_TAKEN when an account that is no administrator has the
// email.
func (s *Service) EnsureAdministrator(ctx context.Context, email, password string) (bool, error) {
	var exists bool
	if err := s.db.QueryRow(ctx, accounts.ExistsAdministrators).Scan(&exists); err != nil {
		return false, fmt.Errorf("look for an administrator: %w", err)
	}
	if exists {
		return false, nil
	}
	return s.makeAdministrator(ctx, email, password, true)
}

// CreateAdministrator creates an administrator. Errors: already_exists
// EMAIL_TAKEN.
func (s *Service) CreateAdministrator(ctx context.Context, email, password string) error {
	_, err := s.makeAdministrator(ctx, email, password, false)
	return err
}

func (s *Service) makeAdministrator(ctx context.Context, email, password string, onlyFirst bool) (made bool, err error) {
	if err := s.passwords.CheckLength("password", password); err != nil {
		return false, err
	}
	hash, err := s.passwords.Hasher.Hash(ctx, passwords.SignedIn("operator"), password)
	if err != nil {
		return false, fmt.Errorf("hash the administrator's password: %w", err)
	}
	id, err := uuid.NewV7()
	if err != nil {
		return false, fmt.Errorf("choose an id: %w", err)
	}
	err = s.db.Transact(ctx, func(tx pgx.Tx) error {
		made = false
		if _, err := tx.Exec(ctx, accounts.LockAdministrators); err != nil {
			return fmt.Errorf("lock the administrators: %w", err)
		}
		var exists bool
		if err := tx.QueryRow(ctx, accounts.ExistsAdministrators).Scan(&exists); err != nil {
			return fmt.Errorf("look for an administrator: %w", err)
		}
		if exists && onlyFirst {
			return nil
		}
		made = true
		_, err := s.accounts.Write(ctx, tx, accounts.New{
			ID: id.String(), Email: email, Hash: hash, Roles: []string{AdminRole},
			Profile: &authv1.ProfileSeed{FirstName: "Administrator"}, Origin: operator,
		})
		return err
	})
	if err != nil {
		return false, fmt.Errorf("create an administrator: %w", err)
	}
	if made {
		s.relay.Deliver(ctx, id.String())
	}
	return made, nil
}

const resetPassword = `
	UPDATE auth.accounts a
	SET ` + accounts.SetPasswordHash + `, password_change_time = clock_timestamp(), update_time = clock_timestamp()
	WHERE lower(email COLLATE "C") = lower(@email COLLATE "C") RETURNING id`

// SetPassword replaces an account's password and ends its sessions, for an
// operator. Errors: not_found USER_NOT_FOUND, invalid_argument
// PASSWORD_TOO_SHORT or PASSWORD_TOO_LONG.
func (s *Service) SetPassword(ctx context.Context, email, password string) error {
	if err := s.passwords.CheckLength("password", password); err != nil {
		return err
	}
	hash, err := s.passwords.Hasher.Hash(ctx, passwords.SignedIn("operator"), password)
	if err != nil {
		return fmt.Errorf("hash the password: %w", err)
	}
	err = s.db.Transact(ctx, func(tx pgx.Tx) error {
		var id string
		args := accounts.PasswordArgs(hash)
		args["email"] = email
		err := tx.QueryRow(ctx, resetPassword, args).Scan(&id)
		if database.Missing(err) {
			return accounts.ErrNotFound
		}
		if err != nil {
			return fmt.Errorf("write it: %w", err)
		}
		if _, err := revocations.RevokeSessions(ctx, tx, id, "", "password reset"); err != nil {
			return err
		}
		if err := links.Supersede(ctx, tx, &authv1.Account{Id: id, Email: email}); err != nil {
			return err
		}
		return audit.Write(ctx, tx, audit.Row{Event: audit.PasswordChange, Outcome: audit.Succeeded, Account: id, Origin: operator})
	})
	if err != nil {
		return fmt.Errorf("reset the password: %w", err)
	}
	return nil
}
