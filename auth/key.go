package auth

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/accesstoken"
	"gatehouse/internal/database"
	"gatehouse/internal/fault"
)

// What a signing key is sealed for. After an emergency it is the other one, which
// binaries without epochs can't open: they would go on with sessions that have
// ended, and so can't sign any more, and don't start.
const (
	signingKeyPurpose      = "signing key v1"
	signingKeyEpochPurpose = "signing key v2"
)

// openSigningKey opens a sealed key, and returns what for it was sealed.
func openSigningKey(secrets [][]byte, kid string, sealed []byte) (seed []byte, purpose string, err error) {
	for _, purpose = range []string{signingKeyPurpose, signingKeyEpochPurpose} {
		if seed, err = unseal(secrets, purpose, kid, sealed); !errors.Is(err, errSealed) {
			break
		}
	}
	return seed, purpose, err
}

// keyring signs access tokens with the key whose turn it is: of those in
// Postgres, the one whose sign_time came last. Every copy of auth reads the
// keys four times a second, with the revocations, so that all change from one
// key to the next at the same moment, without a restart.
//
// A key is there for at least ten seconds before it signs, and a gateway that
// heard nothing for five doesn't judge by its keys: whoever judges by them has
// the key. A copy that can't read goes on with what it has read. It can't sign
// with what nobody knows, for it holds only what was committed; but an old key
// goes a minute after the last token that it should have signed, so that a copy
// that has read nothing for keysTrusted signs no more.
type keyring struct {
	issuer  string
	secrets [][]byte
	logger  *slog.Logger
	now     func() time.Time // for what tokens say; turns are measured

	mu   sync.RWMutex
	keys []signingKey // the one to sign last comes first
	read time.Time
	// epoch is the one that was read with the keys, and epochSince when it was
	// read first. Who asked for a token before may be of a session that has ended.
	epoch      int64
	epochSince time.Time
}

// keysTrusted is for how long the keys count after they were read.
const keysTrusted = time.Minute

// signingKey is a key as this copy uses it.
type signingKey struct {
	kid    string
	public []byte
	// Nil where its secret key isn't ours: the key verifies, and can't sign.
	private ed25519.PrivateKey
	signs   time.Time // from when
}

// storedKey is a key's row, with its times on Postgres' clock.
type storedKey struct {
	KID     string  `db:"kid"`
	Public  []byte  `db:"public_key"`
	Sealed  []byte  `db:"sealed_private_key"`
	SignsIn float64 `db:"signs_in"` // seconds
	Age     float64 `db:"age"`
	Epoch   int64   `db:"epoch"`
}

const (
	// Two copies must not make two keys for one turn.
	lockKeys   = "SELECT pg_advisory_xact_lock(hashtextextended('gatehouse signing keys', 0))"
	selectKeys = `
		SELECT kid, public_key, sealed_private_key,
			extract(epoch FROM sign_time - clock_timestamp())::float8 AS signs_in,
			extract(epoch FROM clock_timestamp() - create_time)::float8 AS age,
			` + currentEpoch + ` AS epoch
		FROM auth.signing_keys ORDER BY sign_time DESC, kid`
	resealKey = `UPDATE auth.signing_keys SET sealed_private_key = @sealed_private_key WHERE kid = @kid`
	insertKey = `
		INSERT INTO auth.signing_keys (kid, public_key, sealed_private_key, create_time, sign_time)
		VALUES (@kid, @public_key, @sealed_private_key, clock_timestamp(), clock_timestamp() + @signs_in::interval)`
)

// openKeyring loads the keys, and makes the first one if none signs.
func openKeyring(ctx context.Context, db *pgxpool.Pool, secrets [][]byte, issuer string, logger *slog.Logger) (*keyring, error) {
	if len(secrets) == 0 {
		return nil, errors.New("no secret key")
	}
	ring := &keyring{issuer: issuer, secrets: secrets, logger: logger, now: time.Now}
	err := database.Retrying(db).Transact(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, lockKeys); err != nil {
			return fmt.Errorf("lock: %w", err)
		}
		stored, err := readKeys(ctx, tx)
		if err != nil {
			return err
		}
		if _, ok := current(stored); !ok {
			if _, err := makeKey(ctx, tx, secrets[0], 0); err != nil {
				return err
			}
			if stored, err = readKeys(ctx, tx); err != nil {
				return err
			}
		}
		if err := resealKeys(ctx, tx, secrets, stored); err != nil {
			return err
		}
		ring.take(stored, time.Now())
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("open the signing keys: %w", err)
	}
	return ring, nil
}

func readKeys(ctx context.Context, tx pgx.Tx) ([]storedKey, error) {
	rows, err := tx.Query(ctx, selectKeys)
	if err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	keys, err := pgx.CollectRows(rows, pgx.RowToStructByName[storedKey])
	if err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	return keys, nil
}

// current returns the place of the key whose turn it is, and whether there is one.
func current(stored []storedKey) (int, bool) {
	for i, key := range stored {
		if key.SignsIn <= 0 {
			return i, true
		}
	}
	return 0, false
}

// resealKeys seals anew, with the newest secret key, what an older one sealed,
// so that the older can be dropped once every copy has both.
func resealKeys(ctx context.Context, tx pgx.Tx, secrets [][]byte, stored []storedKey) error {
	for _, key := range stored {
		_, _, err := openSigningKey(secrets[:1], key.KID, key.Sealed)
		if errors.Is(err, errSealed) {
			err = reseal(ctx, tx, secrets, key)
		}
		if err != nil {
			return fmt.Errorf("signing key %s: %w", key.KID, err)
		}
	}
	return nil
}

