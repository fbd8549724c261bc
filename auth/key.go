package auth

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	authv1 "gatehouse/gen/auth/v1"
)

const signingKeyPurpose = "signing key v1"

// keyring signs access tokens with the newest of the keys kept in Postgres.
type keyring struct {
	issuer string
	kid    string
	key    ed25519.PrivateKey
	public []*authv1.SigningKey
	now    func() time.Time
}

const (
	// Two copies that start at once must not make two first keys.
	lockKeys   = "SELECT pg_advisory_xact_lock(hashtextextended('gatehouse signing keys', 0))"
	selectKeys = `
		SELECT kid, public_key, sealed_private_key FROM auth.signing_keys ORDER BY create_time DESC, kid`
	resealKey = `UPDATE auth.signing_keys SET sealed_private_key = @sealed_private_key WHERE kid = @kid`
	insertKey = `
		INSERT INTO auth.signing_keys (kid, public_key, sealed_private_key)
		VALUES (@kid, @public_key, @sealed_private_key)`
)

// openKeyring loads the keys, and makes the first one if there is none.
func openKeyring(ctx context.Context, db *pgxpool.Pool, secrets [][]byte, issuer string) (*keyring, error) {
	if len(secrets) == 0 {
		return nil, errors.New("no secret key")
	}
	ring := &keyring{issuer: issuer, now: time.Now}
	err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, lockKeys); err != nil {
			return fmt.Errorf("lock: %w", err)
		}
		if err := ring.load(ctx, tx, secrets); err != nil || ring.kid != "" {
			return err
		}
		if err := makeKey(ctx, tx, secrets[0]); err != nil {
			return err
		}
		return ring.load(ctx, tx, secrets)
	})
	if err != nil {
		return nil, fmt.Errorf("open the signing keys: %w", err)
	}
	return ring, nil
}

// load reads the keys. One that an older secret key sealed is sealed anew with
// the newest, so that the older can be dropped once every copy has both.
func (r *keyring) load(ctx context.Context, tx pgx.Tx, secrets [][]byte) error {
	rows, err := tx.Query(ctx, selectKeys)
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	type stored struct {
		KID    string `db:"kid"`
		Public []byte `db:"public_key"`
		Sealed []byte `db:"sealed_private_key"`
	}
	keys, err := pgx.CollectRows(rows, pgx.RowToStructByName[stored])
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	for _, key := range keys {
		seed, err := unseal(secrets[:1], signingKeyPurpose, key.KID, key.Sealed)
		if errors.Is(err, errSealed) {
			seed, err = reseal(ctx, tx, secrets, key.KID, key.Sealed)
		}
		if err != nil {
			return fmt.Errorf("signing key %s: %w", key.KID, err)
		}
		r.public = append(r.public, &authv1.SigningKey{Kid: key.KID, PublicKey: key.Public})
		if r.kid == "" { // the newest comes first
			r.kid, r.key = key.KID, ed25519.NewKeyFromSeed(seed)
		}
	}
	return nil
}

func reseal(ctx context.Context, tx pgx.Tx, secrets [][]byte, kid string, sealed []byte) ([]byte, error) {
	seed, err := unseal(secrets[1:], signingKeyPurpose, kid, sealed)
	if err != nil {
		return nil, fmt.Errorf("%w: give the GATEHOUSE_SECRET_KEY that sealed it, after a comma if it is the older one", err)
	}
	anew, err := seal(secrets[0], signingKeyPurpose, kid, seed)
	if err != nil {
		return nil, err
	}
	if _, err := tx.Exec(ctx, resealKey, pgx.NamedArgs{"kid": kid, "sealed_private_key": anew}); err != nil {
		return nil, fmt.Errorf("seal anew: %w", err)
	}
	return seed, nil
}

func makeKey(ctx context.Context, tx pgx.Tx, secret []byte) error {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return fmt.Errorf("generate: %w", err)
	}
	kid := thumbprint(public)
	sealed, err := seal(secret, signingKeyPurpose, kid, private.Seed())
	if err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	_, err = tx.Exec(ctx, insertKey, pgx.NamedArgs{"kid": kid, "public_key": []byte(public), "sealed_private_key": sealed})
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

// thumbprint is the key's JWK thumbprint (RFC 7638 with RFC 8037).
func thumbprint(public ed25519.PublicKey) string {
	x := base64.RawURLEncoding.EncodeToString(public)
	sum := sha256.Sum256([]byte(`{"crv":"Ed25519","kty":"OKP","x":"` + x + `"}`))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// accessClaims are an access token's claims (RFC 9068).
type accessClaims struct {
	jwt.RegisteredClaims
	ClientID  string   `json:"client_id"`
	SessionID string   `json:"sid"`
	Roles     []string `json:"roles"`
	Version   int64    `json:"ver"`
}

// Audience and client of every access token.
const (
	tokenAudience = "gatehouse"
	tokenClient   = "gatehouse"
)

// accessToken signs a token for a session of the account.
func (r *keyring) accessToken(account *authv1.Account, session uuid.UUID) (string, error) {
	now := r.now()
	token := jwt.NewWithClaims(jwt.SigningMethodEdDSA, accessClaims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer: r.issuer, Audience: jwt.ClaimStrings{tokenAudience}, Subject: account.GetId(),
			IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(AccessTokenLife)),
			ID: uuid.NewString(),
		},
		ClientID: tokenClient, SessionID: session.String(), Roles: account.GetRoles(), Version: account.GetAuthzVersion(),
	})
	token.Header["typ"] = "at+jwt"
	token.Header["kid"] = r.kid
	signed, err := token.SignedString(r.key)
	if err != nil {
		return "", fmt.Errorf("sign an access token: %w", err)
	}
	return signed, nil
}

// ListSigningKeys implements authv1.KeyServiceHandler.
func (s *Service) ListSigningKeys(context.Context, *authv1.ListSigningKeysRequest) (*authv1.ListSigningKeysResponse, error) {
	return &authv1.ListSigningKeysResponse{Keys: s.keys.public}, nil
}
