package auth

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	authv1 "gatehouse/gen/auth/v1"
)

const (
	selectPassword = `SELECT password_hash, email FROM auth.accounts WHERE id = @id AND status = 'active'`
	updatePassword = `
		UPDATE auth.accounts
		SET password_hash = @new_hash, password_change_time = clock_timestamp(), update_time = clock_timestamp()
		WHERE id = @id AND password_hash = @hash`
)

// ChangePassword implements authv1.AccountServiceHandler.
func (s *Service) ChangePassword(ctx context.Context, req *authv1.ChangePasswordRequest) (*authv1.ChangePasswordResponse, error) {
	origin := req.GetOrigin()
	var hash, email string
	err := s.db.QueryRow(ctx, selectPassword, pgx.NamedArgs{"id": optional(origin.GetAccountId())}).Scan(&hash, &email)
	if missing(err) {
		return nil, errUserNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("read the password: %w", err)
	}
	row := audited{event: eventPasswordChange, outcome: refused, account: origin.GetAccountId(), origin: origin}
	right, _, err := s.passwords.check(ctx, req.GetCurrentPassword(), hash)
	if err != nil {
		return nil, err
	}
	if !right {
		if err := audit(ctx, s.db, row); err != nil {
			return nil, err
		}
		return nil, errPasswordWrong
	}
	if err := s.checkNewPassword("new_password", req.GetNewPassword(), email); err != nil {
		return nil, err
	}
	newHash, err := s.passwords.hash(ctx, req.GetNewPassword())
	if err != nil {
		return nil, err
	}
	err = s.transact(ctx, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, updatePassword, pgx.NamedArgs{"id": origin.GetAccountId(), "hash": hash, "new_hash": newHash})
		if err != nil {
			return fmt.Errorf("write it: %w", err)
		}
		if tag.RowsAffected() == 0 {
			return errPasswordWrong // somebody changed it meanwhile
		}
		if _, err := revokeSessions(ctx, tx, origin.GetAccountId(), origin.GetSessionId(), "password changed"); err != nil {
			return err
		}
		row.outcome = succeeded
		return audit(ctx, tx, row)
	})
	if err != nil {
		return nil, fmt.Errorf("change the password: %w", err)
	}
	s.revocations.Soon()
	return &authv1.ChangePasswordResponse{}, nil
}
