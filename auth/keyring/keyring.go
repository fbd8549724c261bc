// Package keyring owns the keys that sign access tokens: their storage, sealed
// with a secret key, their rotation, and which one signs now.
package keyring

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"gatehouse/auth/deployment"
	"gatehouse/auth/secretkey"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/accesstoken"
	"gatehouse/internal/database"
	"gatehouse/internal/fault"
)

// The purposes for which signing keys are sealed. Once the session epoch has been
// raised, it is the second, which binaries without epochs can't open: they would
// accept sessions that have ended, so they must not sign or start.
const (
	signingKeyPurpose      = "signing key v1"
	signingKeyEpochPurpose = "signing key v2"
)

// openKey decrypts a sealed key, and returns the purpose that it was sealed for.
func openKey(secrets [][]byte, kid string, sealed []byte) (seed []byte, purpose string, err error) {
	for _, purpose = range []string{signingKeyPurpose, signingKeyEpochPurpose} {
		if seed, err = secretkey.Open(secrets, purpose, kid, sealed); !errors.Is(err, secretkey.ErrSealed) {
			break
		}
	}
	return seed, purpose, err
}

// Keyring signs access tokens with the current key: of those in Postgres, the one
// whose sign_time was reached last. Every replica of auth reads the keys four
// times a second, with the revocations, so that all switch keys at the same
// moment, without a restart.
//
// A key is published for at least ten seconds before it signs, and a gateway that
// received nothing for five doesn't verify with its keys: every gateway that
// verifies has the key. A replica that can't read Postgres continues with the keys
// that it has read. An old key is retired a minute after the last token that it
// should have signed expired, so a replica that has read nothing for keysTrusted
// stops signing.
type Keyring struct {
	db      *database.Pool
	life    time.Duration
	issuer  string
	secrets [][]byte
	logger  *slog.Logger
	now     func() time.Time // for the times in tokens
	// secondFactorRoles are left out of tokens of level 1.
	secondFactorRoles []string

	mu   sync.RWMutex
	keys []signingKey // the latest sign_time first
	read time.Time
	// epoch was read with the keys, first at epochSince. A call that began before
	// that may belong to a session that has ended.
	epoch      int64
	epochSince time.Time
}

// keysTrusted is how long after they were read the keys may sign.
const keysTrusted = time.Minute

// signingKey is a key as this replica uses it.
type signingKey struct {
	kid    string
	public []byte
	// Nil where it was sealed with a secret key that this replica lacks: the key
	// verifies, but cannot sign.
	private ed25519.PrivateKey
	signs   time.Time // from this time on
}

// Stored is a key's row, with its times on Postgres' clock.
type Stored struct {
	KID     string  `db:"kid"`
	Public  []byte  `db:"public_key"`
	Sealed  []byte  `db:"sealed_private_key"`
	SignsIn float64 `db:"signs_in"` // seconds
	Age     float64 `db:"age"`
	Epoch   int64   `db:"epoch"`
}

const (
	// Two replicas must not make two next keys.
	lockKeys = "SELECT pg_advisory_xact_lock(hashtextextended('gatehouse signing keys', 0))"
	// Select reads the keys as Stored rows.
	Select = `
		SELECT kid, public_key, sealed_private_key,
			extract(epoch FROM sign_time - clock_timestamp())::float8 AS signs_in,
			extract(epoch FROM clock_timestamp() - create_time)::float8 AS age,
			` + deployment.CurrentEpoch + ` AS epoch
		FROM auth.signing_keys ORDER BY sign_time DESC, kid`
	resealKey = `UPDATE auth.signing_keys SET sealed_private_key = @sealed_private_key WHERE kid = @kid`
	insertKey = `
		INSERT INTO auth.signing_keys (kid, public_key, sealed_private_key, create_time, sign_time)
		VALUES (@kid, @public_key, @sealed_private_key, clock_timestamp(), clock_timestamp() + @signs_in::interval)`
)

// Config configures a keyring.
type Config struct {
	DB *database.Pool
	// Secrets are the secret keys, newest first, 32 bytes each.
	Secrets [][]byte
	// Issuer is the "iss" of tokens.
	Issuer string
	// Life is how long a key signs; DefaultLife if zero.
	Life time.Duration
	// SecondFactorRoles are the roles that a token of level 1 does not get.
	SecondFactorRoles []string
	// Now is the clock for the times in tokens; time.Now if nil.
	Now    func() time.Time
	Logger *slog.Logger
}

// Open loads the keys, and makes the first one if none signs. It returns an error
// when a key was sealed with a secret key that it wasn't given.
func Open(ctx context.Context, config Config) (*Keyring, error) {
	secrets := config.Secrets
	if len(secrets) == 0 {
		return nil, errors.New("no secret key")
	}
	ring := &Keyring{db: config.DB, life: config.Life, issuer: config.Issuer, secrets: secrets, logger: config.Logger, now: config.Now, secondFactorRoles: config.SecondFactorRoles}
	if ring.life == 0 {
		ring.life = DefaultLife
	}
	if ring.now == nil {
		ring.now = time.Now
	}
	err := ring.db.Transact(ctx, func(tx pgx.Tx) error {
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
		ring.Take(stored, time.Now())
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("open the signing keys: %w", err)
	}
	return ring, nil
}

func readKeys(ctx context.Context, tx pgx.Tx) ([]Stored, error) {
	rows, err := tx.Query(ctx, Select)
	if err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	keys, err := pgx.CollectRows(rows, pgx.RowToStructByName[Stored])
	if err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	return keys, nil
}

// current returns the index of the key that signs now, and whether there is one.
func current(stored []Stored) (int, bool) {
	for i, key := range stored {
		if key.SignsIn <= 0 {
			return i, true
		}
	}
	return 0, false
}

// resealKeys reseals keys that an older secret key sealed with the newest one, so
// that the older can be dropped once every replica has both.
func resealKeys(ctx context.Context, tx pgx.Tx, secrets [][]byte, stored []Stored) error {
	for _, key := range stored {
		_, _, err := openKey(secrets[:1], key.KID, key.Sealed)
		if errors.Is(err, secretkey.ErrSealed) {
			err = reseal(ctx, tx, secrets, key)
		}
		if err != nil {
			return fmt.Errorf("signing key %s: %w", key.KID, err)
		}
	}
	return nil
}

func reseal(ctx context.Context, tx pgx.Tx, secrets [][]byte, key Stored) error {
	seed, purpose, err := openKey(secrets[1:], key.KID, key.Sealed)
	if err != nil {
		return fmt.Errorf("%w: give the GATEHOUSE_SECRET_KEY that sealed it, after a comma if it is the older one", err)
	}
	resealed, err := secretkey.Seal(secrets[0], purpose, key.KID, seed)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, resealKey, pgx.NamedArgs{"kid": key.KID, "sealed_private_key": resealed}); err != nil {
		return fmt.Errorf("reseal: %w", err)
	}
	return nil
}

