package keyring

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Ids of sessions are UUIDs of version 7: the largest one is the newest session.
const selectNewestKey = `SELECT token_key FROM auth.sessions ORDER BY id DESC LIMIT 1`

// StoredFingerprint returns the fingerprint of the secret key with which the newest
// session has its refresh token; "" without a session. See [secretkey.ID].
func StoredFingerprint(ctx context.Context, db *pgx.Conn) (string, error) {
	var fingerprint string
	err := db.QueryRow(ctx, selectNewestKey).Scan(&fingerprint)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return "", fmt.Errorf("read the fingerprint of the secret key: %w", err)
	}
	return fingerprint, nil
}
