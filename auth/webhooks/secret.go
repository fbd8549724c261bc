package webhooks

import (
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"gatehouse/auth/secretkey"
)

// sealPurpose is the purpose of sealing; the label is the row's id.
const sealPurpose = "webhook v1"

// The versions of the signature: HMAC-SHA256, and Ed25519.
const (
	versionHMAC    = "v1"
	versionEd25519 = "v1a"
)

// Secret is what calls are signed with.
type Secret struct {
	key  [32]byte // of the HMAC
	seed [ed25519.SeedSize]byte
}

// NewSecret returns a random secret.
func NewSecret() (made Secret) {
	_, _ = rand.Read(made.key[:]) // never fails
	_, _ = rand.Read(made.seed[:])
	return made
}

// Text returns the secret as its receiver needs it: whsec_ and base64.
func (s Secret) Text() string { return "whsec_" + base64.StdEncoding.EncodeToString(s.key[:]) }

func (s Secret) private() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(s.seed[:]) }

func (s Secret) public() []byte { return s.private().Public().(ed25519.PublicKey) }

// publicText returns the text of a public key.
func publicText(key []byte) string { return "whpk_" + base64.StdEncoding.EncodeToString(key) }

// sign returns the value of webhook-signature: a signature by each secret and version.
func sign(secrets []Secret, versions []string, id string, at time.Time, body []byte) string {
	signed := append([]byte(id+"."+strconv.FormatInt(at.Unix(), 10)+"."), body...)
	var signatures []string
	for _, version := range versions {
		for _, one := range secrets {
			var signature []byte
			if version == versionEd25519 {
				signature = ed25519.Sign(one.private(), signed)
			} else {
				mac := hmac.New(sha256.New, one.key[:])
				mac.Write(signed)
				signature = mac.Sum(nil)
			}
			signatures = append(signatures, version+","+base64.StdEncoding.EncodeToString(signature))
		}
	}
	return strings.Join(signatures, " ")
}

const (
	countSecrets  = `SELECT count(*) FROM auth.webhook_secrets WHERE webhook_id = @webhook_id AND (expire_time IS NULL OR expire_time > now())`
	expireSecrets = `
		UPDATE auth.webhook_secrets SET expire_time = now() + @overlap::interval WHERE webhook_id = @webhook_id AND expire_time IS NULL`
	insertSecret = `
		INSERT INTO auth.webhook_secrets (id, webhook_id, sealed_secret, key_id, public_key)
		VALUES (@id, @webhook_id, @sealed_secret, @key_id, @public_key)`
)

// addSecret gives an endpoint, which is locked, a new secret.
func (s *Service) addSecret(ctx context.Context, tx pgx.Tx, webhook string) (Secret, error) {
	var count int
	if err := tx.QueryRow(ctx, countSecrets, pgx.NamedArgs{"webhook_id": webhook}).Scan(&count); err != nil {
		return Secret{}, fmt.Errorf("count the secrets: %w", err)
	}
	if count >= maxSecrets {
		return Secret{}, errTooManySecrets
	}
	if _, err := tx.Exec(ctx, expireSecrets, pgx.NamedArgs{"webhook_id": webhook, "overlap": secretOverlap}); err != nil {
		return Secret{}, fmt.Errorf("expire the older secrets: %w", err)
	}
	id, err := uuid.NewV7()
	if err != nil {
		return Secret{}, fmt.Errorf("make an id: %w", err)
	}
	made := NewSecret()
	sealed, keyID, err := s.seal(id.String(), made)
	if err != nil {
		return Secret{}, err
	}
	_, err = tx.Exec(ctx, insertSecret, pgx.NamedArgs{
		"id": id.String(), "webhook_id": webhook, "sealed_secret": sealed, "key_id": keyID, "public_key": made.public(),
	})
	if err != nil {
		return Secret{}, fmt.Errorf("write the secret: %w", err)
	}
	return made, nil
}

func (s *Service) seal(id string, plain Secret) (sealed []byte, keyID string, err error) {
	if keyID, err = secretkey.ID(s.secrets[0]); err != nil {
		return nil, "", err
	}
	sealed, err = secretkey.Seal(s.secrets[0], sealPurpose, id, append(plain.key[:], plain.seed[:]...))
	return sealed, keyID, err
}

func (s *Service) unseal(id string, sealed []byte) (plain Secret, err error) {
	text, err := secretkey.Open(s.secrets, sealPurpose, id, sealed)
	if err != nil {
		return plain, fmt.Errorf("open the secret of a webhook: %w", err)
	}
	if len(text) != len(plain.key)+len(plain.seed) {
		return plain, errors.New("the secret of a webhook has another length")
	}
	copy(plain.key[:], text)
	copy(plain.seed[:], text[len(plain.key):])
	return plain, nil
}

const (
	selectSealed = `
		SELECT id::text, sealed_secret FROM auth.webhook_secrets
		WHERE key_id <> @key_id AND (expire_time IS NULL OR expire_time > now()) ORDER BY id`
	reseal = `UPDATE auth.webhook_secrets SET sealed_secret = @resealed, key_id = @key_id WHERE id = @id AND sealed_secret = @sealed`
)

// sealedSecret is the row of selectSealed.
type sealedSecret struct {
	ID     string
	Sealed []byte
}

// Reseal seals every secret with the newest secret key that an older one has sealed, so that
// the older one can be dropped.
func (s *Service) Reseal(ctx context.Context) error {
	newest, err := secretkey.ID(s.secrets[0])
	if err != nil {
		return err
	}
	rows, err := s.db.Query(ctx, selectSealed, pgx.NamedArgs{"key_id": newest})
	if err != nil {
		return fmt.Errorf("read the secrets of webhooks: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[sealedSecret])
	if err != nil {
		return fmt.Errorf("read the secrets of webhooks: %w", err)
	}
	var failed error
	for _, row := range found {
		plain, err := s.unseal(row.ID, row.Sealed)
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		sealed, keyID, err := s.seal(row.ID, plain)
		if err != nil {
			return err
		}
		if _, err := s.db.Exec(ctx, reseal, pgx.NamedArgs{"id": row.ID, "sealed": row.Sealed, "resealed": sealed, "key_id": keyID}); err != nil {
			return fmt.Errorf("reseal the secret of a webhook: %w", err)
		}
	}
	return failed
}
