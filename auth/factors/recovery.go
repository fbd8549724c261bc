package factors

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"gatehouse/auth/recovery"
)

const (
	deleteRecoveryCodes = `DELETE FROM auth.recovery_codes WHERE account_id = @account_id`
	insertRecoveryCodes = `
		INSERT INTO auth.recovery_codes (code_hash, account_id) SELECT unnest(@hashes::bytea[]), @account_id`
	spendRecoveryCode = `
		UPDATE auth.recovery_codes SET use_time = clock_timestamp()
		WHERE code_hash = @hash AND account_id = @account_id AND use_time IS NULL`
	countRecoveryCodes = `SELECT count(*) FROM auth.recovery_codes WHERE account_id = @account_id AND use_time IS NULL`
)

// ReplaceRecoveryCodes gives the account new recovery codes, which end its others.
func ReplaceRecoveryCodes(ctx context.Context, tx pgx.Tx, account string) ([]string, error) {
	if err := RemoveRecoveryCodes(ctx, tx, account); err != nil {
		return nil, err
	}
	codes, hashes := recovery.New()
	stored := make([][]byte, 0, len(hashes))
	for _, hash := range hashes {
		stored = append(stored, hash[:])
	}
	if _, err := tx.Exec(ctx, insertRecoveryCodes, pgx.NamedArgs{"account_id": account, "hashes": stored}); err != nil {
		return nil, fmt.Errorf("store the recovery codes: %w", err)
	}
	return codes, nil
}

// RemoveRecoveryCodes removes the account's recovery codes.
func RemoveRecoveryCodes(ctx context.Context, tx pgx.Tx, account string) error {
	if _, err := tx.Exec(ctx, deleteRecoveryCodes, pgx.NamedArgs{"account_id": account}); err != nil {
		return fmt.Errorf("remove the recovery codes: %w", err)
	}
	return nil
}

// SpendRecoveryCode uses a recovery code, and reports whether it is one of the
// account's that was not used, and how many are left.
func SpendRecoveryCode(ctx context.Context, tx pgx.Tx, account, code string) (ok bool, left int, err error) {
	hash, ok := recovery.Parse(code)
	if !ok {
		return false, 0, nil
	}
	tag, err := tx.Exec(ctx, spendRecoveryCode, pgx.NamedArgs{"hash": hash[:], "account_id": account})
	if err != nil {
		return false, 0, fmt.Errorf("use the recovery code: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return false, 0, nil
	}
	if err := tx.QueryRow(ctx, countRecoveryCodes, pgx.NamedArgs{"account_id": account}).Scan(&left); err != nil {
		return false, 0, fmt.Errorf("count the recovery codes: %w", err)
	}
	return true, left, nil
}
