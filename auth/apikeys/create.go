package apikeys

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"fmt"
	"log/slog"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"gatehouse/auth/accounts"
	"gatehouse/auth/audit"
	"gatehouse/auth/deployment"
	"gatehouse/auth/outbox"
	"gatehouse/auth/revocations"
	"gatehouse/auth/secretkey"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/accesstoken"
	"gatehouse/internal/apikey"
	"gatehouse/internal/database"
	"gatehouse/internal/fault"
)

// Service implements authv1.APIKeyServiceHandler.
type Service struct {
	DB          *database.Pool
	Log         *audit.Log
	Mails       *outbox.Outbox
	Revocations *revocations.Feed
	// Secrets are the system's secret keys, newest first.
	Secrets [][]byte
	Logger  *slog.Logger
}

// repeatWindow is how long a repeated creation gets the first one's answer.
const repeatWindow = 2 * time.Minute

const (
	insertKey = `
		INSERT INTO auth.api_keys (id, secret_hash, account_id, name, scopes, networks, level, attached_unverified, idempotency_key_hash, expire_time)
		SELECT @id, @secret_hash, @account_id, @name, @scopes, @networks, @level, NOT @verified, @idempotency_key_hash, t.expire_time
		FROM (SELECT coalesce(@expire_time::timestamptz, clock_timestamp() + @life::interval) AS expire_time) t
		WHERE t.expire_time > clock_timestamp() AND t.expire_time <= clock_timestamp() + @max_life::interval`
	countKeys = `
		SELECT count(*) FROM auth.api_keys WHERE account_id = @account_id AND revoke_time IS NULL AND expire_time > now()`
	selectRepeated = `
		SELECT id, secret_hash FROM auth.api_keys
		WHERE account_id = @account_id AND idempotency_key_hash = @idempotency_key_hash AND create_time > now() - @within::interval AND revoke_time IS NULL`
)

// CreateKey implements authv1.APIKeyServiceHandler.
func (s *Service) CreateKey(ctx context.Context, req *authv1.CreateKeyRequest) (*authv1.CreateKeyResponse, error) {
	origin := req.GetOrigin()
	row := audit.Row{Event: audit.APIKeyCreate, Outcome: audit.Succeeded, Account: origin.GetAccountId(), Origin: origin}
	var made *authv1.CreateKeyResponse
	err := s.DB.Transact(ctx, func(tx pgx.Tx) error {
		account, err := accounts.Lock(ctx, tx, origin.GetAccountId())
		if err != nil {
			return err
		}
		caller, err := s.caller(ctx, tx, origin)
		if err != nil {
			return err
		}
		if made, err = s.repeated(ctx, tx, req); err != nil || made != nil {
			return err
		}
		if made, err = s.insert(ctx, tx, req, caller); err != nil {
			return err
		}
		if err := s.mailCreated(ctx, tx, account, made.GetKey(), origin); err != nil {
			return err
		}
		created := row
		created.Target = made.GetKey().GetKeyId()
		return audit.Write(ctx, tx, created)
	})
	if err != nil {
		return nil, fmt.Errorf("create an API key: %w", s.Log.Refuse(ctx, row, err))
	}
	return made, nil
}

// creator is a session that may create keys.
type creator struct {
	level    int
	verified bool
}

const selectCaller = `
	SELECT s.level, ` + accounts.Verified + `
	FROM auth.sessions s JOIN auth.accounts a ON a.id = s.account_id
	WHERE s.id = @id AND s.account_id = @account_id AND s.revoke_time IS NULL AND s.epoch >= ` + deployment.CurrentEpoch + ` AND s.expire_time > now() AND a.status = 'active'`

// caller checks that the calling session may create a key, whatever the policy of the
// gateway says: a key outlives the session. The caller's account is locked.
func (s *Service) caller(ctx context.Context, tx pgx.Tx, origin *authv1.Origin) (found creator, err error) {
	err = tx.QueryRow(ctx, selectCaller, pgx.NamedArgs{
		"id": database.Optional(origin.GetSessionId()), "account_id": origin.GetAccountId(),
	}).Scan(&found.level, &found.verified)
	if database.Missing(err) {
		return found, accesstoken.ErrSessionEnded // a key's id is no session: a key creates no key
	}
	if err != nil {
		return found, fmt.Errorf("look up the session: %w", err)
	}
	required := &authv1.Origin{AccountId: origin.GetAccountId(), SessionId: origin.GetSessionId(), RequireOwnLevel: true, RequireRecentSignIn: true}
	if err := accounts.RequireIfAsked(ctx, tx, required); err != nil {
		return found, err
	}
	if !found.verified && s.Mails.Enabled() {
		return found, accounts.ErrUnverified
	}
	return found, nil
}

