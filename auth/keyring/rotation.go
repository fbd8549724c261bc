package keyring

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"gatehouse/auth/audit"
	"gatehouse/auth/deployment"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/database"
	"gatehouse/internal/outage"
)

const (
	// DefaultLife is how long a key signs by default.
	DefaultLife = 30 * 24 * time.Hour
	// keyAhead is how long before it signs the schedule makes a key.
	keyAhead = 15 * time.Minute
	// keyPublished is how long a key is published before it signs: ten seconds,
	// and one for the commit.
	keyPublished = 11 * time.Second
	// keyLinger is how long a key is kept after its successor signs: the life of
	// its tokens, and keysTrusted.
	keyLinger    = AccessTokenLife + keysTrusted
	keysInterval = time.Second
	keysLimit    = 5 * time.Second
)

// keyOperator is the origin of commands.
var keyOperator = &authv1.Origin{UserAgent: "gatehouse keys"}

// keyPlan is what the schedule changes.
type keyPlan struct {
	make    bool // a key that signs after signsIn
	signsIn time.Duration
	retire  []string
}

func (p keyPlan) nothing() bool { return !p.make && len(p.retire) == 0 }

// planKeys returns what the schedule changes in the keys, the latest to sign first.
func planKeys(stored []Stored, life time.Duration) keyPlan {
	at, ok := current(stored)
	if !ok {
		return keyPlan{make: true} // without one, nobody could sign in
	}
	var plan keyPlan
	left := life + database.Seconds(stored[at].SignsIn)
	if at == 0 && left <= keyAhead {
		plan.make, plan.signsIn = true, keyAhead
	}
	for i := at + 1; i < len(stored); i++ {
		if successor := stored[i-1]; -database.Seconds(successor.SignsIn) >= keyLinger {
			plan.retire = append(plan.retire, stored[i].KID)
		}
	}
	return plan
}

// due reports whether the schedule may change the keys as they were read last.
func (r *Keyring) due(life time.Duration) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	stored := make([]Stored, len(r.keys))
	for i, key := range r.keys {
		stored[i] = Stored{KID: key.kid, SignsIn: time.Until(key.signs).Seconds()}
	}
	return !planKeys(stored, life).nothing()
}

// Run makes the next key in time and retires old ones, until ctx ends. Every
// replica does, under one lock.
func (r *Keyring) Run(ctx context.Context) {
	ticker := time.NewTicker(keysInterval)
	defer ticker.Stop()
	failures := outage.Log{Logger: r.logger, Failed: "signing keys: rotation failed, retrying", Recovered: "signing keys: rotation recovered"}
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if !r.due(r.life) {
			continue
		}
		if err := r.schedule(ctx); ctx.Err() == nil {
			failures.Note(ctx, err)
		}
	}
}

const (
	tryLockKeys = "SELECT pg_try_advisory_xact_lock(hashtextextended('gatehouse signing keys', 0))"
	deleteKeys  = `DELETE FROM auth.signing_keys WHERE kid = ANY (@kids)`
)

func (r *Keyring) schedule(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, keysLimit)
	defer cancel()
	return r.db.Transact(ctx, func(tx pgx.Tx) error {
		var ours bool
		if err := tx.QueryRow(ctx, tryLockKeys).Scan(&ours); err != nil || !ours {
			return err
		}
		stored, err := readKeys(ctx, tx)
		if err != nil {
			return err
		}
		plan := planKeys(stored, r.life)
		if plan.make {
			kid, err := makeKey(ctx, tx, r.secrets[0], plan.signsIn)
			if err != nil {
				return err
			}
			r.logger.LogAttrs(ctx, slog.LevelInfo, "signing key: published", slog.String("kid", kid), slog.Duration("signs_in", plan.signsIn))
		}
		if _, err := tx.Exec(ctx, deleteKeys, pgx.NamedArgs{"kids": plan.retire}); err != nil {
			return fmt.Errorf("retire signing keys: %w", err)
		}
		for _, kid := range plan.retire {
			r.logger.LogAttrs(ctx, slog.LevelInfo, "signing key: retired", slog.String("kid", kid))
		}
		return nil
	})
}