// makeKey writes a key that signs after signsIn, and returns its id.
func makeKey(ctx context.Context, tx pgx.Tx, secret []byte, signsIn time.Duration) (string, error) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return "", fmt.Errorf("generate: %w", err)
	}
	kid := thumbprint(public)
	purpose := signingKeyPurpose
	epoch, err := deployment.Epoch(ctx, tx)
	if err != nil {
		return "", err
	}
	if epoch > 0 {
		purpose = signingKeyEpochPurpose
	}
	sealed, err := secretkey.Seal(secret, purpose, kid, private.Seed())
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

// Take replaces the keys with those read at a time, and reports whether keys were
// added or removed.
func (r *Keyring) Take(stored []Stored, at time.Time) (changed bool) {
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
		key.signs = at.Add(database.Seconds(row.SignsIn))
		r.keys = append(r.keys, key)
	}
	return changed
}

// open returns the private key, or nil where another secret key sealed it.
func (r *Keyring) open(row Stored) ed25519.PrivateKey {
	seed, _, err := openKey(r.secrets, row.KID, row.Sealed)
	if err != nil {
		r.logger.LogAttrs(context.Background(), slog.LevelError, "signing key: cannot be opened, no token can be signed when it becomes current: give this replica the GATEHOUSE_SECRET_KEY of the others",
			slog.String("kid", row.KID), slog.String("cause", err.Error()))
		return nil
	}
	return ed25519.NewKeyFromSeed(seed)
}

// signing returns the key that signs now. Errors: unavailable
// SERVICE_UNAVAILABLE.
func (r *Keyring) signing() (signingKey, error) {
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
			return signingKey{}, fault.Unavailable().WithCause(fmt.Errorf("signing key %s: %w", key.kid, secretkey.ErrSealed))
		}
		return key, nil
	}
	return signingKey{}, fault.Unavailable().WithCause(errors.New("no signing key"))
}

// endedSince reports whether all sessions have ended since a time.
func (r *Keyring) endedSince(at time.Time) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return at.Before(r.epochSince)
}

// Issuer is the "iss" of tokens.
func (r *Keyring) Issuer() string { return r.issuer }

// Life is how long a key signs.
func (r *Keyring) Life() time.Duration { return r.life }

// Now returns the time for issuing tokens.
func (r *Keyring) Now() time.Time { return r.now() }

// Published returns the public keys, the latest to sign first.
func (r *Keyring) Published() []*authv1.SigningKey {
	r.mu.RLock()
	defer r.mu.RUnlock()
	keys := make([]*authv1.SigningKey, len(r.keys))
	for i, key := range r.keys {
		keys[i] = &authv1.SigningKey{Kid: key.kid, PublicKey: key.public}
	}
	return keys
}

// AccessTokenLife is how long an access token is valid.
const AccessTokenLife = accesstoken.Life

// CheckSigning returns the error that AccessToken would return now, so that a caller
// gets it before it commits the change that the token is for.
func (r *Keyring) CheckSigning(at time.Time) error {
	_, err := r.signingAt(at)
	return err
}

// signingAt returns the key that signs a token of a call that began at that time.
func (r *Keyring) signingAt(at time.Time) (signingKey, error) {
	key, err := r.signing()
	if err == nil && r.endedSince(at) {
		err = fault.Unavailable().WithCause(errors.New("all sessions have ended since this call began"))
	}
	return key, err
}

// AccessToken signs a token for a session of the account. at must not be after the
// account was read, so that a later revocation outlives the token.
//
// Roles that need a second factor are left out of a token of level 1.
func (r *Keyring) AccessToken(account *authv1.Account, session uuid.UUID, signIn accesstoken.SignIn, at time.Time) (string, error) {
	key, err := r.signingAt(at)
	if err != nil {
		return "", err
	}
	return accesstoken.Mint(accesstoken.Key{ID: key.kid, Private: key.private}, r.issuer, accesstoken.Subject{
		AccountID: account.GetId(), SessionID: session.String(), Roles: r.granted(account.GetRoles(), signIn.Level),
		Version: account.GetAuthzVersion(), SignIn: signIn,
	}, at)
}

// granted returns the roles for a token of the level.
func (r *Keyring) granted(roles []string, level int) []string {
	if level >= 2 || len(r.secondFactorRoles) == 0 {
		return roles
	}
	left := make([]string, 0, len(roles))
	for _, role := range roles {
		if !slices.Contains(r.secondFactorRoles, role) {
			left = append(left, role)
		}
	}
	return left
}
