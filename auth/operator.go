package auth

import (
	"context"
	"io"
	"time"

	"github.com/jackc/pgx/v5"

	"gatehouse/auth/deployment"
	"gatehouse/auth/factors"
	"gatehouse/auth/importer"
	"gatehouse/auth/keyring"
)

// ErrSecret says that a signing key was sealed with a secret key that isn't
// among those given.
var ErrSecret = keyring.ErrSecret

// CheckSecrets checks that the secret keys open all stored signing keys. It changes
// nothing. Errors: ErrSecret.
func CheckSecrets(ctx context.Context, db *pgx.Conn, secrets [][]byte) error {
	return keyring.CheckSecrets(ctx, db, secrets)
}

// ErrFactorSecret says that the secret of an authenticator app was sealed with a secret key
// that isn't among those given.
var ErrFactorSecret = factors.ErrSecret

// CheckFactorSecrets checks that the secret keys include those that seal the secrets of
// authenticator apps. Errors: ErrFactorSecret.
func CheckFactorSecrets(ctx context.Context, db *pgx.Conn, secrets [][]byte) error {
	return factors.CheckSecrets(ctx, db, secrets)
}

// SecondFactors returns the state of second factors, for accounts that must have one
// because of their roles or because all must.
func SecondFactors(ctx context.Context, db *pgx.Conn, roles []string, required bool) (factors.State, error) {
	return factors.ReadState(ctx, db, roles, required)
}

// ResetFactors removes the second factors of an account, ends its sessions and keeps its
// password, also for the last administrator. It reports whether there is a password.
// Errors: not_found USER_NOT_FOUND.
func (s *Service) ResetFactors(ctx context.Context, email string) (hasPassword bool, err error) {
	return s.factors.ResetByOperator(ctx, email, operator)
}

// SigningAge returns how long the current signing key has been signing; 0 without
// one.
func SigningAge(ctx context.Context, db *pgx.Conn) (time.Duration, error) {
	return keyring.SigningAge(ctx, db)
}

// StoredIssuer returns the issuer of the replica that started last; "" before the
// first.
func StoredIssuer(ctx context.Context, db *pgx.Conn) (string, error) {
	return deployment.StoredIssuer(ctx, db)
}

// SigningKeys returns the signing keys, the latest to sign first.
func (s *Service) SigningKeys(ctx context.Context) ([]keyring.Key, error) { return s.keys.List(ctx) }

// RotateKeys makes the next key sign as soon as it was published for long enough;
// see [keyring.Keyring.Rotate].
func (s *Service) RotateKeys(ctx context.Context) (keyring.Key, error) { return s.keys.Rotate(ctx) }

// ReplaceKeys replaces all signing keys at once and ends every session; see
// [keyring.Keyring.Replace].
func (s *Service) ReplaceKeys(ctx context.Context) (kid string, err error) {
	return s.keys.Replace(ctx)
}

// Import creates an account from each JSON line and returns how many it created. A
// line that is not valid is refused with the reason, and the others continue; with
// dryRun, nothing is written. An error means that it could not continue: accounts
// created until then exist.
func (s *Service) Import(ctx context.Context, source io.Reader, dryRun bool, refuse func(line int, reason string)) (int, error) {
	return importer.Run(ctx, s.db, source, dryRun, refuse)
}