// Key says when a signing key signs.
type Key struct {
	KID string
	// SignsIn is the time until it signs: not positive for the current key and for
	// those before it.
	SignsIn time.Duration
	// Signing says whether it is the current key.
	Signing bool
	// Age is the time since it was created.
	Age time.Duration
}

// List returns the signing keys, the latest to sign first.
func (r *Keyring) List(ctx context.Context) ([]Key, error) {
	var keys []Key
	err := r.db.Transact(ctx, func(tx pgx.Tx) error {
		stored, err := readKeys(ctx, tx)
		if err != nil {
			return err
		}
		at, _ := current(stored)
		for i, key := range stored {
			keys = append(keys, Key{KID: key.KID, SignsIn: database.Seconds(key.SignsIn), Signing: i == at && key.SignsIn <= 0, Age: database.Seconds(key.Age)})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the signing keys: %w", err)
	}
	return keys, nil
}

// The next key signs as soon as it was published for long enough, and no later
// than it would have.
const hastenKey = `
	UPDATE auth.signing_keys
	SET sign_time = least(sign_time, greatest(clock_timestamp(), create_time + @published::interval))
	WHERE kid = @kid
	RETURNING extract(epoch FROM sign_time - clock_timestamp())::float8`

// Rotate makes the next key sign as soon as it was published for long enough, and
// returns its id and the time until then. Tokens of the current key stay valid
// until they expire.
func (r *Keyring) Rotate(ctx context.Context) (next Key, err error) {
	err = r.db.Transact(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, lockKeys); err != nil {
			return fmt.Errorf("lock: %w", err)
		}
		stored, err := readKeys(ctx, tx)
		if err != nil {
			return err
		}
		if at, ok := current(stored); ok && at > 0 {
			next = Key{KID: stored[at-1].KID} // of several, the first to sign
			var signsIn float64
			if err := tx.QueryRow(ctx, hastenKey, pgx.NamedArgs{"kid": next.KID, "published": keyPublished}).Scan(&signsIn); err != nil {
				return fmt.Errorf("hasten the next one: %w", err)
			}
			next.SignsIn = max(0, database.Seconds(signsIn))
		} else {
			next.SignsIn = keyPublished
			if next.KID, err = makeKey(ctx, tx, r.secrets[0], keyPublished); err != nil {
				return err
			}
		}
		return audit.Write(ctx, tx, audit.Row{Event: audit.KeyRotate, Outcome: audit.Succeeded, Origin: keyOperator})
	})
	if err != nil {
		return Key{}, fmt.Errorf("rotate the signing keys: %w", err)
	}
	return next, nil
}

const deleteAllKeys = `DELETE FROM auth.signing_keys`

// Replace replaces all keys with a new one at once and ends every session, for
// when a key may have leaked. It returns the new key's id. No token has to be
// revoked, since no key verifies it. Binaries without epochs can't open the new
// key.
func (r *Keyring) Replace(ctx context.Context) (kid string, err error) {
	err = r.db.Transact(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, lockKeys); err != nil {
			return fmt.Errorf("lock: %w", err)
		}
		if err := deployment.RaiseEpoch(ctx, tx); err != nil {
			return fmt.Errorf("end the sessions: %w", err)
		}
		if _, err := tx.Exec(ctx, deleteAllKeys); err != nil {
			return fmt.Errorf("remove the old ones: %w", err)
		}
		if kid, err = makeKey(ctx, tx, r.secrets[0], 0); err != nil {
			return err
		}
		return audit.Write(ctx, tx, audit.Row{Event: audit.KeyReplace, Outcome: audit.Succeeded, Origin: keyOperator})
	})
	if err != nil {
		return "", fmt.Errorf("replace the signing keys: %w", err)
	}
	return kid, nil
}
