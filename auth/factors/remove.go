package factors

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"gatehouse/auth/accounts"
	"gatehouse/auth/admission"
	"gatehouse/auth/apikeys"
	"gatehouse/auth/devices"
)

const existsFactor = `
	SELECT EXISTS (SELECT FROM auth.totp_factors WHERE account_id = @account_id)
		OR EXISTS (SELECT FROM auth.passkeys WHERE account_id = @account_id)`

// Removed follows the removal of a second factor of the account, whose row is locked:
// it lowers the sessions that rest on its methods, forgets the remembered devices, and
// after the last factor removes the recovery codes, so that a password alone signs in.
//
// It reports whether a second factor is left.
func Removed(ctx context.Context, tx pgx.Tx, account string, methods ...string) (left bool, err error) {
	if err := tx.QueryRow(ctx, existsFactor, pgx.NamedArgs{"account_id": account}).Scan(&left); err != nil {
		return false, fmt.Errorf("look for another second factor: %w", err)
	}
	if !left {
		if err := RemoveRecoveryCodes(ctx, tx, account); err != nil {
			return false, err
		}
		if err := accounts.SetSecondFactor(ctx, tx, account, false); err != nil {
			return false, err
		}
		if err := apikeys.Lower(ctx, tx, account); err != nil {
			return false, err
		}
		methods = append(methods, "rec")
	}
	if err := admission.Lower(ctx, tx, account, methods...); err != nil {
		return false, err
	}
	_, err = devices.Forget(ctx, tx, account, nil)
	return left, err
}