// repeated returns the answer of an earlier call with the same Idempotency-Key; nil if
// there was none. The secret is derived from the key's id and the Idempotency-Key, so that
// it need not be stored.
func (s *Service) repeated(ctx context.Context, tx pgx.Tx, req *authv1.CreateKeyRequest) (*authv1.CreateKeyResponse, error) {
	hash := requestHash(req.GetIdempotencyKey())
	if hash == nil {
		return nil, nil
	}
	var id uuid.UUID
	var secretHash []byte
	err := tx.QueryRow(ctx, selectRepeated, pgx.NamedArgs{
		"account_id": req.GetOrigin().GetAccountId(), "idempotency_key_hash": hash, "within": repeatWindow,
	}).Scan(&id, &secretHash)
	if database.Missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for the first call: %w", err)
	}
	// While the secret keys are rotated, another copy's newest one may be an older one here.
	for _, secret := range s.Secrets {
		text, err := derivedText(secret, id, req.GetIdempotencyKey())
		if err != nil {
			return nil, err
		}
		if made := apikey.HashOf(text); subtle.ConstantTimeCompare(made[:], secretHash) == 1 {
			return answer(ctx, tx, id, text)
		}
	}
	return nil, fault.Unavailable().WithCause(fmt.Errorf("API key %s is derived from a secret key that this copy does not have", id))
}

func (s *Service) insert(ctx context.Context, tx pgx.Tx, req *authv1.CreateKeyRequest, caller creator) (*authv1.CreateKeyResponse, error) {
	account := req.GetOrigin().GetAccountId()
	var count int
	if err := tx.QueryRow(ctx, countKeys, pgx.NamedArgs{"account_id": account}).Scan(&count); err != nil {
		return nil, fmt.Errorf("count the API keys: %w", err)
	}
	if count >= maxKeys {
		return nil, errTooMany
	}
	id, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("make an id: %w", err)
	}
	text, err := s.text(id, req.GetIdempotencyKey())
	if err != nil {
		return nil, err
	}
	var expire *time.Time
	if req.GetExpireTime() != nil {
		expire = new(req.GetExpireTime().AsTime())
	}
	hash := apikey.HashOf(text)
	tag, err := tx.Exec(ctx, insertKey, pgx.NamedArgs{
		"id": id, "secret_hash": hash[:], "account_id": account, "name": req.GetName(), "scopes": req.GetScopes(),
		"networks": append([]string{}, req.GetNetworks()...), "level": caller.level, "verified": caller.verified,
		"idempotency_key_hash": requestHash(req.GetIdempotencyKey()), "expire_time": expire, "life": DefaultLife, "max_life": MaxLife,
	})
	if err != nil {
		return nil, fmt.Errorf("write the API key: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return nil, errExpireTime
	}
	return answer(ctx, tx, id, text)
}

func answer(ctx context.Context, tx pgx.Tx, id uuid.UUID, text string) (*authv1.CreateKeyResponse, error) {
	key, err := scan(tx.QueryRow(ctx, selectOne, pgx.NamedArgs{"id": id}))
	if err != nil {
		return nil, fmt.Errorf("read the API key: %w", err)
	}
	return &authv1.CreateKeyResponse{Key: key, Secret: text}, nil
}

// text returns the text of a new key: random, or derived for a call that may be repeated.
func (s *Service) text(id uuid.UUID, key *authv1.IdempotencyKey) (string, error) {
	if key == nil {
		var secret [32]byte
		_, _ = rand.Read(secret[:]) // never fails
		return apikey.Format(id, secret), nil
	}
	return derivedText(s.Secrets[0], id, key)
}

// derivedText returns the text that a key with an Idempotency-Key has by one of the secret keys.
func derivedText(from []byte, id uuid.UUID, key *authv1.IdempotencyKey) (string, error) {
	derived, err := secretkey.Derive(from, "api key v1")
	if err != nil {
		return "", err
	}
	return apikey.Format(id, [32]byte(secretkey.MAC(derived, append(id[:], key.GetKey()...)))), nil
}

// refuse records that the account's key was refused, and returns the refusal.
func (s *Service) refuse(ctx context.Context, account string, req *authv1.CheckKeyRequest, refusal *connect.Error) error {
	row := audit.Row{Event: audit.APIKeyRefuse, Account: account, Session: req.GetKeyId(), Target: req.GetKeyId(), Subject: "key:" + req.GetKeyId(), Origin: req.GetOrigin()}
	return s.Log.Refuse(ctx, row, refusal)
}
