package auth

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// ErrSecret says that a signing key was sealed with a secret key that isn't
// among those given.
var ErrSecret = errors.New("a signing key is sealed with another secret key")

const selectSealedKeys = `SELECT kid, sealed_private_key FROM auth.signing_keys`

// CheckSecrets reports whether the secret keys open the signing keys that are
// kept in the database. It changes nothing. Errors: ErrSecret.
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
