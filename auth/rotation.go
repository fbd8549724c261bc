package auth

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	authv1 "gatehouse/gen/auth/v1"
)

const (
	// DefaultKeyLife is for how long a key signs if Config says nothing.
	DefaultKeyLife = 30 * 24 * time.Hour
	// keyAhead is how long before its turn the schedule makes a key.
	keyAhead = 15 * time.Minute
	// keyPublished is for how long a key is there before it signs: ten seconds,
	// and one for the commit that makes it so.
	keyPublished = 11 * time.Second
	// keyLinger is for how long a key is kept after its successor's turn came:
	// as long as any of its tokens, and what keysTrusted and clocks may add.
	keyLinger    = AccessTokenLife + keysTrusted
	keysInterval = time.Second
	keysLimit    = 5 * time.Second
)

const (
	eventKeyRotate  event = "key.rotate"  // An operator has the next signing key sign.
	eventKeyReplace event = "key.replace" // An operator has replaced all signing keys at once, which ends every session.
)

// keyOperator is the origin of what is done to keys from the command line.
var keyOperator = &authv1.Origin{UserAgent: "gatehouse keys"}

// keyPlan is what is to be done about the keys.
type keyPlan struct {
	make    bool // a key, that signs after signsIn
	signsIn time.Duration
	retire  []string
}

func (p keyPlan) nothing() bool { return !p.make && len(p.retire) == 0 }

// planKeys says what the schedule wants of the keys, the one to sign last first.
func planKeys(stored []storedKey, life time.Duration) keyPlan {
	at, ok := current(stored)
	if !ok {
		return keyPlan{make: true} // without one, nobody could sign in
	}
	var plan keyPlan
	left := life + seconds(stored[at].SignsIn)
	if at == 0 && left <= keyAhead {
		plan.make, plan.signsIn = true, keyAhead
	}
	for i := at + 1; i < len(stored); i++ {
		if successor := stored[i-1]; -seconds(successor.SignsIn) >= keyLinger {
			plan.retire = append(plan.retire, stored[i].KID)
		}
	}
	return plan
}

// due reports whether the schedule may want something of the keys as they were
// read last.
func (r *keyring) due(life time.Duration) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	stored := make([]storedKey, len(r.keys))
	for i, key := range r.keys {
		stored[i] = storedKey{KID: key.kid, SignsIn: time.Until(key.signs).Seconds()}
	}
	return !planKeys(stored, life).nothing()
}

// keepKeys makes the next key in time and retires old ones, until ctx ends.
// Every copy of auth does, and they agree by a lock.
func (s *Service) keepKeys(ctx context.Context) {
	ticker := time.NewTicker(keysInterval)
	defer ticker.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if !s.keys.due(s.keyLife) {
			continue
		}
		err := s.scheduleKeys(ctx)
		if away := err != nil; away != failing && ctx.Err() == nil {
			failing = away
			if away {
				s.logger.LogAttrs(ctx, slog.LevelWarn, "the signing keys can't be looked after", slog.String("cause", err.Error()))
			} else {
				s.logger.LogAttrs(ctx, slog.LevelInfo, "the signing keys are looked after again")
			}
		}
	}
}

const (
	tryLockKeys = "SELECT pg_try_advisory_xact_lock(hashtextextended('gatehouse signing keys', 0))"
	deleteKeys  = `DELETE FROM auth.signing_keys WHERE kid = ANY (@kids)`
)

func (s *Service) scheduleKeys(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, keysLimit)
	defer cancel()
	return s.transact(ctx, func(tx pgx.Tx) error {
		var ours bool
		if err := tx.QueryRow(ctx, tryLockKeys).Scan(&ours); err != nil || !ours {
			return err
		}
		stored, err := readKeys(ctx, tx)
		if err != nil {
			return err
		}
		plan := planKeys(stored, s.keyLife)
		if plan.make {
			kid, err := makeKey(ctx, tx, s.keys.secrets[0], plan.signsIn)
			if err != nil {
				return err
			}
			s.logger.LogAttrs(ctx, slog.LevelInfo, "the next signing key is published", slog.String("kid", kid), slog.Duration("signs_in", plan.signsIn))
		}
		if _, err := tx.Exec(ctx, deleteKeys, pgx.NamedArgs{"kids": plan.retire}); err != nil {
			return fmt.Errorf("retire signing keys: %w", err)
		}
		for _, kid := range plan.retire {
			s.logger.LogAttrs(ctx, slog.LevelInfo, "a signing key is retired", slog.String("kid", kid))
		}
		return nil
	})
}

