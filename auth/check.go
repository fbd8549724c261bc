package auth

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// ErrSecret says that a signing key was sealed with a secret key that isn't
// among those given.
var ErrSecret = errors.New("a signing key is sealed with another secret key")

const selectSealedKeys = `SELECT kid, sealed_private_key FROM auth.signing_keys`

// CheckSecrets reports whether the secret keys open the signing keys that are
// kept in the database, where there are any. It changes nothing. Errors:
// ErrSecret.
func CheckSecrets(ctx context.Context, db *pgx.Conn, secrets [][]byte) error {
	rows, err := db.Query(ctx, selectSealedKeys)
	if err != nil {
		return fmt.Errorf("read the signing keys: %w", err)
	}
	var kid string
	var sealed []byte
	_, err = pgx.ForEachRow(rows, []any{&kid, &sealed}, func() error {
		_, _, err := openSigningKey(secrets, kid, sealed)
		if errors.Is(err, errSealed) {
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

// SigningAge returns for how long the current signing key has signed; 0 where
// there is none yet.
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
