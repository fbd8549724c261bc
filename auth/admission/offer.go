package admission

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"gatehouse/auth/challenge"
	authv1 "gatehouse/gen/auth/v1"
)

// When each kind of factor was last used; NULL for one that the account lacks.
const selectFactors = `
	SELECT (SELECT coalesce(last_used_time, create_time) FROM auth.totp_factors WHERE account_id = @account_id),
		(SELECT max(coalesce(last_used_time, create_time)) FROM auth.passkeys WHERE account_id = @account_id AND block_time IS NULL),
		EXISTS (SELECT FROM auth.recovery_codes WHERE account_id = @account_id AND use_time IS NULL)`

// Offer completes an outcome whose transaction is committed: it adds to a challenge the
// methods that the account has, and wakes what delivers its mail.
func (d *Desk) Offer(ctx context.Context, purpose challenge.Purpose, outcome *Outcome) error {
	if outcome.mailed {
		d.Mails.Wake()
	}
	if outcome.Challenge == nil {
		return nil
	}
	var err error
	if outcome.Challenge.Methods, err = d.methodsOf(ctx, outcome.Account.GetId()); err != nil {
		return err
	}
	countChallenge(ctx, "begun", firstOf(outcome.Challenge.GetMethods()))
	return d.addPasskeyOptions(ctx, purpose, outcome.Challenge, outcome.Account.GetId())
}

// methodsOf returns the methods by which an account can give a second proof, in the order
// in which to offer them.
func (d *Desk) methodsOf(ctx context.Context, account string) ([]string, error) {
	var totp, passkey *time.Time
	var recovery bool
	err := d.DB.QueryRow(ctx, selectFactors, pgx.NamedArgs{"account_id": account}).Scan(&totp, &passkey, &recovery)
	if err != nil {
		return nil, fmt.Errorf("read the account's factors: %w", err)
	}
	return d.methods(totp, passkey, recovery), nil
}

// methods returns the methods of the factors in the order in which to offer them: the
// one that was used last first, the recovery code last.
func (d *Desk) methods(totp, passkey *time.Time, recovery bool) []string {
	var found []string
	if totp != nil {
		found = append(found, string(TOTP))
	}
	if passkey != nil {
		found = append(found, string(Passkey))
	}
	if totp != nil && passkey != nil && passkey.After(*totp) {
		slices.Reverse(found)
	}
	if recovery {
		found = append(found, string(RecoveryCode))
	}
	return slices.DeleteFunc(found, func(method string) bool {
		return !slices.ContainsFunc(d.Verifiers, func(v Verifier) bool { return string(v.Kind) == method })
	})
}

func (d *Desk) addPasskeyOptions(ctx context.Context, purpose challenge.Purpose, owed *authv1.Challenge, account string) error {
	if !slices.Contains(owed.Methods, string(Passkey)) || d.PasskeyOptions == nil {
		return nil
	}
	var err error
	owed.PasskeyOptions, err = d.PasskeyOptions(ctx, purpose, owed.GetToken(), account)
	if owed.PasskeyOptions == nil { // none that can be used here
		owed.Methods = slices.DeleteFunc(owed.Methods, func(method string) bool { return method == string(Passkey) })
	}
	return err
}
