package factors

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"gatehouse/auth/secretkey"
	"gatehouse/auth/totp"
	"gatehouse/internal/outage"
)

const (
	// resealInterval is also how long a secret may stay sealed with the older key that
	// another copy of auth has enrolled during a roll-out.
	resealInterval = time.Hour
	// resealBatch is how many secrets are read at once.
	resealBatch = 500
)

// Run reseals secrets at once and every hour, until ctx ends.
func (s *Store) Run(ctx context.Context) {
	ticker := time.NewTicker(resealInterval)
	defer ticker.Stop()
	failures := outage.Log{Logger: s.Logger, Failed: "authenticator apps: resealing failed, retrying", Recovered: "authenticator apps: resealed"}
	for {
		if err := s.Reseal(ctx); ctx.Err() == nil {
			failures.Note(ctx, err)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

const (
	selectSealed = `
		SELECT account_id::text, sealed_secret FROM auth.totp_factors
		WHERE key_id <> @key_id AND account_id > @after ORDER BY account_id LIMIT @most`
	resealTOTP = `
		UPDATE auth.totp_factors SET sealed_secret = @resealed, key_id = @key_id
		WHERE account_id = @account_id AND sealed_secret = @sealed`
)

// sealedSecret is the row of selectSealed.
type sealedSecret struct {
	AccountID    string
	SealedSecret []byte
}

// Reseal seals every secret with the newest secret key that an older one has sealed, so
// that the older one can be dropped. It continues past secrets that no key opens, and
// returns an error about them.
func (s *Store) Reseal(ctx context.Context) error {
	newest, err := secretkey.ID(s.Secrets[0])
	if err != nil {
		return err
	}
	after, unopened := "00000000-0000-0000-0000-000000000000", 0
	for {
		rows, err := s.DB.Query(ctx, selectSealed, pgx.NamedArgs{"key_id": newest, "after": after, "most": resealBatch})
		if err != nil {
			return fmt.Errorf("read the secrets of authenticator apps: %w", err)
		}
		found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[sealedSecret])
		if err != nil {
			return fmt.Errorf("read the secrets of authenticator apps: %w", err)
		}
		for _, row := range found {
			after = row.AccountID
			switch err := s.reseal(ctx, row, newest); {
			case errors.Is(err, secretkey.ErrSealed):
				unopened++
			case err != nil:
				return fmt.Errorf("reseal the secret of an authenticator app: %w", err)
			}
		}
		if len(found) < resealBatch {
			break
		}
	}
	if unopened > 0 {
		return fmt.Errorf("%d secrets of authenticator apps: %w", unopened, ErrSecret)
	}
	return nil
}

func (s *Store) reseal(ctx context.Context, row sealedSecret, newest string) error {
	secret, err := totp.Open(s.Secrets, row.AccountID, row.SealedSecret)
	if err != nil {
		return err
	}
	resealed, err := secret.Seal(s.Secrets[0], row.AccountID)
	if err != nil {
		return err
	}
	_, err = s.DB.Exec(ctx, resealTOTP, pgx.NamedArgs{
		"account_id": row.AccountID, "sealed": row.SealedSecret, "resealed": resealed, "key_id": newest,
	})
	return err
}

// ErrSecret says that the secret of an authenticator app was sealed with a secret key
// that isn't among those given.
var ErrSecret = errors.New("sealed with another GATEHOUSE_SECRET_KEY: give that one too, after a comma")

// State is what an operator wants to know of the second factors.
type State struct {
	// Lacking are emails of accounts that must have a second factor and have none: the
	// first few of Lacked.
	Lacking []string
	Lacked  int
	// Devices is the number of remembered devices, and Keys that of API keys that work.
	Devices, Keys int
}

const selectState = `
	SELECT coalesce((array_agg(a.email ORDER BY a.id))[1:5], '{}'), count(*), (SELECT count(*) FROM auth.remembered_devices),
		(SELECT count(*) FROM auth.api_keys WHERE revoke_time IS NULL AND expire_time > now())
	FROM auth.accounts a
	WHERE a.status = 'active' AND NOT a.second_factor AND (@required::boolean OR a.roles && @roles::text[])`

// ReadState returns the state of second factors.
func ReadState(ctx context.Context, db *pgx.Conn, roles []string, required bool) (state State, err error) {
	err = db.QueryRow(ctx, selectState, pgx.NamedArgs{"roles": roles, "required": required}).Scan(&state.Lacking, &state.Lacked, &state.Devices, &state.Keys)
	if err != nil {
		return State{}, fmt.Errorf("read the state of second factors: %w", err)
	}
	return state, nil
}

const existsUnopened = `SELECT EXISTS (SELECT FROM auth.totp_factors WHERE key_id <> ALL (@keys::text[]))`

// CheckSecrets checks that the secret keys include those that seal the secrets of
// authenticator apps. Errors: ErrSecret.
func CheckSecrets(ctx context.Context, db *pgx.Conn, secrets [][]byte) error {
	keys := make([]string, 0, len(secrets))
	for _, secret := range secrets {
		id, err := secretkey.ID(secret)
		if err != nil {
			return err
		}
		keys = append(keys, id)
	}
	var unopened bool
	if err := db.QueryRow(ctx, existsUnopened, pgx.NamedArgs{"keys": keys}).Scan(&unopened); err != nil {
		return fmt.Errorf("look at the secrets of authenticator apps: %w", err)
	}
	if unopened {
		return ErrSecret
	}
	return nil
}
