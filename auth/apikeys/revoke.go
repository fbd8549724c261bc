package apikeys

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"gatehouse/auth/accounts"
	"gatehouse/auth/audit"
	"gatehouse/auth/revocations"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/database"
)

const (
	revokeKey = `
		WITH ended AS (
			UPDATE auth.api_keys SET revoke_time = clock_timestamp(), revoke_reason = @reason
			WHERE id = @id AND account_id = @account_id AND revoke_time IS NULL RETURNING id)
		INSERT INTO auth.revocations (session_id, expire_time) SELECT id, clock_timestamp() + @life::interval FROM ended`
	selectOwner = `SELECT account_id::text FROM auth.api_keys WHERE id = @id AND secret_hash = @secret_hash AND revoke_time IS NULL`
)

// RevokeKey implements authv1.APIKeyServiceHandler.
func (s *Service) RevokeKey(ctx context.Context, req *authv1.RevokeKeyRequest) (*authv1.RevokeKeyResponse, error) {
	reason := "administrator"
	if req.GetOrigin().GetAccountId() == req.GetAccountId() {
		reason = "owner"
	}
	row := audit.Row{Event: audit.APIKeyRevoke, Outcome: audit.Succeeded, Account: req.GetAccountId(), Target: req.GetKeyId(), Origin: req.GetOrigin()}
	err := s.revoke(ctx, req.GetKeyId(), reason, row)
	if err != nil {
		return nil, fmt.Errorf("revoke an API key: %w", s.Log.Refuse(ctx, row, err))
	}
	return &authv1.RevokeKeyResponse{}, nil
}

// RevokeSecret implements authv1.APIKeyServiceHandler. The answer does not reveal whether
// the key existed.
func (s *Service) RevokeSecret(ctx context.Context, req *authv1.RevokeSecretRequest) (*authv1.RevokeSecretResponse, error) {
	var account string
	err := s.DB.QueryRow(ctx, selectOwner, pgx.NamedArgs{"id": req.GetKeyId(), "secret_hash": req.GetSecretHash()}).Scan(&account)
	if database.Missing(err) {
		return &authv1.RevokeSecretResponse{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for the API key: %w", err)
	}
	row := audit.Row{Event: audit.APIKeyRevoke, Outcome: audit.Succeeded, Account: account, Session: req.GetKeyId(), Target: req.GetKeyId(), Origin: req.GetOrigin()}
	if err := s.revoke(ctx, req.GetKeyId(), "found", row); err != nil && !gone(err) {
		return nil, fmt.Errorf("revoke a found API key: %w", err)
	}
	return &authv1.RevokeSecretResponse{}, nil
}

// gone reports whether a key or its owner ceased to exist meanwhile.
func gone(err error) bool { return errors.Is(err, errNotFound) || errors.Is(err, accounts.ErrNotFound) }

func (s *Service) revoke(ctx context.Context, id, reason string, row audit.Row) error {
	err := s.DB.Transact(ctx, func(tx pgx.Tx) error {
		if _, err := accounts.Lock(ctx, tx, row.Account); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, revokeKey, pgx.NamedArgs{"id": id, "account_id": row.Account, "reason": reason, "life": revocations.Life})
		if err != nil {
			return fmt.Errorf("revoke the API key: %w", err)
		}
		if tag.RowsAffected() == 0 {
			return errNotFound
		}
		return audit.Write(ctx, tx, row)
	})
	if err == nil {
		s.Revocations.Soon()
	}
	return err
}

const revokeAll = `
	WITH gone AS (DELETE FROM auth.api_keys WHERE account_id = @account_id RETURNING id, revoke_time)
	INSERT INTO auth.revocations (session_id, expire_time) SELECT id, clock_timestamp() + @life::interval FROM gone WHERE revoke_time IS NULL`

// RevokeAll removes the keys of an account, which is locked, and revokes them on every
// gateway.
func RevokeAll(ctx context.Context, tx pgx.Tx, account *authv1.Account) error {
	if _, err := tx.Exec(ctx, revokeAll, pgx.NamedArgs{"account_id": account.GetId(), "life": revocations.Life}); err != nil {
		return fmt.Errorf("remove the API keys: %w", err)
	}
	return nil
}
