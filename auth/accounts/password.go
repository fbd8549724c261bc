package accounts

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"

	"github.com/jackc/pgx/v5"

	"gatehouse/internal/database"
)

// While an account has a second factor, the hash of its password is in
// factor_password_hash, and password_hash has a decoy: a binary older than schema
// number 8 would sign in by the password alone, and so refuses every password.

const (
	// PasswordHash is the hash of the password of an account, aliased a; empty if it
	// has none. A binary older than number 8 removes a password by an empty
	// password_hash.
	PasswordHash = `CASE WHEN a.second_factor AND a.password_hash <> '' THEN a.factor_password_hash ELSE a.password_hash END`
	// SetPasswordHash sets the hash of the password of an account, aliased a, to
	// @hash. It needs the arguments of PasswordArgs.
	SetPasswordHash = `
		password_hash = CASE WHEN a.second_factor AND @hash::text <> '' THEN @decoy ELSE @hash END,
		factor_password_hash = CASE WHEN a.second_factor THEN @hash ELSE '' END`
)

// PasswordArgs are the arguments of SetPasswordHash.
func PasswordArgs(hash string) pgx.NamedArgs {
	return pgx.NamedArgs{"hash": hash, "decoy": decoy()}
}

// decoy returns a hash in the form of a current one, whose check takes as long, and
// which no password matches. The constraint accounts_decoy knows it by its salt of
// zeros.
func decoy() string {
	sum := make([]byte, 32)
	_, _ = rand.Read(sum) // never fails
	return "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$" + base64.RawStdEncoding.EncodeToString(sum)
}

const hasPassword = `SELECT ` + PasswordHash + ` <> '' FROM auth.accounts a WHERE a.id = @id`

// HasPassword reports whether an account has a password.
func HasPassword(ctx context.Context, db database.Querier, id string) (has bool, err error) {
	if err := db.QueryRow(ctx, hasPassword, pgx.NamedArgs{"id": id}).Scan(&has); err != nil {
		return false, fmt.Errorf("look at the password: %w", err)
	}
	return has, nil
}

const (
	owesSecondFactor = `
		UPDATE auth.accounts a SET second_factor = true, factor_password_hash = a.password_hash,
			password_hash = CASE WHEN a.password_hash = '' THEN '' ELSE @decoy END, update_time = clock_timestamp()
		WHERE a.id = @id AND NOT a.second_factor`
	owesNoSecondFactor = `
		UPDATE auth.accounts a SET second_factor = false, password_hash = ` + PasswordHash + `,
			factor_password_hash = '', update_time = clock_timestamp()
		WHERE a.id = @id AND a.second_factor`
)

// SetSecondFactor sets whether a password sign-in of the account owes a second proof.
// Lock the account first, as a sign-in does: otherwise one that is under way could
// begin a session without it.
func SetSecondFactor(ctx context.Context, tx pgx.Tx, id string, owed bool) error {
	statement := owesNoSecondFactor
	if owed {
		statement = owesSecondFactor
	}
	if _, err := tx.Exec(ctx, statement, pgx.NamedArgs{"id": id, "decoy": decoy()}); err != nil {
		return fmt.Errorf("set whether a second factor is owed: %w", err)
	}
	return nil
}
