package auth

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"gatehouse/auth/accounts"
	"gatehouse/auth/audit"
	"gatehouse/auth/revocations"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/database"
)

// Administrator is an account with the role admin.
type Administrator struct {
	Email      string
	Disabled   bool
	LastSignIn *time.Time // nil before the first
	CreateTime time.Time
}

// It scans every account, which is acceptable for an operator's command.
const selectAdministrators = `
	SELECT email, status = 'disabled', last_sign_in_time, create_time
	FROM auth.accounts WHERE 'admin' = ANY (roles)
	ORDER BY id LIMIT 1000`

// Administrators returns the first thousand of them, the oldest first.
func (s *Service) Administrators(ctx context.Context) ([]Administrator, error) {
	rows, err := s.db.Query(ctx, selectAdministrators)
	if err != nil {
		return nil, fmt.Errorf("list the administrators: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Administrator])
	if err != nil {
		return nil, fmt.Errorf("list the administrators: %w", err)
	}
	return found, nil
}

const selectIDByEmail = `SELECT id FROM auth.accounts WHERE lower(email COLLATE "C") = lower(@email COLLATE "C")`

// GrantRole adds a role to an account, and RevokeRole removes it, for an operator.
// They report whether anything changed. Errors: not_found
// USER_NOT_FOUND; RevokeRole also failed_precondition LAST_ADMINISTRATOR.
func (s *Service) GrantRole(ctx context.Context, email, role string) (bool, error) {
	return s.changeRoles(ctx, email, func(roles []string) []string { return append(slices.Clone(roles), role) })
}

// RevokeRole is described at GrantRole.
func (s *Service) RevokeRole(ctx context.Context, email, role string) (bool, error) {
	return s.changeRoles(ctx, email, func(roles []string) []string {
		return slices.DeleteFunc(slices.Clone(roles), func(one string) bool { return one == role })
	})
}

func (s *Service) changeRoles(ctx context.Context, email string, change func([]string) []string) (changed bool, err error) {
	var id string
	err = s.db.QueryRow(ctx, selectIDByEmail, pgx.NamedArgs{"email": email}).Scan(&id)
	if database.Missing(err) {
		return false, accounts.ErrNotFound
	}
	if err != nil {
		return false, fmt.Errorf("look for the account: %w", err)
	}
	_, err = s.accounts.Change(ctx, id, audit.RolesChange, operator, func(tx pgx.Tx, before *authv1.Account) (bool, error) {
		tag, err := tx.Exec(ctx, updateRoles, pgx.NamedArgs{"id": id, "roles": accounts.SortedRoles(change(before.GetRoles()))})
		if err != nil {
			return false, fmt.Errorf("set the roles: %w", err)
		}
		if changed = tag.RowsAffected() > 0; !changed {
			return false, nil
		}
		return true, revocations.RevokeBelow(ctx, tx, id, before.GetAuthzVersion()+1)
	})
	return changed, err
}