// KeyTurn says when a signing key signs.
type KeyTurn struct {
	KID string
	// SignsIn is how long it is until it signs: not positive for the one that
	// signs now, and for those before it.
	SignsIn time.Duration
	// Signing is whether its turn is now.
	Signing bool
	// Age is how long it has been there.
	Age time.Duration
}

// SigningKeys returns the signing keys, the one to sign last first.
func (s *Service) SigningKeys(ctx context.Context) ([]KeyTurn, error) {
	var turns []KeyTurn
	err := s.transact(ctx, func(tx pgx.Tx) error {
		stored, err := readKeys(ctx, tx)
		if err != nil {
			return err
		}
		at, _ := current(stored)
		for i, key := range stored {
			turns = append(turns, KeyTurn{KID: key.KID, SignsIn: seconds(key.SignsIn), Signing: i == at && key.SignsIn <= 0, Age: seconds(key.Age)})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the signing keys: %w", err)
	}
	return turns, nil
}

// A key that waits for its turn gets it as soon as it was published for long
// enough, and no later than it would have.
const hastenKey = `
	UPDATE auth.signing_keys
	SET sign_time = least(sign_time, greatest(clock_timestamp(), create_time + @published::interval))
	WHERE kid = @kid
	RETURNING extract(epoch FROM sign_time - clock_timestamp())::float8`

// RotateKeys has the next key sign as soon as it may, and returns its id and
// how long that is. Tokens of the one before are good until they expire.
func (s *Service) RotateKeys(ctx context.Context) (next KeyTurn, err error) {
	err = s.transact(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, lockKeys); err != nil {
			return fmt.Errorf("lock: %w", err)
		}
		stored, err := readKeys(ctx, tx)
		if err != nil {
			return err
		}
		if at, ok := current(stored); ok && at > 0 {
			next = KeyTurn{KID: stored[at-1].KID} // of several, the one whose turn is next
			var signsIn float64
			if err := tx.QueryRow(ctx, hastenKey, pgx.NamedArgs{"kid": next.KID, "published": keyPublished}).Scan(&signsIn); err != nil {
				return fmt.Errorf("hasten the next one: %w", err)
			}
			next.SignsIn = max(0, seconds(signsIn))
		} else {
			next.SignsIn = keyPublished
			if next.KID, err = makeKey(ctx, tx, s.keys.secrets[0], keyPublished); err != nil {
				return err
			}
		}
		return audit(ctx, tx, audited{event: eventKeyRotate, outcome: succeeded, origin: keyOperator})
	})
	if err != nil {
		return KeyTurn{}, fmt.Errorf("rotate the signing keys: %w", err)
	}
	return next, nil
}

const (
	// Whoever ends an account's sessions holds some of their rows and wants the
	// others: without this lock, the update of all could wait for them while they
	// wait for it. A sign-in under way is waited for, and ended too.
	deleteAllKeys = `DELETE FROM auth.signing_keys`
)

// ReplaceKeys puts a new key in the place of all others, at once, and ends every
// session by one row, however many there are: for when a key may be in other
// hands. It returns the key's id. No token needs to be named as revoked, since
// nothing verifies it. Binaries without epochs can't open the new key.
func (s *Service) ReplaceKeys(ctx context.Context) (kid string, err error) {
	err = s.transact(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, lockKeys); err != nil {
			return fmt.Errorf("lock: %w", err)
		}
		if _, err := tx.Exec(ctx, raiseEpoch); err != nil {
			return fmt.Errorf("end the sessions: %w", err)
		}
		if _, err := tx.Exec(ctx, deleteAllKeys); err != nil {
			return fmt.Errorf("remove the old ones: %w", err)
		}
		if kid, err = makeKey(ctx, tx, s.keys.secrets[0], 0); err != nil {
			return err
		}
		return audit(ctx, tx, audited{event: eventKeyReplace, outcome: succeeded, origin: keyOperator})
	})
	if err != nil {
		return "", fmt.Errorf("replace the signing keys: %w", err)
	}
	return kid, nil
}