func reseal(ctx context.Context, tx pgx.Tx, secrets [][]byte, key storedKey) error {
	seed, purpose, err := openSigningKey(secrets[1:], key.KID, key.Sealed)
	if err != nil {
		return fmt.Errorf("%w: give the GATEHOUSE_SECRET_KEY that sealed it, after a comma if it is the older one", err)
	}
	anew, err := seal(secrets[0], purpose, key.KID, seed)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, resealKey, pgx.NamedArgs{"kid": key.KID, "sealed_private_key": anew}); err != nil {
		return fmt.Errorf("seal anew: %w", err)
	}
	return nil
}

// makeKey writes a key that is to sign after a while, and returns its id.
func makeKey(ctx context.Context, tx pgx.Tx, secret []byte, signsIn time.Duration) (string, error) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return "", fmt.Errorf("generate: %w", err)
	}
	kid := thumbprint(public)
	purpose := signingKeyPurpose
	var epoch int64
	if err := tx.QueryRow(ctx, selectEpoch).Scan(&epoch); err != nil {
		return "", fmt.Errorf("read the epoch: %w", err)
	}
	if epoch > 0 {
		purpose = signingKeyEpochPurpose
	}
	sealed, err := seal(secret, purpose, kid, private.Seed())
	if err != nil {
		return "", fmt.Errorf("seal: %w", err)
	}
	_, err = tx.Exec(ctx, insertKey, pgx.NamedArgs{"kid": kid, "public_key": []byte(public), "sealed_private_key": sealed, "signs_in": signsIn})
	if err != nil {
		return "", fmt.Errorf("write: %w", err)
	}
	return kid, nil
}

// thumbprint is the key's JWK thumbprint (RFC 7638 with RFC 8037).
func thumbprint(public ed25519.PublicKey) string {
	x := base64.RawURLEncoding.EncodeToString(public)
	sum := sha256.Sum256([]byte(`{"crv":"Ed25519","kty":"OKP","x":"` + x + `"}`))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// take takes over what was read at a moment, and reports whether keys came or
// went.
func (r *keyring) take(stored []storedKey, at time.Time) (changed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	known := map[string]signingKey{}
	for _, key := range r.keys {
		known[key.kid] = key
	}
	if len(stored) > 0 && stored[0].Epoch != r.epoch {
		r.epoch = stored[0].Epoch
		if !r.read.IsZero() {
			r.epochSince = time.Now()
		}
	}
	changed = len(stored) != len(r.keys)
	r.keys, r.read = make([]signingKey, 0, len(stored)), at
	for _, row := range stored {
		key, ok := known[row.KID]
		if !ok {
			changed = true
			key = signingKey{kid: row.KID, public: row.Public, private: r.open(row)}
		}
		key.signs = at.Add(seconds(row.SignsIn))
		r.keys = append(r.keys, key)
	}
	return changed
}

// open returns the private key, or nil where another secret key sealed it.
func (r *keyring) open(row storedKey) ed25519.PrivateKey {
	seed, _, err := openSigningKey(r.secrets, row.KID, row.Sealed)
	if err != nil {
		r.logger.LogAttrs(context.Background(), slog.LevelError, "a signing key can't be opened, so that no token can be made when its turn comes: give this copy the GATEHOUSE_SECRET_KEY of the others",
			slog.String("kid", row.KID), slog.String("cause", err.Error()))
		return nil
	}
	return ed25519.NewKeyFromSeed(seed)
}

// signing returns the key whose turn it is. Errors: unavailable
// SERVICE_UNAVAILABLE.
func (r *keyring) signing() (signingKey, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	now := time.Now()
	if age := now.Sub(r.read); age > keysTrusted {
		return signingKey{}, fault.Unavailable().WithCause(fmt.Errorf("the signing keys were read %s ago", age.Round(time.Second)))
	}
	for _, key := range r.keys {
		if key.signs.After(now) {
			continue
		}
		if key.private == nil {
			return signingKey{}, fault.Unavailable().WithCause(fmt.Errorf("signing key %s: %w", key.kid, errSealed))
		}
		return key, nil
	}
	return signingKey{}, fault.Unavailable().WithCause(errors.New("there is no signing key"))
}

// endedSince reports whether all sessions have ended since a moment.
func (r *keyring) endedSince(at time.Time) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return at.Before(r.epochSince)
}

// published are the public keys, the one to sign last first.
func (r *keyring) published() []*authv1.SigningKey {
	r.mu.RLock()
	defer r.mu.RUnlock()
	keys := make([]*authv1.SigningKey, len(r.keys))
	for i, key := range r.keys {
		keys[i] = &authv1.SigningKey{Kid: key.kid, PublicKey: key.public}
	}
	return keys
}

// accessToken signs a token for a session of the account, as of a moment that
// isn't after the account was read: what is revoked later outlives it.
func (r *keyring) accessToken(account *authv1.Account, session uuid.UUID, at time.Time) (string, error) {
	key, err := r.signing()
	if err != nil {
		return "", err
	}
	if r.endedSince(at) {
		return "", fault.Unavailable().WithCause(errors.New("all sessions have ended since this call began"))
	}
	return accesstoken.Mint(accesstoken.Key{ID: key.kid, Private: key.private}, r.issuer, accesstoken.Subject{
		AccountID: account.GetId(), SessionID: session.String(), Roles: account.GetRoles(), Version: account.GetAuthzVersion(),
	}, at)
}

// ListSigningKeys implements authv1.KeyServiceHandler.
func (s *Service) ListSigningKeys(context.Context, *authv1.ListSigningKeysRequest) (*authv1.ListSigningKeysResponse, error) {
	return &authv1.ListSigningKeysResponse{Keys: s.keys.published(), Issuer: s.keys.issuer}, nil
}
