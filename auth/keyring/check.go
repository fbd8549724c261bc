package keyring

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"gatehouse/auth/secretkey"
)

// ErrSecret is the error for a signing key that was sealed with a secret key that
// isn't among those given.
var ErrSecret = errors.New("a signing key is sealed with another secret key")

const selectSealedKeys = `SELECT kid, sealed_private_key FROM auth.signing_keys`

// CheckSecrets checks that the secret keys open all stored signing keys. It changes
// nothing. Errors: ErrSecret.
func CheckSecrets(ctx context.Context, db *pgx.Conn, secrets [][]byte) error {
	rows, err := db.Query(ctx, selectSealedKeys)
	if err != nil {
		return fmt.Errorf("read the signing keys: %w", err)
	}
	var kid string
	var sealed []byte
	_, err = pgx.ForEachRow(rows, []any{&kid, &sealed}, func() error {
		_, _, err := openKey(secrets, kid, sealed)
		if errors.Is(err, secretkey.ErrSealed) {
			return ErrSecret
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("open the signing keys: %w", err)
	}
	return nil
}

const selectSigningAge = `
	SELECT extract(epoch FROM clock_timestamp() - max(sign_time))::float8
	FROM auth.signing_keys WHERE sign_time <= clock_timestamp()`

// SigningAge returns how long the current key has been signing; 0 without one.
func SigningAge(ctx context.Context, db *pgx.Conn) (time.Duration, error) {
	var age *float64
	if err := db.QueryRow(ctx, selectSigningAge).Scan(&age); err != nil {
		return 0, fmt.Errorf("read the signing keys: %w", err)
	}
	if age == nil {
		return 0, nil
	}
	return time.Duration(*age * float64(time.Second)), nil
}
